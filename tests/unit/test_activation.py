"""Sockets by which gocker-oci was activated, passed on to the program."""

from __future__ import annotations

import pytest

from gocker.model import ContainerSpec
from gocker.ocicli.activation import activated

SPEC = ContainerSpec(id="a", name="a", argv=("true",), env=(("A", "1"), ("LISTEN_FDS", "9")), preserve_fds=2)


def test_what_is_announced_to_this_process_comes_before_what_is_preserved() -> None:
    made = activated(SPEC, {"LISTEN_FDS": "3", "LISTEN_PID": "77"}, 77)
    assert made.env == (("A", "1"), ("LISTEN_FDS", "3"))
    assert made.preserve_fds == 5


def test_what_names_no_process_is_ours() -> None:
    assert activated(SPEC, {"LISTEN_FDS": "3"}, 77) == activated(
        SPEC, {"LISTEN_FDS": "3", "LISTEN_PID": "77"}, 77
    )


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_PID": "77"},
        {"LISTEN_FDS": "3", "LISTEN_PID": "78"},
        {"LISTEN_FDS": "0", "LISTEN_PID": "77"},
        {"LISTEN_FDS": "-1", "LISTEN_PID": "77"},
        {"LISTEN_FDS": "3", "LISTEN_PID": "7_7"},
        {"LISTEN_FDS": "9" * 9999, "LISTEN_PID": "77"},
        {"LISTEN_FDS": "4097", "LISTEN_PID": "77"},
        {"LISTEN_FDS": "x", "LISTEN_PID": "x"},
    ],
)
def test_what_is_announced_to_nobody_is_not_there(environ: dict[str, str]) -> None:
    assert activated(SPEC, environ, 77) == SPEC
