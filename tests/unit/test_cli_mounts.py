"""What `-v`, `--mount`, `--tmpfs` and `--shm-size` become beside the mounts that every container has."""

from __future__ import annotations

import os
from typing import Any

import pytest

from gocker.cli.mounts import mounts
from gocker.cli.run import command
from gocker.defaults import MASKED_PATHS, READONLY_PATHS, default_mounts
from gocker.errors import UsageError
from gocker.model import IdMap, Mount

PRIVATE = dict.fromkeys(("mount", "uts", "ipc", "pid", "network", "cgroup"), "private")
MAP = (IdMap(inside=0, outside=100000, count=65536),)
HARDENED = ("nosuid", "nodev", "noexec")


def of(*words: str, gid_map: tuple[IdMap, ...] = (), **modes: str) -> tuple[Mount, ...]:
    """All mounts of `gocker run WORDS`, in namespaces that are private but for `modes`."""
    options: dict[str, Any] = dict(command.make_context("run", [*words, "base", "true"]).params)
    return mounts(options, {**PRIVATE, "user": "host", **modes}, gid_map)


def targets(made: tuple[Mount, ...]) -> list[str]:
    return [mount.target for mount in made]


def at(made: tuple[Mount, ...], target: str) -> Mount:
    """The one mount at `target`."""
    (found,) = [mount for mount in made if mount.target == target]
    return found


class TestDefaults:
    def test_a_plain_container_has_these_in_this_order(self) -> None:
        assert of() == default_mounts(PRIVATE)
        assert targets(of()) == [
            *("/proc", "/sys", "/sys/fs/cgroup", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
        ]

    def test_the_terminals_group_is_named_only_where_it_is_mapped(self) -> None:
        def options(**modes: Any) -> tuple[str, ...]:
            return at(of(**modes), "/dev/pts").options

        assert "gid=5" in options()
        assert "gid=5" in options(user="private", gid_map=MAP)
        assert "gid=5" not in options(user="private", gid_map=(IdMap(inside=0, outside=1000, count=1),))
        assert {"newinstance", "ptmxmode=0666", "mode=0620", "nosuid", "noexec"} <= set(options())

    def test_shm_has_the_size_that_was_asked_for_in_bytes(self) -> None:
        assert at(of(), "/dev/shm").options == (*HARDENED, "mode=1777", f"size={64 << 20}")
        assert f"size={1 << 20}" in at(of("--shm-size", "1m"), "/dev/shm").options

    def test_the_hosts_ipc_brings_the_hosts_shm(self) -> None:
        bound = Mount(kind="bind", source="/dev/shm", target="/dev/shm", options=HARDENED)
        assert at(of(ipc="host"), "/dev/shm") == bound
        assert at(of(ipc="path"), "/dev/shm").kind == "tmpfs"
        assert bound in default_mounts({}), "a kind that nobody asked for is the host's"

    def test_queues_need_an_ipc_namespace_that_belongs_to_the_user_namespace(self) -> None:
        assert "/dev/mqueue" in targets(of(ipc="host"))
        assert "/dev/mqueue" in targets(of(user="private"))
        assert "/dev/mqueue" not in targets(of(user="private", ipc="host"))

    def test_sys_and_the_cgroups_are_read_only_unless_privileged(self) -> None:
        for words, mode in (((), "ro"), (("--privileged",), "rw")):
            for target, kind in (("/sys", "sysfs"), ("/sys/fs/cgroup", "cgroup")):
                mount = at(of(*words), target)
                assert (mount.kind, mount.options) == (kind, (*HARDENED, mode))

    def test_cgroups_are_shown_only_in_a_cgroup_namespace(self) -> None:
        for mode in ("host", "path"):
            assert "/sys/fs/cgroup" not in targets(of(cgroup=mode))

    def test_the_hosts_cgroups_are_covered_where_the_hosts_sys_has_to_do(self) -> None:
        cover = at(of(user="private", network="host", cgroup="host"), "/sys/fs/cgroup")
        assert (cover.kind, cover.options) == ("tmpfs", (*HARDENED, "ro", "size=4k"))
        assert "/sys/fs/cgroup" not in targets(of(user="private", cgroup="host"))

    def test_masks_hide_and_protect_what_dockers_do(self) -> None:
        assert set(MASKED_PATHS) == {
            *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys"),
            *("/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list"),
            *("/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"),
        }
        assert set(READONLY_PATHS) == {
            "/proc/bus",
            "/proc/fs",
            "/proc/irq",
            "/proc/sys",
            "/proc/sysrq-trigger",
        }


class TestTheUsers:
    def test_a_volume_has_no_devices_and_what_is_said_of_it_holds_below_too(
        self, tmp_path: os.PathLike[str]
    ) -> None:
        plain = Mount(kind="bind", source=str(tmp_path), target="/x", options=("rnodev",))
        assert of("-v", f"{tmp_path}:/x")[-1] == of("-v", f"{tmp_path}:/x:rw")[-1] == plain
        made = of("-v", f"{tmp_path}:/x:ro,nosuid,noexec,rslave")[-1]
        assert made.options == ("rnodev", "rro", "rnosuid", "rnoexec", "rslave")

    def test_devices_of_a_volume_work_below_dev_by_the_word_and_privileged(
        self, tmp_path: os.PathLike[str]
    ) -> None:
        assert of("-v", f"{tmp_path}:/dev/x")[-1].options == ()
        assert of("-v", f"{tmp_path}:/dev")[-1].options == ()
        assert of("-v", f"{tmp_path}:/developer")[-1].options == ("rnodev",)
        assert of("-v", f"{tmp_path}:/x:dev")[-1].options == ("rnodev", "rdev")
        assert of("--privileged", "-v", f"{tmp_path}:/x")[-1].options == ()

    def test_a_device_as_a_volume_stays_one(self) -> None:
        assert of("-v", "/dev/null:/etc/masked")[-1].options == ("rnodev", "rdev")

    @pytest.mark.parametrize(
        "text",
        ["type=bind,src={0},dst=/x,ro,bind-propagation=rslave", "type=bind,source={0},target=/x,readonly,bind-propagation=rslave",
         "destination=/x,type=bind,source={0},readonly=true,bind-propagation=rslave"],
    )  # fmt: skip
    def test_a_bind_by_mount(self, tmp_path: os.PathLike[str], text: str) -> None:
        made = of("--mount", text.format(tmp_path))[-1]
        assert made == Mount(
            kind="bind", source=str(tmp_path), target="/x", options=("rnodev", "rro", "rslave")
        )

    def test_a_tmpfs_is_hardened_unless_a_word_says_otherwise(self) -> None:
        assert of("--tmpfs", "/x")[-1] == Mount(kind="tmpfs", target="/x", options=HARDENED)
        made = of("--tmpfs", "/x:size=1m,mode=755,exec,ro")[-1]
        assert made.options == ("nosuid", "nodev", "size=1m", "mode=755", "exec", "ro")
        assert of("--tmpfs", "/x:suid,dev,exec")[-1].options == ("suid", "dev", "exec")
        made = of("--mount", "type=tmpfs,dst=/x,tmpfs-size=1m,tmpfs-mode=1777")[-1]
        assert made.options == (*HARDENED, "size=1048576", "mode=1777")
        assert of("--tmpfs", "/x:size=50%")[-1].options == (*HARDENED, "size=50%")

    def test_a_tmpfs_on_dev_holds_the_devices(self) -> None:
        assert at(of("--tmpfs", "/dev"), "/dev").options == ("nosuid", "noexec")
        assert at(of("--tmpfs", "/dev/x"), "/dev/x").options == HARDENED

    def test_parents_come_before_what_lies_in_them(self) -> None:
        words = [word for target in ("/a/b/c", "/a", "/a/b") for word in ("--tmpfs", target)]
        assert targets(of(*words))[-3:] == ["/a", "/a/b", "/a/b/c"]

    @pytest.mark.parametrize("text", ["/a//b/", "//a/b", "/a/./b", "/a/x/../b", "/../a/b"])
    def test_targets_are_plain_paths(self, text: str) -> None:
        assert of("--tmpfs", text)[-1].target == "/a/b"

    @pytest.mark.parametrize(
        ("target", "gone"),
        [
            ("/dev/shm", ["/dev/shm"]),
            ("/dev/mqueue", ["/dev/mqueue"]),
            ("/sys/fs/cgroup", ["/sys/fs/cgroup"]),
            ("/sys", ["/sys", "/sys/fs/cgroup"]),
            ("/dev", ["/dev", "/dev/pts", "/dev/shm", "/dev/mqueue"]),
        ],
    )
    def test_one_takes_the_place_of_the_default_there(self, target: str, gone: list[str]) -> None:
        made = of("-v", f"/etc:{target}/")
        rest = [mount for mount in made if mount.kind != "bind"]
        assert [mount.target for mount in of() if mount not in rest] == gone
        assert at(made, target).kind == "bind"

    @pytest.mark.parametrize(
        ("words", "reason"),
        [
            (("--tmpfs", "relative"), "not an absolute path"),
            (("--tmpfs", "/a\0b"), "not an absolute path"),
            (("--tmpfs", "/"), "the root itself"),
            (("--tmpfs", "//"), "the root itself"),
            (("--tmpfs", "/a/.."), "the root itself"),
            (("--tmpfs", "/proc"), "/proc must stay"),
            (("-v", "/etc:/proc"), "/proc must stay"),
            (("-v", "/etc/hostname:/proc/uptime"), "/proc must stay"),
            (("-v", "/etc:/x/../proc/sys"), "/proc must stay"),
            (("--tmpfs", "/dev/pts"), "terminals"),
            (("-t", "-v", "/dev:/dev"), "terminals"),
            (("--tmpfs", "/v:colour=red"), "tmpfs has no option colour=red"),
            (("--tmpfs", "/v:idmap=1"), "tmpfs has no option idmap=1"),
            (("--mount", "type=bind,src=/etc,dst=/v,bind-propagation=x"), "unknown option 'x'"),
            (("-v", "/etc:/v:rro"), "unknown option 'rro'"),
            (("-v", "/etc:/v:idmap"), "unknown option 'idmap'"),
            (("--tmpfs", "/v", "-v", "/etc:/v/"), "twice"),
            (("-v", "/etc:/v", "-v", "/usr:/x/../v"), "twice"),
        ],
    )  # fmt: skip
    def test_what_makes_no_sense_is_refused(self, words: tuple[str, ...], reason: str) -> None:
        with pytest.raises(UsageError, match=reason):
            of(*words)

    def test_dev_may_be_replaced_where_there_is_no_terminal(self) -> None:
        assert at(of("-v", "/dev:/dev"), "/dev").source == "/dev"
