"""Plans as data: steps to JSON and back, numbers, digests, and what is refused when read from disk."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gocker.errors import StateError
from gocker.model import ContainerSpec
from gocker.plan import (
    HOST,
    INIT,
    PARENT,
    PHASES,
    REMOVE,
    Context,
    Plan,
    Step,
    plan_from_json,
    step_from_json,
)


class Say(Step):
    """A step of this test."""

    op = "test-say"

    text: str
    times: int = 1
    pairs: tuple[tuple[str, int], ...] = ()

    def describe(self) -> str:
        return f"echo {self.text}"


class Hush(Step):
    """One more, with a secret."""

    op = "test-hush"

    secret: str

    def describe(self) -> str:
        return "hush"

    def to_json(self) -> dict[str, Any]:
        return {"op": self.op, "secret": "..."}


PLAN = Plan(
    container="c0ffee",
    name="web",
    host=(Say("a"), Say("é\udcff", 2, (("x", 1), ("y", 2)))),
    parent=(Say("b"),),
    init=(Hush("hunter2"),),
    remove=(Say("c"),),
)


def on_disk(plan: Plan = PLAN) -> Any:
    return json.loads(plan.canonical)


# --- steps


def test_a_step_is_its_op_and_its_fields_in_order() -> None:
    assert list(Say("a", 3).to_json().items()) == [
        ("op", "test-say"),
        ("text", "a"),
        ("times", 3),
        ("pairs", []),
    ]


@pytest.mark.parametrize("step", PLAN.host)
def test_a_step_comes_back_from_json_equal(step: Step) -> None:
    again = step_from_json(json.loads(json.dumps(step.to_json())))
    assert again == step
    assert hash(again) == hash(step)


def test_reading_leaves_the_data_as_it_was() -> None:
    data = {"op": "test-say", "text": "a"}
    step_from_json(data)
    assert data == {"op": "test-say", "text": "a"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({"op": "test-nothing"}, "no such step in this version of gocker"),
        ({}, "no such step in this version of gocker"),
        ({"op": "test-say"}, "missing field text"),
        ({"op": "test-say", "text": "a", "colour": 1}, "unknown field colour"),
    ],
)
def test_a_step_of_another_gocker_is_an_error_that_says_which(data: dict[str, Any], reason: str) -> None:
    with pytest.raises(StateError, match=reason) as caught:
        step_from_json(data)
    assert str(data.get("op", "")) in str(caught.value)


def test_two_steps_of_one_op_cannot_be() -> None:
    with pytest.raises(TypeError, match=r"step op test-say is taken by .*\.Say"):
        type("Other", (Step,), {"op": "test-say", "__annotations__": {}})
    assert Step.known["test-say"] is Say


def test_a_class_without_an_op_is_a_base_and_not_a_step() -> None:
    before = dict(Step.known)
    type("Base", (Step,), {"__annotations__": {}})
    assert Step.known == before


def test_a_step_does_nothing_more_than_it_defines() -> None:
    step, ctx = Say("a"), Context(None)
    step.undo(ctx)
    assert step.audit(ctx) == {}
    assert (step.event, step.undoable) == ("", False)
    with pytest.raises(NotImplementedError):
        step.execute(ctx)
    with pytest.raises(NotImplementedError):
        Step().describe()


# --- plans


def test_steps_are_numbered_over_all_phases_in_order() -> None:
    assert [(number, phase, step.describe()) for number, phase, step in PLAN.numbered()] == [
        (1, HOST, "echo a"),
        (2, HOST, "echo é\udcff"),
        (3, PARENT, "echo b"),
        (4, INIT, "hush"),
        (5, REMOVE, "echo c"),
    ]


def test_the_total_is_of_what_brings_it_up() -> None:
    assert PLAN.total == 4


def test_the_phases_are_those_of_the_module() -> None:
    assert tuple(phase for phase, _ in PLAN.phases()) == PHASES


def test_the_canonical_text_is_ascii_sorted_and_short() -> None:
    text = PLAN.canonical.decode("ascii")
    assert text.startswith('{"container":"c0ffee","name":"web","phases":{"host":[{"op":"test-say",')
    assert " " not in text
    assert "\n" not in text
    assert json.loads(text) == PLAN.to_json()


def test_the_digest_is_that_of_the_canonical_text() -> None:
    import hashlib

    assert PLAN.digest == f"sha256:{hashlib.sha256(PLAN.canonical).hexdigest()}"
    assert PLAN.digest == "sha256:2b320469548c31e388a01e2025080abda05eea35c06806109db7dd7afac6b794"


def test_each_difference_shows_in_the_digest() -> None:
    others = (
        PLAN.replace(container="c0ffef"),
        PLAN.replace(name="db"),
        PLAN.replace(host=PLAN.host[::-1]),
        PLAN.replace(parent=()),
        PLAN.replace(remove=(*PLAN.remove, Say("d"))),
    )
    assert len({PLAN.digest, *(other.digest for other in others)}) == 6


def test_a_secret_is_neither_on_disk_nor_in_the_digest() -> None:
    other = PLAN.replace(init=(Hush("hunter3"),))
    assert other.digest == PLAN.digest
    assert b"hunter" not in PLAN.canonical


def test_what_is_read_from_disk_undoes_the_same() -> None:
    read = plan_from_json(on_disk())
    assert (read.container, read.name) == ("c0ffee", "web")
    assert (read.host, read.parent, read.remove) == (PLAN.host, PLAN.parent, PLAN.remove)
    assert read.init == ()  # nothing to undo: it went with the process


def test_a_parent_step_that_only_a_start_knows_is_passed_over() -> None:
    data = on_disk()
    data["phases"]["parent"].insert(0, {"op": "test-nothing", "x": 1})
    assert plan_from_json(data).parent == PLAN.parent


@pytest.mark.parametrize("phase", [HOST, REMOVE])
def test_a_host_step_that_is_not_known_is_an_error_since_it_may_need_undoing(phase: str) -> None:
    data = on_disk()
    data["phases"][phase].append({"op": "test-nothing"})
    with pytest.raises(StateError, match="read plan test-nothing: no such step"):
        plan_from_json(data)


def test_a_plan_of_another_format_is_an_error() -> None:
    with pytest.raises(StateError, match=r"^read plan c0ffee: version 2 is not 1$"):
        plan_from_json({**on_disk(), "version": 2})


@pytest.mark.parametrize(
    "data",
    [None, [], "x", 5, {}, {"version": 1}, {"version": 1, "container": "c", "phases": {}}]
    + [
        {**on_disk(), "phases": phases}
        for phases in (None, {"host": None}, {"host": [5]}, {"host": {"op": 1}})
    ],
)
def test_nonsense_is_a_state_error_and_nothing_else(data: Any) -> None:
    with pytest.raises(StateError, match="read plan"):
        plan_from_json(data)


# --- contexts


def test_a_new_context_has_nothing_yet() -> None:
    ctx = Context(None)
    assert (ctx.spec, ctx.pid, ctx.pidfd, ctx.root) == (None, 0, -1, -1)
    assert (ctx.fds, ctx.effective, ctx.unbound, ctx.strangers) == ({}, {}, {}, set())


def test_two_contexts_share_nothing() -> None:
    first, second = Context(None), Context(ContainerSpec(id="a", name="a", argv=("a",)))
    first.fds["x"] = 5
    first.unbound["x"] = "y"
    assert (second.fds, second.unbound) == ({}, {})


def test_a_context_that_only_undoes_makes_no_process() -> None:
    with pytest.raises(StateError, match="clone: this context only undoes"):
        Context(None).enter()
