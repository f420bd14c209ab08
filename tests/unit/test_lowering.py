"""The assembler of the native executor, and which steps it is for."""

from __future__ import annotations

import errno
import importlib
import os
import pkgutil
import struct
from typing import Any

import planning
import pytest

import gocker.steps
from gocker import lowering
from gocker.errors import GockerError, KernelError
from gocker.lowering import DISARMING, Code, Data, Failure, NotLoweredError, Register, can_lower, words_from
from gocker.model import ContainerSpec
from gocker.plan import Context, Plan, Step
from gocker.planner import build_plan
from gocker.steps.capabilities import NoNewPrivileges
from gocker.steps.console import OpenPty
from gocker.steps.identity import SetSid, Umask
from gocker.steps.launch import PARK
from gocker.steps.mounts import MountFs

NOT_LOWERED = {
    "run-hook": "a program of the image or the host, with its output and its time limit",
    "mount-copy": "it copies a tree",
    "bind-inside": "few ask for it",
    "seccomp-listener": "the listener is handed over in memory that is shared with the launcher",
}
"""Steps of the init phase that the Python executor runs, and their whole plan with them; and why."""

OUTSIDE = {
    "attach-cgroup",
    "claim-cgroup",
    "clone",
    "enable-controllers",
    "fill-above",
    "filter-devices",
    "inherit-file",
    "listen-for-start",
    "make-cgroup",
    "make-directory",
    "map-layers",
    "oom-score-adj",
    "open-cgroup",
    "open-ids",
    "open-source",
    "preserve-fds",
    "raise-rlimits",
    "remove-cgroup",
    "require-process",
    "release-scope",
    "start-scope",
    "stop-scope",
    "take-cgroup",
    "try-controllers",
    "write-entry",
    "write-host-file",
    "write-kernel-file",
    "write-limit",
}
"""Steps of the host and the parent phase, which the launcher runs."""

SPEC = ContainerSpec(id="0123456789abcdef", name="n", argv=("true",))


def code(**changes: Any) -> Code:
    return Code(SPEC.replace(**changes), b"", (), 3)


class Emits(Step):
    """Whatever a test wants."""

    op = "test-emits"

    def describe(self) -> str:
        return "it"

    def execute(self, ctx: Context) -> None:
        raise AssertionError("not here")

    def emit(self, code: Code) -> None:
        code.call("umask", 0)


def lowered(emit: Any, made: Code | None = None) -> tuple[Code, list[int], bytes]:
    """(the code, the words of one step that emits so, its data)."""
    made = made or code()
    step = Emits()
    step.__dict__["emit"] = emit
    step.__dict__["template"] = lambda _: object()
    made.add(step, disarms=False, parks=False)
    size, data, _, _ = struct.unpack_from("=4I", made.program())
    return (
        made,
        list(struct.unpack_from(f"={(data - 16) // 8}Q", made.program(), 16)),
        made.program()[data:size],
    )


def every_step() -> dict[str, type[Step]]:
    for module in pkgutil.iter_modules(gocker.steps.__path__):
        importlib.import_module(f"gocker.steps.{module.name}")
    return {op: cls for op, cls in Step.known.items() if cls.__module__.startswith("gocker.steps.")}


def test_every_step_of_the_init_phase_is_lowered_or_has_a_reason() -> None:
    for op, cls in every_step().items():
        lowers = cls.at_host or (lowering._has_own_emit(cls) and cls.__dict__.get("lowers") is not False)
        assert lowers == (op not in NOT_LOWERED and op not in OUTSIDE), op
    assert not NOT_LOWERED.keys() & OUTSIDE


def test_what_is_left_out_is_left_out_of_a_plan_too() -> None:
    for op in NOT_LOWERED:
        cls = every_step()[op]
        values = dict.fromkeys(cls.fields, "")
        assert not can_lower(cls(**values)), op


def test_a_step_with_a_younger_execute_is_not_lowered() -> None:
    class Younger(SetSid):
        op = "test-younger"

        def execute(self, ctx: Context) -> None:
            """Something else."""

    assert can_lower(SetSid())
    assert not can_lower(Younger())
    with pytest.raises(NotLoweredError):
        code().add(Younger(), disarms=False, parks=False)


def test_an_instance_with_an_execute_of_its_own_is_not_lowered() -> None:
    step = Umask()
    step.__dict__["execute"] = lambda _: None
    assert not can_lower(step)


@pytest.mark.parametrize(
    ("step", "lowers"),
    [
        (OpenPty(), True),
        (OpenPty(newlines=True), False),
        (MountFs(fstype="proc", target="/proc", options=("nosuid",)), True),
        (MountFs(fstype="proc", target="/proc", options=("hidepid=2",)), False),
        (MountFs(fstype="tmpfs", target="/tmp", options=("size=1m",)), True),
    ],
)
def test_it_depends_on_the_fields(step: Step, lowers: bool) -> None:
    assert can_lower(step) is lowers


def test_a_call_has_its_number_its_arguments_and_where_the_result_goes() -> None:
    def emit(made: Code) -> None:
        made.call("umask", 0o22, into=Register(9))

    _, words, _ = lowered(emit)
    number = lowering._NUMBERS["umask"]
    assert words == [1 | 9 << 8 | 1 << 16 | number << 36, 0o22, 0]


def test_arguments_are_values_registers_or_places_in_the_data() -> None:
    def emit(made: Code) -> None:
        made.call("openat", Register(7), b"name", -1, made.data(b"12345678"), into=Register(9))

    _, words, data = lowered(emit)
    kinds = words[0] >> 24 & 0xFFF
    assert [kinds >> 2 * i & 3 for i in range(4)] == [1, 2, 0, 2]
    assert words[1] == 7
    assert data[words[2] :].startswith(b"name\0")
    assert words[3] == (1 << 64) - 1
    assert data[words[4] :].startswith(b"12345678")


def test_a_text_is_there_once_and_what_is_data_is_aligned() -> None:
    def emit(made: Code) -> None:
        first, again = made.text(b"abc"), made.text(b"abc")
        assert first == again
        assert made.data(b"x") % 8 == 0
        assert isinstance(first, Data)

    lowered(emit)


def test_a_text_with_a_nul_byte_is_no_text() -> None:
    with pytest.raises(NotLoweredError, match="NUL"):
        code().text(b"a\0b")


def test_a_jump_has_the_word_of_its_label() -> None:
    def emit(made: Code) -> None:
        away = made.label()
        made.call("umask", 0)
        made.catch(errno.ENOENT, away)
        made.jump_if(Register(9), 5, away, 0xFF, other=True)
        made.jump(away)
        made.place(away)

    _, words, _ = lowered(emit)
    end = len(words) - 1
    assert words[2] == 2 | errno.ENOENT << 16 | end << 32
    assert words[3:6] == [4 | 9 << 8 | 1 << 16 | end << 32, 0xFF, 5]
    assert words[6] == 3 | end << 32
    assert words[end] == 0


def test_a_label_that_is_never_placed_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="never placed"):
        lowered(lambda made: made.jump(made.label()))


def test_more_fds_than_registers_are_the_python_executors() -> None:
    with pytest.raises(NotLoweredError):
        lowered(lambda made: [made.register() for _ in range(300)])


def failure(at: int, number: int, **changes: Any) -> Failure:
    return Failure(0, at, number, 0, 0, 0, "", b"")._replace(**changes)


def test_an_error_is_what_the_call_says() -> None:
    def emit(made: Code) -> None:
        made.call("umask", 0, path="/there")
        made.call("umask", 0)

    made, _, _ = lowered(emit)
    error = made.error(failure(0, errno.ENOENT))
    assert isinstance(error, FileNotFoundError)
    assert error.filename == "/there"
    assert made.error(failure(2, errno.EPERM)).args == (errno.EPERM, os.strerror(errno.EPERM))


def test_an_error_goes_through_what_explains_it_from_the_inside_out() -> None:
    def emit(made: Code) -> None:
        with made.explained(lambda error, _: GockerError("outer", str(error))):
            with made.explained(lambda error, failed: KernelError("inner", failed.euid, str(error))):
                made.call("umask", 0)
            made.call("umask", 0)

    made, _, _ = lowered(emit)
    error = made.error(failure(0, errno.EIO, euid=7))
    assert str(error).startswith("outer inner 7: [Errno 5]")
    assert str(made.error(failure(2, errno.EIO))).startswith("outer [Errno 5]")


def test_a_failure_is_read_from_its_packet() -> None:
    packet = struct.pack("=4sIIiIIQII", b"!", 7, 3, 2, 41, 5, 6, 4, 2) + b"/x\xffy" + b"{}"
    assert Failure.parse(packet) == Failure(7, 3, 2, 41, 5, 6, "/x\udcffy", b"{}")


def test_who_did_not_lower_it_is_told_the_words() -> None:
    class Parks(Emits):
        op = PARK + "-test"

    made = code()
    park, after = Parks(), Emits()
    made.add(park, disarms=False, parks=True)
    words = {}

    def emit(inner: Code) -> None:
        def explain(error: Exception, _: Failure) -> Exception:
            assert isinstance(error, OSError)
            remedy = "ask" if error.errno == errno.EPERM else ""
            return KernelError.from_os("break", "it", error, remedy=remedy)

        with inner.explained(explain):
            inner.call("umask", 0)

    after.__dict__["emit"] = emit
    made.add(after, disarms=False, parks=False)
    first, _, _, _ = struct.unpack_from("=4I", made.program())
    size, _, _, blob = struct.unpack_from("=4I", made.program(), first)
    end = first + size - (blob + 7) // 8 * 8
    told = made.program()[end : end + blob]
    for number in (errno.EPERM, errno.EXDEV):
        words = words_from(failure(0, number, place=1, blob=told))
        assert words == lowering.failure_of(1, after, made.error(failure(0, number, place=1)))


def program(planned: Plan, spec: ContainerSpec, *, cached: bool = True) -> Code:
    names = tuple(f"tasks:{step.path}" for step in planned.host if step.op == "open-cgroup")  # type: ignore[attr-defined]
    made = Code(spec, b"", names, 3)
    for step in planned.init:
        if not cached:
            lowering._kept.clear()
        made.add(step, disarms=step.op in DISARMING, parks=step.op == PARK)
    return made


def plan_of(identity: str, version: str) -> tuple[ContainerSpec, Plan]:
    env = (("PATH", "/bin"), ("HOSTNAME", identity[:12]))
    spec = planning.spec("memory=100m", id=identity, name=identity, hostname=identity[:12], env=env)
    directory = f"/var/lib/gocker/containers/{identity}"
    host = planning.host(version)
    return spec, build_plan(spec, planning.registry(), host, directory, planning.SECCOMP).plan


@pytest.mark.parametrize("version", [planning.HYBRID, planning.V2])
def test_a_program_that_was_kept_is_what_it_would_be_made_anew(version: str) -> None:
    lowering._kept.clear()
    program(plan_of("0123456789abcdef", version)[1], plan_of("0123456789abcdef", version)[0])
    spec, planned = plan_of("fedcba9876543210", version)
    again = program(planned, spec)
    assert again.program() == program(planned, spec, cached=False).program()
    assert again.chunks == len(planned.init)
    assert None in again._raisers, "nothing was kept"


def test_an_error_of_a_program_that_was_kept_has_the_words_of_this_container() -> None:
    lowering._kept.clear()
    texts = []
    for identity in ("0123456789abcdef", "fedcba9876543210"):
        spec, planned = plan_of(identity, planning.HYBRID)
        made = program(planned, spec)
        place = next(i for i, step in enumerate(planned.init) if step.op == "mount-etc")
        fresh = program(planned, spec, cached=False)._raisers[place]
        assert fresh
        texts.append([str(made.error(failure(at, errno.EACCES, place=place))) for at in fresh])
        program(planned, spec)
    assert any("0123456789abcdef" in text for text in texts[0])
    assert texts[1] == [text.replace("0123456789abcdef", "fedcba9876543210") for text in texts[0]]


def test_nothing_of_a_plan_that_no_new_privileges_is_in_depends_on_what_was_before() -> None:
    lowering._kept.clear()
    first, second = code(), code()
    first.add(NoNewPrivileges(), disarms=False, parks=False)
    second.add(Umask(), disarms=False, parks=False)
    second.add(NoNewPrivileges(), disarms=False, parks=False)
    assert second.program().endswith(first.program())
