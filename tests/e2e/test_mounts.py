"""Volumes, tmpfs, /dev/shm and the mode of the root, as the program meets them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest
from command import Gocker


def sh(gocker: Gocker, script: str, *options: str, image: tuple[str, ...] = ("base",)) -> str:
    """What `script` prints, on stdout and stderr."""
    ran = gocker("run", *options, *image, "sh", "-c", f"exec 2>&1; {script}")
    assert ran.err == "", ran
    return ran.out


@pytest.fixture
def nested(tmp_path: os.PathLike[str]) -> Iterator[str]:
    """A host directory with a file, and a tmpfs mounted below it that has one too."""
    top = f"{tmp_path}/top"
    os.makedirs(f"{top}/below")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=777", "none", f"{top}/below"], check=True)
    for path in (f"{top}/file", f"{top}/below/file"):
        with open(path, "w") as file:
            file.write("host\n")
    yield top
    subprocess.run(["umount", f"{top}/below"], check=True)


class TestVolumes:
    def test_a_directory_is_read_and_written_through(self, gocker: Gocker, nested: str) -> None:
        script = "cat /v/file /v/below/file; echo new > /v/file; echo new > /v/below/more"
        assert sh(gocker, script, "-v", f"{nested}:/v") == "host\nhost\n"
        for path in ("file", "below/more"):
            with open(f"{nested}/{path}") as file:
                assert file.read() == "new\n"

    @pytest.mark.parametrize("kind", ["-v", "--mount"])
    def test_read_only_is_so_all_the_way_down(self, gocker: Gocker, nested: str, kind: str) -> None:
        option = f"{nested}:/v:ro" if kind == "-v" else f"type=bind,src={nested},dst=/v,ro"
        script = "for path in /v/file /v/below/file /v/x /v/below/x; do echo no > $path; done; rm /v/file; chmod 777 /v; mv /v/file /v/y"
        assert sh(gocker, script, kind, option).count("Read-only file system") == 7
        assert os.listdir(nested) == ["below", "file"] or os.listdir(nested) == ["file", "below"]

    def test_a_file(self, gocker: Gocker, nested: str) -> None:
        assert (
            sh(gocker, "cat /etc/passwd; echo x > /etc/passwd", "-v", f"{nested}/file:/etc/passwd")
            == "host\n"
        )
        with open(f"{nested}/file") as file:
            assert file.read() == "x\n"
        assert "Read-only" in sh(gocker, "echo y > /new/deep/file", "-v", f"{nested}/file:/new/deep/file:ro")

    def test_one_below_another_whatever_their_order(
        self, gocker: Gocker, nested: str, tmp_path: os.PathLike[str]
    ) -> None:
        os.mkdir(f"{tmp_path}/inner")
        options = ("-v", f"{tmp_path}/inner:/v/a/b", "-v", f"{nested}:/v", "--tmpfs", "/v/below/t")
        script = "ls /v /v/a/b; stat -f -c %T /v/below/t; touch /v/a/b/x"
        assert sh(gocker, script, *options).split() == ["/v:", "a", "below", "file", "/v/a/b:", "tmpfs"]
        assert os.listdir(f"{tmp_path}/inner") == ["x"]

    def test_a_missing_target_is_made_inside_and_not_in_the_image(
        self, gocker: Gocker, nested: str, tmp_path: os.PathLike[str]
    ) -> None:
        rootfs = f"{tmp_path}/rootfs"
        os.mkdir(rootfs)
        options = (
            "-v",
            "/usr:/usr:ro",
            "-v",
            "/lib:/lib:ro",
            "-v",
            "/lib64:/lib64:ro",
            "-v",
            f"{nested}:/a/b/c",
        )
        ran = gocker(
            "run",
            *options,
            "--rootfs",
            rootfs,
            "/usr/bin/stat",
            "-c",
            "%n %a %u",
            "/a",
            "/a/b",
            "/a/b/c/file",
        )
        assert ran.out.splitlines()[:2] == ["/a 755 0", "/a/b 755 0"], ran
        assert os.listdir(rootfs) == []

    def test_set_user_id_and_devices_are_off_where_docker_has_them_off(
        self, gocker: Gocker, nested: str
    ) -> None:
        options = (
            "".join(sh(gocker, "grep ' /v ' /proc/self/mountinfo", "-v", f"{nested}:/v:nosuid,noexec"))
            .split()[5]
            .split(",")
        )
        assert {"nosuid", "noexec", "nodev"} <= set(options)
        plain = sh(gocker, "grep ' /v ' /proc/self/mountinfo", "-v", f"{nested}:/v").split()[5].split(",")
        assert "nodev" in plain
        assert not {"nosuid", "noexec"} & set(plain)

    def test_a_device_given_as_a_volume_can_hide_a_file(self, gocker: Gocker) -> None:
        assert (
            sh(
                gocker,
                "wc -c < /etc/os-release; echo x > /etc/os-release && echo written",
                "-v",
                "/dev/null:/etc/os-release",
            )
            == "0\nwritten\n"
        )

    def test_what_is_mounted_inside_stays_inside(self, gocker: Gocker, nested: str) -> None:
        script = "mount -t tmpfs none /v && mkdir /v/inside && echo mounted"
        options = ("--privileged", "-v", f"{nested}:/v", "-v", "/usr:/usr:ro")
        assert sh(gocker, script, *options) == "mounted\n"
        assert sorted(os.listdir(nested)) == ["below", "file"]

    def test_propagation_when_it_is_asked_for(self, gocker: Gocker, nested: str) -> None:
        subprocess.run(["mount", "--make-shared", f"{nested}/below"], check=True)
        script = "grep ' /v ' /proc/self/mountinfo"
        assert "master:" in sh(gocker, script, "-v", f"{nested}/below:/v:rslave")
        assert "shared:" in sh(gocker, script, "-v", f"{nested}/below:/v:rshared")
        assert ":" not in sh(gocker, script, "-v", f"{nested}/below:/v").split(" - ")[0].split("/v ")[1]


class TestTmpfs:
    def test_it_is_empty_and_gone_afterwards(self, gocker: Gocker) -> None:
        assert (
            sh(gocker, "ls -A /etc | wc -l; touch /etc/x; ls /etc", "--tmpfs", "/etc")
            == "3\nhostname\nhosts\nresolv.conf\nx\n"
        )
        assert sh(gocker, "ls /etc/x") != "/etc/x\n"

    def test_options(self, gocker: Gocker) -> None:
        script = "stat -c '%a %u:%g' /t; stat -f -c %b:%S /t; head -c 2m /dev/zero > /t/x; wc -c < /t/x; cp /bin/true /t/true 2>/dev/null; rm /t/x; cp /bin/true /t; /t/true && echo ran"
        out = sh(gocker, script, "--tmpfs", "/t:size=1m,mode=700,uid=5,gid=6,exec").splitlines()
        blocks, size = map(int, out[1].split(":"))
        assert (out[0], blocks * size, out[-1]) == ("700 5:6", 1 << 20, "ran")
        assert "1048576" in out
        out = sh(gocker, script, "--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=711").splitlines()
        assert out[0] == "711 0:0"
        assert out[-1] != "ran"  # noexec

    def test_read_only(self, gocker: Gocker) -> None:
        assert "Read-only" in sh(gocker, "touch /t/x", "--tmpfs", "/t:ro")


class TestDev:
    def test_a_tmpfs_there_has_devices_that_work(self, gocker: Gocker) -> None:
        script = "ls /dev; head -c 3 /dev/zero | wc -c; echo x > /dev/null && readlink /proc/self/fd/0"
        lines = sh(gocker, script, "--tmpfs", "/dev:size=1m").split()
        assert {"null", "zero", "full", "random", "urandom", "tty"} <= set(lines)
        assert lines[-2:] == ["3", "/dev/null"]

    def test_a_volume_there_is_what_it_is_and_stdin_is_an_empty_pipe(
        self, gocker: Gocker, nested: str
    ) -> None:
        script = "ls /dev; cat; readlink /proc/self/fd/0"
        # The masks are made of the host's null device then.
        lines = sh(gocker, script, "-v", f"{nested}:/dev").split()
        assert lines[:-1] == ["below", "file"]
        assert lines[-1].startswith("pipe:")

    def test_a_tmpfs_deep_in_it_has_its_parents_made(self, gocker: Gocker) -> None:
        assert sh(gocker, "stat -f -c %T /dev/a/b; ls /dev/a", "--tmpfs", "/dev/a/b").split() == [
            "tmpfs",
            "b",
        ]


def test_shm_size(gocker: Gocker) -> None:
    blocks, size = map(int, sh(gocker, "stat -f -c '%b %S' /dev/shm", "--shm-size", "2m").split())
    assert blocks * size == 2 << 20


class TestRoot:
    def test_read_only_leaves_what_is_the_containers_own(self, gocker: Gocker) -> None:
        script = "for path in / /etc /tmp /usr/bin /etc/hosts /etc/hostname /dev /dev/shm /t; do if [ -d $path ]; then touch $path/x; else true >> $path; fi 2>/dev/null && echo $path; done"
        assert sh(gocker, script, "--read-only", "--tmpfs", "/t").split() == ["/dev", "/dev/shm", "/t"]

    def test_a_rootfs_is_not_written_to(self, gocker: Gocker, tmp_path: os.PathLike[str]) -> None:
        rootfs = self.rootfs(tmp_path)
        script = "echo new > /file; rm -r /dir; mkdir /more; chmod 700 /"
        ran = gocker("run", *self.TOOLS, "--rootfs", rootfs, "/bin/sh", "-c", script)
        assert (ran.code, ran.err) == (0, "")
        assert sorted(os.listdir(rootfs)) == ["dir", "file"]
        with open(f"{rootfs}/file") as file:
            assert file.read() == "old"

    def test_rw_writes_through_to_it(self, gocker: Gocker, tmp_path: os.PathLike[str]) -> None:
        rootfs = self.rootfs(tmp_path)
        ran = gocker(
            "run", *self.TOOLS, "--rootfs", f"{rootfs}:rw", "/bin/sh", "-c", "echo new > /file; mkdir /more"
        )
        assert (ran.code, ran.err) == (0, "")
        assert {"dir", "file", "more"} <= set(os.listdir(rootfs))
        with open(f"{rootfs}/file") as file:
            assert file.read() == "new\n"

    def test_rw_and_read_only_together_do_not(self, gocker: Gocker, tmp_path: os.PathLike[str]) -> None:
        rootfs = self.rootfs(tmp_path)
        ran = gocker(
            "run", *self.TOOLS, "--read-only", "--rootfs", f"{rootfs}:rw", "/bin/sh", "-c", "echo new > /file"
        )
        assert "Read-only file system" in ran.err, ran
        with open(f"{rootfs}/file") as file:
            assert file.read() == "old"

    def test_mode_and_owner_of_its_top_are_seen(self, gocker: Gocker, tmp_path: os.PathLike[str]) -> None:
        rootfs = self.rootfs(tmp_path)
        os.chmod(rootfs, 0o711)
        os.chown(rootfs, 3, 4)
        ran = gocker("run", *self.TOOLS, "--rootfs", rootfs, "/bin/stat", "-c", "%a %u:%g", "/")
        assert ran.out == "711 3:4\n", ran

    def test_odd_names_are_no_options(self, gocker: Gocker, tmp_path: os.PathLike[str]) -> None:
        # To mount(8) and overlay a comma and a colon are separators, and a backslash escapes.
        odd = f"{tmp_path}/a:b,c=d\\040 e\\,upperdir=\n\udcff"
        os.mkdir(odd)
        with open(f"{odd}/file", "w") as file:
            file.write("odd")
        env = {"GOCKER_ROOT": f"{odd}/data"}
        rootfs = f"{odd}/root"
        os.makedirs(f"{rootfs}/sub")
        ran = gocker(
            "run",
            *self.TOOLS,
            "--mount",
            f"type=bind,src={tmp_path},dst=/sub",
            "--rootfs",
            rootfs,
            "/bin/ls",
            "/sub",
            env=env,
        )
        assert (ran.code, "a:b" in ran.out) == (0, True), ran

    TOOLS = ("-v", "/usr:/usr:ro", "-v", "/bin:/bin:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro")

    @staticmethod
    def rootfs(tmp_path: os.PathLike[str]) -> str:
        path = f"{tmp_path}/rootfs"
        os.makedirs(f"{path}/dir")
        with open(f"{path}/file", "w") as file:
            file.write("old")
        return path
