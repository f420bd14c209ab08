"""What `gocker-oci exec` and `kill` make of their options, and where a log may be."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from gocker.errors import UsageError
from gocker.kernel.cgroupfs import kill_all
from gocker.lasting import Lasting
from gocker.ocicli.exec import changed_process
from gocker.ocicli.kill import signal_number
from gocker.ocicli.log import open_log

OPTIONS: dict[str, Any] = {
    "tty": False,
    "cwd": "",
    "env": (),
    "user": "",
    "additional_gids": (),
    "cap": (),
    "no_new_privs": False,
    "apparmor": "",
    "process_label": "",
}
USER = {"uid": 1, "gid": 2, "umask": 0o27, "additionalGids": [3]}


def process(config: dict[str, Any], **options: Any) -> dict[str, Any]:
    """What is executed in a container with this config."""
    lasting = Lasting(
        id="c1",
        argv=("sh",),
        hooks=(),
        bundle="/run/bundle",
        rootfs="/",
        pid=1,
        started=1,
        boot="x",
        begun=0,
        owner=0,
        annotations=(),
        groups=(),
        config=json.dumps(config),
        digest="sha256:0",
    )
    return changed_process(lasting, ["true"], {**OPTIONS, **options})


def with_user(**options: Any) -> Any:
    return process({"process": {"user": USER}}, **options)["user"]


class TestExec:
    @pytest.mark.parametrize(
        "config",
        [
            {},
            {"process": None},
            {"process": {"env": None, "user": None, "capabilities": None}},
            {"process": {"user": {"additionalGids": None}, "capabilities": {"bounding": None}}},
        ],
    )
    def test_a_member_that_is_null_is_one_that_is_absent(self, config: dict[str, Any]) -> None:
        made = process(config, env=("A=1",), user="5:6", additional_gids=(7,), cap=("CAP_KILL",))
        assert made["env"] == ["A=1"]
        assert made["user"] == {"uid": 5, "gid": 6, "additionalGids": [7]}
        sets = made["capabilities"]
        for name in ("bounding", "effective", "permitted"):
            assert sets[name] == ["CAP_KILL"]

    def test_what_the_options_name_comes_behind_what_the_config_has(self) -> None:
        sets = {"bounding": ["CAP_CHOWN"], "inheritable": ["CAP_CHOWN"]}
        made = process({"process": {"env": ["A=1"], "capabilities": sets}}, env=("B=2",), cap=("CAP_KILL",))
        assert made["env"] == ["A=1", "B=2"]
        assert made["capabilities"] == {
            "bounding": ["CAP_CHOWN", "CAP_KILL"],
            "inheritable": ["CAP_CHOWN"],
            "effective": ["CAP_KILL"],
            "permitted": ["CAP_KILL"],
            "ambient": ["CAP_KILL"],
        }

    def test_a_user_alone_leaves_the_group_and_the_rest_as_the_config_has_them(self) -> None:
        assert with_user(user="1000") == {**USER, "uid": 1000}
        assert with_user(user="1000:1001") == {**USER, "uid": 1000, "gid": 1001}
        assert with_user(user="0:0", additional_gids=(4,)) == {
            "uid": 0,
            "gid": 0,
            "umask": 0o27,
            "additionalGids": [3, 4],
        }

    @pytest.mark.parametrize("text", [":", "1:", ":1", "root", "1:2:3", "-1", "٣", "1:²", "9" * 20])
    def test_a_user_that_is_no_number_is_refused(self, text: str) -> None:
        with pytest.raises(UsageError, match="not UID or UID:GID"):
            with_user(user=text)


class TestSignal:
    @pytest.mark.parametrize(
        ("text", "number"),
        [
            ("0", 0),
            ("9", 9),
            ("0009", 9),
            ("64", 64),
            ("kill", 9),
            ("SIGTERM", 15),
            ("RTMIN", signal.SIGRTMIN),
            ("SIGRTMIN+3", signal.SIGRTMIN + 3),
            ("rtmin+30", 64),
        ],
    )
    def test_it_has_a_number_or_a_name(self, text: str, number: int) -> None:
        assert signal_number(text) == number

    @pytest.mark.parametrize(
        "text",
        [
            *("", "65", "-9", "+9", "9+1", "FROB", "SIG", "_IGN", "__CLASS__"),
            *("RTMIN+", "RTMIN+31", "RTMIN+²", "RTMIN+٣", "RTMIN+-1", "RTMIN+1+1", "RTMIN-1"),
            *("²", "٩", "9" * 5000, "0" * 5000, f"RTMIN+{'9' * 5000}"),
        ],
    )
    def test_anything_else_is_refused(self, text: str) -> None:
        with pytest.raises(UsageError, match="no such signal"):
            signal_number(text)


class TestLog:
    def test_a_pipe_without_a_reader_is_not_waited_for(self, tmp_path: Path) -> None:
        path = f"{tmp_path}/log"
        os.mkfifo(path)
        with pytest.raises(OSError, match="No such device"):
            open_log(path)

    def test_a_pipe_with_a_reader_is_written_to_and_not_waited_for_when_it_is_full(
        self, tmp_path: Path
    ) -> None:
        path = f"{tmp_path}/log"
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            fd = open_log(path)
            try:
                assert os.write(fd, bytes(1 << 20)) < 1 << 20
                with pytest.raises(BlockingIOError):
                    os.write(fd, b"x")
            finally:
                os.close(fd)
            assert os.read(reader, 1) == b"\0"
        finally:
            os.close(reader)


def test_who_comes_into_a_cgroup_of_v2_while_it_is_killed_is_killed_as_well(tmp_path: Path) -> None:
    """cgroup.kill is for those who are there: it is written again. 0 is a process that nobody can signal."""
    (tmp_path / "cgroup.procs").write_text("0\n", encoding="ascii")
    os.mkfifo(tmp_path / "cgroup.kill")
    writes = os.open(tmp_path / "cgroup.kill", os.O_RDWR | os.O_NONBLOCK)
    try:
        with pytest.raises(Exception, match="1 processes outlive SIGKILL"):
            kill_all(str(tmp_path), "v2", 0.05)
        assert len(os.read(writes, 100)) > 1
    finally:
        os.close(writes)
