"""The cgroup steps against plain directories, where those behave like cgroups."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from gocker.errors import HierarchyError, LimitError
from gocker.kernel import cgroupfs
from gocker.model import Hierarchy
from gocker.plan import Context, Step, step_from_json
from gocker.steps.cgroup import (
    AttachCgroup,
    ClaimCgroup,
    EnableControllers,
    FillAbove,
    InheritFile,
    JoinCgroup,
    MakeCgroup,
    OpenCgroup,
    RemoveCgroup,
    TakeCgroup,
    TryControllers,
    WriteEntry,
    WriteLimit,
    row_holds,
)

STEPS: list[Step] = [
    MakeCgroup(path="/c/gocker/id", base="/c", version="v1"),
    ClaimCgroup(path="/c/gocker/id", base="/c", version="v1", owner="/run/x/id/start"),
    TakeCgroup(path="/c/pod/id", base="/c", version="v1", owner="id"),
    EnableControllers(path="/c/gocker/id", base="/c", controllers=("memory", "pids")),
    WriteLimit(path="/c/id", file="memory.max", value="1", limit="memory", asked="1", accept=("0",)),
    InheritFile(path="/c/gocker/id", base="/c", file="cpuset.cpus"),
    AttachCgroup(path="/c/id", controller="memory"),
    OpenCgroup(path="/c/id", controller="memory"),
    JoinCgroup(path="/c/id", controller="memory"),
    RemoveCgroup(path="/c/gocker/id", base="/c", controller="memory"),
    TryControllers(path="/c/gocker/id", base="/c/gocker", controllers=("cpu",)),
    FillAbove(path="/c/gocker/id", base="/c", file="cpu.rt_runtime_us"),
    WriteEntry(
        path="/c/id",
        file="io.weight",
        value="8:0 9",
        limit="io",
        asked="9",
        row=True,
        fallback=(("io.bfq.weight", "8:0 1"),),
    ),
]


@pytest.fixture
def base(tmp_path: os.PathLike[str]) -> str:
    return os.fspath(tmp_path)


@pytest.fixture
def ctx() -> Context:
    return Context(None)


def put(path: str, text: str = "") -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)


def get(path: str) -> str:
    with open(path, encoding="utf-8") as stream:
        return stream.read()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.op)
def test_a_step_survives_json_and_says_itself_in_one_line(step: Step) -> None:
    again = step_from_json(json.loads(json.dumps(step.to_json())))
    assert again == step
    assert again.describe()
    assert "\n" not in again.describe()


def test_descriptions_are_commands() -> None:
    assert [step.describe() for step in STEPS] == [
        "mkdir -p /c/gocker/id",
        "mkdir -p /c/gocker/id",
        'mkdir -p /c/pod/id || test -z "$(cat /c/pod/id/cgroup.procs)"',
        'echo "+memory +pids" | tee {/c,/c/gocker}/cgroup.subtree_control',
        "echo 1 > /c/id/memory.max",
        "cat /c/gocker/cpuset.cpus > /c/gocker/id/cpuset.cpus",
        "echo $PID > /c/id/cgroup.procs",
        "exec {fd}> /c/id/tasks",
        "echo 0 > /c/id/tasks",
        "rmdir /c/gocker/id",
        'echo "+cpu" | tee /c/gocker/cgroup.subtree_control || :',
        "cat /c/cpu.rt_runtime_us > /c/gocker/cpu.rt_runtime_us",
        "echo 8:0 9 > /c/id/io.weight || echo 8:0 1 > /c/id/io.bfq.weight",
    ]


class TestMakeAndRemove:
    def test_makes_the_parents_between(self, base: str, ctx: Context) -> None:
        MakeCgroup(path=f"{base}/a/gocker/id", base=base, version="v1").execute(ctx)
        assert os.listdir(f"{base}/a/gocker") == ["id"]

    def test_undo_takes_the_empty_parents_and_stops_at_one_that_somebody_else_made(
        self, base: str, ctx: Context
    ) -> None:
        step = MakeCgroup(path=f"{base}/kept/new/gocker/id", base=base, version="v1")
        os.mkdir(f"{base}/kept")
        step.execute(ctx)
        step.undo(Context(None))
        assert os.listdir(base) == ["kept"]
        assert os.listdir(f"{base}/kept") == []

    def test_the_last_one_below_it_takes_a_parent_whoever_made_it(self, base: str, ctx: Context) -> None:
        first, second = (
            MakeCgroup(path=f"{base}/new/gocker/{name}", base=base, version="v1") for name in ("one", "two")
        )
        first.execute(ctx)
        second.execute(ctx)
        first.undo(ctx)
        assert os.listdir(f"{base}/new/gocker") == ["two"]
        second.undo(ctx)
        assert os.listdir(base) == []

    def test_undo_leaves_a_parent_that_another_container_uses(self, base: str, ctx: Context) -> None:
        for name in ("one", "two"):
            MakeCgroup(path=f"{base}/gocker/{name}", base=base, version="v1").execute(ctx)
        MakeCgroup(path=f"{base}/gocker/one", base=base, version="v1").undo(ctx)
        assert os.listdir(f"{base}/gocker") == ["two"]

    def test_undo_is_idempotent_and_fine_when_nothing_was_done(self, base: str, ctx: Context) -> None:
        step = MakeCgroup(path=f"{base}/gocker/id", base=base, version="v2")
        step.undo(ctx)
        step.execute(ctx)
        step.undo(ctx)
        step.undo(Context(None))
        assert os.listdir(base) == []

    def test_undo_finishes_one_that_was_cut_off_before_the_parents(self, base: str, ctx: Context) -> None:
        step = MakeCgroup(path=f"{base}/gocker/id", base=base, version="v2")
        step.execute(ctx)
        os.rmdir(step.path)
        step.undo(ctx)
        assert os.listdir(base) == []

    def test_removes_what_the_payload_made_below_deepest_first(self, base: str, ctx: Context) -> None:
        MakeCgroup(path=f"{base}/gocker/id", base=base, version="v2").execute(ctx)
        os.makedirs(f"{base}/gocker/id/a/b/c")
        os.makedirs(f"{base}/gocker/id/a/d")
        RemoveCgroup(path=f"{base}/gocker/id", base=base).execute(ctx)
        assert os.listdir(base) == []

    def test_never_deletes_a_file(self, base: str, ctx: Context, monkeypatch: pytest.MonkeyPatch) -> None:
        put(f"{base}/gocker/id/precious")
        monkeypatch.setattr(cgroupfs, "PATIENCE", 0.01)
        with pytest.raises(Exception, match="remove cgroup"):
            RemoveCgroup(path=f"{base}/gocker/id", base=base).execute(ctx)
        assert os.path.exists(f"{base}/gocker/id/precious")

    def test_an_id_that_is_taken_is_refused_and_its_undo_spares_it(self, base: str, ctx: Context) -> None:
        os.makedirs(f"{base}/gocker/id")
        step = MakeCgroup(path=f"{base}/gocker/id", base=base, version="v1")
        with pytest.raises(HierarchyError, match="another container has it"):
            step.execute(ctx)
        step.undo(ctx)
        assert os.listdir(f"{base}/gocker") == ["id"]

    @pytest.mark.parametrize("path", ["{}/../x", "{}", "{}/", "/elsewhere/x", "{}x/y", "{}/a//b", "{}/./b"])
    @pytest.mark.parametrize("cls", [MakeCgroup, RemoveCgroup])
    def test_a_path_outside_the_base_is_never_touched(
        self, base: str, ctx: Context, path: str, cls: type[MakeCgroup | RemoveCgroup]
    ) -> None:
        step = cls(path=path.format(base), base=base, version="v1")
        with pytest.raises(HierarchyError, match="not a path below"):
            step.execute(ctx)
        if cls is MakeCgroup:
            with pytest.raises(HierarchyError):
                step.undo(ctx)

    def test_a_base_that_is_gone_ends_the_attempts(self, base: str, ctx: Context) -> None:
        with pytest.raises(FileNotFoundError):
            MakeCgroup(path=f"{base}/gone/gocker/id", base=f"{base}/gone", version="v1").execute(ctx)


class TestWriteLimit:
    def limit(self, path: str, file: str = "memory.max", **fields: Any) -> WriteLimit:
        defaults: dict[str, Any] = {"value": "104857600", "limit": "memory", "asked": "100m"}
        return WriteLimit(path=path, file=file, **{**defaults, **fields})

    def test_both_figures_are_kept_and_logged(self, base: str, ctx: Context) -> None:
        put(f"{base}/memory.max")
        step = self.limit(base)
        step.execute(ctx)
        assert ctx.effective == {"memory": ("100m", "104857600")}
        assert step.audit(ctx) == {
            "controller": "memory",
            "limit": "memory",
            "file": f"{base}/memory.max",
            "asked": "100m",
            "written": "104857600",
            "effective": "104857600",
        }

    def test_another_answer_fails_the_run(self, ctx: Context) -> None:
        with pytest.raises(LimitError) as caught:
            self.limit("/dev", "null", remedy="try less").execute(ctx)
        expected = "set limit memory=100m: asked 104857600, the kernel answers nothing in null (try less)"
        assert str(caught.value) == expected
        assert not ctx.effective

    def test_a_documented_answer_binds(self, base: str, ctx: Context) -> None:
        put(f"{base}/memory.max")
        put(f"{base}/shown", "104853504\n")
        self.limit(base, verify="shown", accept=("0", "104853504")).execute(ctx)
        assert ctx.effective == {"memory": ("100m", "104853504")}

    def test_the_verifying_file_decides(self, base: str, ctx: Context) -> None:
        put(f"{base}/cpuset.cpus")
        put(f"{base}/cpuset.cpus.effective", "0-1\n")
        step = self.limit(base, "cpuset.cpus", value="99", verify="cpuset.cpus.effective")
        with pytest.raises(LimitError, match=r"asked 99, the kernel answers 0-1 in cpuset\.cpus\.effective"):
            step.execute(ctx)

    def test_a_missing_file_is_named(self, base: str, ctx: Context) -> None:
        with pytest.raises(LimitError, match=r"this kernel has no memory\.max in /"):
            self.limit(base).execute(ctx)

    def test_a_refused_write_says_what_was_written_where(self, ctx: Context) -> None:
        with pytest.raises(LimitError, match=r"ENOSPC: .* on write of 104857600 to /dev/full") as caught:
            self.limit("/dev", "full").execute(ctx)
        assert caught.value.errno == 28

    def test_best_effort_goes_on_and_says_why_it_does_not_bind(self, base: str, ctx: Context) -> None:
        put(f"{base}/cpuset.cpus")
        put(f"{base}/effective", "0-1\n")
        step = self.limit(base, "cpuset.cpus", verify="effective", required=False)
        step.execute(ctx)
        assert ctx.effective == {"memory": ("100m", "0-1")}
        assert ctx.unbound == {"memory": "asked 104857600, the kernel answers 0-1 in effective"}
        assert step.audit(ctx)["unbound"] == ctx.unbound["memory"]

    def test_best_effort_without_the_file_has_no_effective_value(self, base: str, ctx: Context) -> None:
        step = self.limit(base, required=False)
        step.execute(ctx)
        assert not ctx.effective
        assert step.audit(ctx)["effective"] is None
        assert "no memory.max" in step.audit(ctx)["unbound"]

    def test_best_effort_reports_what_holds_when_the_write_is_refused(self, ctx: Context) -> None:
        self.limit("/dev", "full", required=False, verify="null").execute(ctx)
        assert ctx.effective == {"memory": ("100m", "")}
        assert "ENOSPC" in ctx.unbound["memory"]

    def test_an_optional_limit_may_lack_its_file_but_not_fail_otherwise(
        self, base: str, ctx: Context
    ) -> None:
        self.limit(base, optional=True).execute(ctx)
        assert ctx.unbound == {"memory": "this kernel has no memory.max"}
        with pytest.raises(LimitError, match="ENOSPC"):
            self.limit("/dev", "full", optional=True).execute(ctx)


class TestEnableControllers:
    def step(self, base: str) -> EnableControllers:
        return EnableControllers(path=f"{base}/gocker/id", base=base, controllers=("memory", "pids"))

    def test_enables_what_is_missing_from_the_top_down(self, base: str, ctx: Context) -> None:
        put(f"{base}/cgroup.subtree_control", "cpu pids\n")
        put(f"{base}/gocker/cgroup.subtree_control")
        self.step(base).execute(ctx)
        assert get(f"{base}/cgroup.subtree_control").startswith("+memory")
        assert get(f"{base}/gocker/cgroup.subtree_control") == "+memory +pids"

    def test_reads_once_where_the_parent_has_them(self, base: str, ctx: Context) -> None:
        put(f"{base}/gocker/cgroup.subtree_control", "cpu memory pids\n")
        self.step(base).execute(ctx)  # and never misses the file of `base`
        assert get(f"{base}/gocker/cgroup.subtree_control") == "cpu memory pids\n"

    def test_a_controller_that_is_not_handed_down_is_named(self, base: str, ctx: Context) -> None:
        os.makedirs(f"{base}/gocker")
        put(f"{base}/cgroup.controllers", "cpu io\n")
        with pytest.raises(HierarchyError) as caught:
            self.step(base).execute(ctx)
        assert str(caught.value).startswith(
            f"enable controllers memory pids: ENOENT: {base} is given only cpu io"
        )

    def test_outside_the_base_nothing_is_enabled(self, base: str, ctx: Context) -> None:
        with pytest.raises(HierarchyError, match="not a path below"):
            EnableControllers(path=f"{base}/../x", base=base, controllers=("memory",)).execute(ctx)


class TestInheritFile:
    def test_fills_down_from_the_nearest_ancestor_with_a_value(self, base: str, ctx: Context) -> None:
        put(f"{base}/cpus", "0-7\n")
        put(f"{base}/a/cpus", "0-3\n")
        put(f"{base}/a/b/cpus", "\n")
        put(f"{base}/a/b/id/cpus", "")
        os.chmod(f"{base}/a/b", 0o1755)  # as gocker makes it
        InheritFile(path=f"{base}/a/b/id", base=base, file="cpus").execute(ctx)
        assert get(f"{base}/a/b/cpus").startswith("0-3")
        assert get(f"{base}/a/b/id/cpus") == "0-3"
        assert get(f"{base}/cpus") == "0-7\n"

    def test_leaves_a_value_alone(self, base: str, ctx: Context) -> None:
        put(f"{base}/cpus", "0-7\n")
        put(f"{base}/id/cpus", "2\n")
        InheritFile(path=f"{base}/id", base=base, file="cpus").execute(ctx)
        assert get(f"{base}/id/cpus") == "2\n"

    def test_fills_an_empty_parent_that_somebody_else_made(self, base: str, ctx: Context) -> None:
        put(f"{base}/cpus", "0-7\n")
        put(f"{base}/a/cpus", "\n")
        put(f"{base}/a/id/cpus", "")
        InheritFile(path=f"{base}/a/id", base=base, file="cpus").execute(ctx)
        assert get(f"{base}/a/cpus").startswith("0-7")
        assert get(f"{base}/a/id/cpus") == "0-7"

    def test_says_so_when_no_ancestor_has_one(self, base: str, ctx: Context) -> None:
        put(f"{base}/cpus")
        put(f"{base}/id/cpus")
        with pytest.raises(HierarchyError, match="has a value"):
            InheritFile(path=f"{base}/id", base=base, file="cpus").execute(ctx)


class TestAttach:
    def test_attach_writes_the_childs_pid(self, base: str, ctx: Context) -> None:
        put(f"{base}/cgroup.procs")
        ctx.pid = 4711
        AttachCgroup(path=base, controller="memory").execute(ctx)
        assert get(f"{base}/cgroup.procs") == "4711"

    def test_a_failed_attach_names_the_cgroup(self, base: str, ctx: Context) -> None:
        with pytest.raises(HierarchyError, match=f"attach to cgroup {base}: ENOENT"):
            AttachCgroup(path=base, controller="memory").execute(ctx)

    def test_join_writes_zero_by_the_fd_that_open_left_and_closes_it(self, base: str, ctx: Context) -> None:
        put(f"{base}/tasks")
        OpenCgroup(path=base, controller="memory").execute(ctx)
        (fd,) = ctx.fds.values()
        assert not os.get_inheritable(fd)
        JoinCgroup(path=base, controller="memory").execute(ctx)
        assert get(f"{base}/tasks") == "0"
        assert not ctx.fds
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)

    def test_undo_of_open_closes_the_fd_and_can_be_repeated(self, base: str, ctx: Context) -> None:
        put(f"{base}/tasks")
        step = OpenCgroup(path=base, controller="memory")
        step.execute(ctx)
        (fd,) = ctx.fds.values()
        step.undo(ctx)
        step.undo(ctx)
        step.undo(Context(None))
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)

    def test_a_cpuset_that_is_not_filled_says_so(self, ctx: Context) -> None:
        ctx.fds["tasks:/c/cpuset"] = os.open("/dev/full", os.O_WRONLY)
        with pytest.raises(HierarchyError, match=r"ENOSPC.*until cpuset\.cpus and cpuset\.mems are set"):
            JoinCgroup(path="/c/cpuset", controller="cpuset").execute(ctx)


class TestReading:
    def test_a_file_is_read_stripped_and_whole(self, base: str) -> None:
        put(f"{base}/x", " 1\n" * 60000)
        assert cgroupfs.read_file(base, "x") == (" 1\n" * 60000).strip()

    def test_what_is_not_there_is_none(self, base: str) -> None:
        assert cgroupfs.read_file(base, "x") is None
        assert cgroupfs.read_file(f"{base}/gone", "x") is None

    def test_what_may_not_be_read_is_an_error(self, base: str) -> None:
        with pytest.raises(IsADirectoryError):
            cgroupfs.read_file(base, ".")

    def test_a_reader_knows_its_version(self, base: str) -> None:
        put(f"{base}/pids.peak", "3\n")
        reader = cgroupfs.DirReader(base, Hierarchy.V2)
        assert (reader.hierarchy, reader.read("pids.peak"), reader.read("x")) == (Hierarchy.V2, "3", None)

    def test_processes_are_those_of_the_whole_tree(self, base: str) -> None:
        put(f"{base}/cgroup.procs", "1\n2\n")
        put(f"{base}/a/cgroup.procs", "3\n")
        put(f"{base}/a/b/cgroup.procs", "")
        os.mkdir(f"{base}/c")
        assert sorted(cgroupfs.processes(base)) == [1, 2, 3]

    def test_gocker_never_kills_itself(self, base: str) -> None:
        put(f"{base}/cgroup.procs", f"{os.getpid()}\n")
        with pytest.raises(Exception, match="gocker itself runs in it"):
            cgroupfs.kill_all(base, "v2")


class TestFillAbove:
    def fill(self, base: str, ctx: Context, mode: int, *values: str) -> list[str]:
        names = ("", "/gocker", "/gocker/deep", "/gocker/deep/id")
        for name, value in zip(names, values, strict=True):
            put(f"{base}{name}/rt", value)
            os.chmod(f"{base}{name}", mode)
        FillAbove(path=f"{base}/gocker/deep/id", base=base, file="rt").execute(ctx)
        return [get(f"{base}{name}/rt") for name in names]

    def test_gockers_own_pass_on_what_the_first_has_and_the_container_is_left_alone(
        self, base: str, ctx: Context
    ) -> None:
        assert self.fill(base, ctx, 0o1755, "950000", "0", "0", "0") == ["950000", "950000", "950000", "0"]

    def test_what_has_some_keeps_it(self, base: str, ctx: Context) -> None:
        assert self.fill(base, ctx, 0o1755, "950000", "7", "0", "0") == ["950000", "7", "7", "0"]

    def test_the_none_of_an_operator_is_kept(self, base: str, ctx: Context) -> None:
        assert self.fill(base, ctx, 0o755, "950000", "0", "0", "0") == ["950000", "0", "0", "0"]

    def test_a_kernel_without_realtime_groups_is_left_to_the_write(self, base: str, ctx: Context) -> None:
        FillAbove(path=f"{base}/gocker/id", base=base, file="rt").execute(ctx)


class TestWriteEntry:
    """A plain file keeps what is written over its beginning, so that the rest can stand for a table's."""

    def step(self, base: str, value: str, **fields: Any) -> WriteEntry:
        return WriteEntry(path=base, file="io.max", value=value, limit="io", asked="x", **fields)

    def test_a_line_with_all_the_words_binds_and_is_what_is_reported(self, base: str, ctx: Context) -> None:
        put(f"{base}/io.max", "8:0 rbps=1 wbps=max\n8:16 rbps=5\n")
        self.step(base, "8:0 rbps=1", row=True).execute(ctx)
        assert ctx.effective == {"io": ("x", "8:0 rbps=1 wbps=max")}

    def test_a_line_that_says_something_else_is_an_error(self, base: str, ctx: Context) -> None:
        put(f"{base}/io.max")
        self.with_table(base, ctx, "8:0 rbps=1 wbps=2")
        with pytest.raises(LimitError, match="asked 8:0 wbps=3, the kernel answers 8:0 rbps=1 wbps=2"):
            self.step(base, "8:0 wbps=3", row=True, verify="io.stat").execute(ctx)

    def with_table(self, base: str, ctx: Context, table: str) -> Context:
        put(f"{base}/io.stat", table)
        return ctx

    def test_best_effort_goes_on_with_what_holds(self, base: str, ctx: Context) -> None:
        put(f"{base}/io.max")
        self.with_table(base, ctx, "8:0 rbps=2")
        self.step(base, "8:0 rbps=3", row=True, verify="io.stat", required=False).execute(ctx)
        assert ctx.effective == {"io": ("x", "8:0 rbps=2")}
        assert "io" in ctx.unbound

    def test_the_first_file_that_is_there_is_written(self, base: str, ctx: Context) -> None:
        put(f"{base}/second")
        step = self.step(base, "5", fallback=(("first", "6"), ("second", "7"), ("third", "8")))
        step.execute(ctx)
        assert get(f"{base}/second") == "7"
        assert ctx.effective == {"io": ("x", "7")}

    def test_none_of_the_files_is_an_error_that_names_the_usual_one(self, base: str, ctx: Context) -> None:
        with pytest.raises(LimitError, match=r"this kernel has no io\.max"):
            self.step(base, "5", fallback=(("first", "6"),)).execute(ctx)

    def test_what_is_tentative_reports_nothing(self, base: str, ctx: Context) -> None:
        self.step(base, "5", tentative=True).execute(ctx)
        put(f"{base}/io.max")
        self.step(base, "5", tentative=True).execute(ctx)
        assert (get(f"{base}/io.max"), ctx.effective, ctx.unbound) == ("5", {}, {})

    def test_what_is_tentative_fails_for_another_reason_than_the_order(self, base: str, ctx: Context) -> None:
        os.mkdir(f"{base}/io.max")
        with pytest.raises(LimitError, match="EISDIR"):
            self.step(base, "5", tentative=True).execute(ctx)

    @pytest.mark.parametrize(
        ("row", "table", "holds"),
        [
            ("8:0 rbps=1", "8:0 wbps=2 rbps=1", True),
            ("8:0 rbps=1", "8:0 rbps=10", False),
            ("8:0 rbps=1", "18:0 rbps=1", False),
            ("8:0 rbps=1", "", False),
            ("8:0 rbps=max", "", True),
            ("8:0 0", "", True),
            ("8:0 0", "8:0 5", False),
            ("default 200", "default 200\n8:0 5", True),
            ("50000", "50000 100000", True),
            ("max", "", False),
        ],
    )
    def test_a_row_holds(self, row: str, table: str, holds: bool) -> None:
        assert row_holds(row, table) is holds
