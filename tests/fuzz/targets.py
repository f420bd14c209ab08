"""What is fuzzed within this process: readers and planners, up to the plan that nobody executes."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ocibundle
from fuzz_host import CONTAINER, DATA, Blank
from hypothesis import strategies as st
from mutate import ANY, ODD, Change, changed, changes
from planning import HYBRID, V1, V2, host

from gocker import updating
from gocker.cgroupplan import by_controller
from gocker.cli import quick
from gocker.cli.flags import START_FLAGS
from gocker.cli.plan import plan_lines
from gocker.cli.show import show_error
from gocker.cli.spec import build_spec
from gocker.errors import GockerError
from gocker.execplan import plan_exec
from gocker.hierarchy import Hierarchies
from gocker.lasting import Group, Lasting, parse_lasting
from gocker.limits import LimitRequest
from gocker.model import ContainerSpec, Hierarchy
from gocker.oci.document import parse_document
from gocker.oci.process import read_process
from gocker.oci.spec import read_config
from gocker.ocicli import main as oci
from gocker.ocicli.exec import changed_process
from gocker.ocicli.flags import GLOBAL, VERBS
from gocker.ocicli.update import changes as meant
from gocker.ocicli.update import with_flags
from gocker.ociresources import deal, deal_all
from gocker.plan import plan_from_json
from gocker.planner import build_plan
from gocker.registry import Registry
from gocker.seccomp import seccomp_step

HANG = 20  # seconds that one example may take on a machine that is in use
_MAX_MESSAGE = 13000  # characters: 1000 of each part, some of which are shown as \\x1b

REGISTRY = Registry()
HOSTS = tuple(map(host, (HYBRID, V1, V2)))
"""Not this one: what is planned is the same everywhere. The first has all that RESOURCES asks for."""
RESOURCES: dict[str, Any] = {
    "devices": [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
    ],
    "memory": {
        "limit": 100 << 20,
        "swap": 200 << 20,
        "reservation": 50 << 20,
        "swappiness": 10,
        "disableOOMKiller": False,
    },
    "cpu": {"shares": 512, "quota": 50000, "period": 100000, "burst": 0, "cpus": "0", "mems": "0", "idle": 0},
    "pids": {"limit": 100},
    "blockIO": {"weight": 100, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}]},
    "network": {"classID": 1, "priorities": [{"name": "lo", "priority": 1}]},
    "rdma": {"mlx5_0": {"hcaHandles": 1, "hcaObjects": 2}},
    "unified": {"memory.high": "1000000"},
}
FULL = ocibundle.full()
FULL["linux"]["resources"] = RESOURCES
FULL["linux"]["seccomp"] = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "architectures": ["SCMP_ARCH_X86_64"],
    "flags": ["SECCOMP_FILTER_FLAG_LOG"],
    "syscalls": [
        {
            "names": ["keyctl", "mount"],
            "action": "SCMP_ACT_ERRNO",
            "errnoRet": 1,
            "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}],
        }
    ],
}


def _planned() -> dict[str, Any]:
    """All of it but what is refused, so that what changes goes on to the plan."""
    config = copy.deepcopy(FULL)
    del config["annotations"]["dev.gocker.limit.pids"]  # as its resources
    for name in ("apparmorProfile", "selinuxLabel"):  # of no kernel both
        del config["process"][name]
    return config


CONFIG = _planned()
PROCESS = CONFIG["process"]


def survives(target: Callable[[], object]) -> None:
    """It returns, or raises an error of gocker's own, soon; anything else is found."""
    with bounded():
        try:
            target()
        except GockerError as refused:
            error = refused
        else:
            return
    with contextlib.redirect_stderr(io.StringIO()) as said:
        show_error(error)
    text = said.getvalue()
    assert text.count("\n") == 1 + len(getattr(error, "__notes__", ())), text
    assert text.startswith("gocker: "), text
    assert len(text) < _MAX_MESSAGE, text
    assert text[:-1].replace("\n", "").isprintable(), text


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    def hangs(*_: object) -> None:
        raise AssertionError(f"took more than {HANG} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(HANG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def check() -> None:
    """What is changed is good as it is, on each host: else nothing would get further than its first mistake."""
    for hierarchies, lasting in zip(HOSTS, LASTING, strict=True):
        spec = read(as_json(CONFIG))
        plan(spec.replace(limits=possible(spec.limits, hierarchies)), hierarchies)
        requests = by_controller(possible(deal(meant(RESOURCES), REGISTRY), hierarchies))
        updating._plan_update(requests, _BASE, lasting, REGISTRY, hierarchies, {})
    fields, _ = read_process(as_json(PROCESS))
    plan_exec(_BASE.replace(**fields), LASTING[0], REGISTRY, DATA)
    parse_lasting(as_json(_STATE), CONTAINER)


def read(data: bytes) -> ContainerSpec:
    def limits(resources: Any, annotations: Any) -> Any:
        return deal_all(resources, annotations, REGISTRY)

    return read_config(data, container=CONTAINER, bundle="/run/bundle", limits=limits)[0]


def plan(spec: ContainerSpec, hierarchies: Hierarchies, start: str = "/run/gocker/start") -> None:
    """Make it, and read it back as a later gocker does."""
    directory = f"{DATA}/{CONTAINER}"
    planned = build_plan(spec, REGISTRY, hierarchies, directory, seccomp_step(spec, ""), start).plan
    text = planned.canonical
    undone = plan_from_json(json.loads(text))
    assert undone.container == planned.container
    for line in plan_lines(planned):  # as it is shown: a path may hold a newline
        assert "\n" not in line, line


ONLY_V1 = frozenset({"memory.swappiness"})


def as_json(document: Any) -> bytes:
    return json.dumps(document).encode()


def config(data: bytes) -> None:
    for hierarchies in HOSTS:

        def target(hierarchies: Hierarchies = hierarchies) -> None:
            spec = read(data)
            plan(spec.replace(limits=possible(spec.limits, hierarchies)), hierarchies)

        survives(target)


def possible(requests: Iterable[LimitRequest], hierarchies: Hierarchies) -> tuple[LimitRequest, ...]:
    """Those that the host has something for, so that not all is refused where not all is to be had."""
    found = []
    for one in requests:
        place = hierarchies.place_of(REGISTRY.controller(one.name).kernel_names)
        if place is not None and (place.version is Hierarchy.V1 or one.label not in ONLY_V1):
            found.append(one)
    return tuple(found)


_BASE = read(as_json({**ocibundle.minimal(), "process": {"cwd": "/", "args": ["sh"]}}))


def _lasting(hierarchies: Hierarchies) -> Lasting:
    """A container that is in all hierarchies of a host."""
    places = {
        name: hierarchies.place_of(REGISTRY.controller(name).kernel_names)
        for name in REGISTRY.controller_names()
    }
    return Lasting(
        id=CONTAINER,
        bundle="/run/bundle",
        rootfs="/",
        pid=os.getpid(),
        started=1,
        boot="x",
        begun=0,
        argv=("sh",),
        hooks=(),
        owner=0,
        annotations=(),
        groups=tuple(
            Group(
                controllers=(name,), path=place.directory(f"gocker/{CONTAINER}"), version=place.version.value
            )
            for name, place in places.items()
            if place is not None
        ),
        config="{}",
        digest="sha256:0",
    )


LASTING = tuple(map(_lasting, HOSTS))


def process(data: bytes) -> None:
    def target() -> None:
        fields, _ = read_process(data)
        plan_exec(_BASE.replace(**fields), LASTING[0], REGISTRY, DATA)

    survives(target)


def exec_options(found: list[Change]) -> None:
    """The options of exec, where a container can have been created from what is changed."""
    document = changed(CONFIG, found)
    try:
        read(as_json(document))
    except GockerError:
        return
    lasting = LASTING[0].replace(config=json.dumps(document))

    def target() -> None:
        fields, _ = read_process(changed_process(lasting, ["true"], EXEC_OPTIONS))
        plan_exec(_BASE.replace(**fields), lasting, REGISTRY, DATA)

    survives(target)


EXEC_OPTIONS: dict[str, Any] = {
    "tty": False,
    "cwd": "/tmp",
    "env": ("A=1",),
    "user": "1000",
    "additional_gids": (5,),
    "cap": ("CAP_KILL",),
    "no_new_privs": True,
    "apparmor": "",
    "process_label": "",
}


def update(data: bytes, flags: dict[str, str]) -> None:
    for hierarchies, lasting in zip(HOSTS, LASTING, strict=True):

        def target(hierarchies: Hierarchies = hierarchies, lasting: Lasting = lasting) -> None:
            asked = with_flags(parse_document(data, "read resources"), flags)
            requests = possible(deal(meant(asked), REGISTRY), hierarchies)
            updating._plan_update(by_controller(requests), _BASE, lasting, REGISTRY, hierarchies, {})

        survives(target)


def state(data: bytes) -> None:
    survives(lambda: parse_lasting(data, CONTAINER))


def any_json(value: Any) -> None:
    """Where all kinds of documents are read."""
    for target in (config, process, state):
        target(as_json(value))


def oci_line(words: list[str]) -> None:
    """All of it but the verb's own work."""
    call, oci._call = oci._call, lambda *_: 0
    try:
        with bounded(), contextlib.redirect_stderr(Blank()) as err, contextlib.redirect_stdout(Blank()):
            status = oci._main(words)
        assert status in {0, 1, 255}  # the last one is exec's
        assert "internal error" not in err.getvalue(), err.getvalue()
    finally:
        oci._call = call
        os.environ.pop("GOCKER_DEBUG", None)  # of --debug


def run_line(words: list[str]) -> None:
    def target() -> None:
        try:
            options = quick.parse(START_FLAGS, words)
        except quick.Unclear:
            by_click(words)
            return
        for name in ("report", "dry_run", "cidfile"):
            options.pop(name)
        options.setdefault("cidfile", None)
        spec = build_spec(options, lambda _: "/")
        plan(spec, HOSTS[0], "")

    survives(target)


def by_click(words: list[str]) -> None:
    import click

    from gocker.cli.run import command

    with (
        contextlib.suppress(click.ClickException, click.exceptions.Exit),
        contextlib.redirect_stdout(Blank()),
    ):
        command.make_context("run", list(words))


TEXT: st.SearchStrategy[str] = (
    st.sampled_from(
        [
            *(
                "",
                "-",
                "--",
                "---",
                "-x",
                "--no-such",
                "=",
                "--=",
                "a",
                "base",
                "true",
                "/",
                "..",
                "1",
                "-1",
                "0",
                "9" * 25,
            ),
            *(
                "memory=100m",
                "memory.swap=1g",
                "pids=9?",
                "cpuset=0",
                "cpu=1.5",
                "=1",
                "a=b",
                "a=b=c",
                ".=1",
                "x.y.z=1",
            ),
            *(
                "/tmp:/mnt",
                "/tmp:/mnt:ro",
                ":",
                "::",
                "/a:b",
                "type=bind,source=/tmp,target=/mnt",
                "type=tmpfs",
                ",,",
            ),
            *(
                "host",
                "private",
                "none",
                "ns:/proc/self/ns/net",
                "ns:",
                "container:x",
                "0:0",
                "root",
                "1000:1000",
                "x:y:z",
            ),
            *(
                "nofile=1:2",
                "nofile=",
                "core=-1",
                "seccomp=unconfined",
                "no-new-privileges",
                "seccomp=/dev/null",
                "ALL",
            ),
            *(
                "c 1:3 rwm",
                "/dev/null",
                "/dev/null:/dev/x:rwm",
                "a *:* r",
                "8:0 100",
                "/dev/sda:1mb",
                "5s",
                "1h",
                "SIGTERM",
            ),
            *("net.ipv4.ip_forward=1", "kernel.x/y=1", "..=1", "A=B", "é", "\udcff", "a\nb", "x" * 5000, "١"),
        ]
    )
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=10)
    | st.integers().map(str)
)


def lines(flags: Any, first: list[str]) -> st.SearchStrategy[list[str]]:
    """Words of a command line, options of `flags` among them."""
    # Not --log: the file is made.
    known = st.sampled_from(sorted({name for names, _ in flags for name in names} - {"--log"}))
    option = (
        known
        | st.tuples(known, TEXT).map("=".join)
        | st.tuples(known, TEXT).map(list)
        | st.tuples(known, TEXT).map("".join)
    )
    word = option | TEXT
    flat = st.lists(word, max_size=7).map(
        lambda found: [part for one in found for part in (one if isinstance(one, list) else [one])]
    )
    return st.tuples(st.sampled_from([[], first]), flat).map(lambda pair: [*pair[1], *pair[0]])


def oci_lines(name: str) -> st.SearchStrategy[list[str]]:
    """Words for one of the verbs, with options before and behind it."""
    both = st.tuples(lines(GLOBAL, []), lines(VERBS[name].flags, ["c1"]))
    return both.map(lambda found: [*found[0], name, *found[1]])


OCI_LINES = st.one_of([oci_lines(name) for name in VERBS])
UPDATE_FLAGS = st.dictionaries(
    st.sampled_from(
        ["memory", "memory_swap", "cpu_quota", "cpu_share", "cpuset_cpus", "pids_limit", "blkio_weight"]
    ),
    TEXT,
    max_size=3,
)
CUTS = st.lists(
    st.tuples(
        st.integers(0, 1 << 13),
        st.integers(0, 8),
        st.binary(max_size=4)
        | st.sampled_from(
            [b'"', b"\\", b"\\u0000", b"\\ud800", b"{" * 100, b"]", b"\xff", b"[" * 5000, b"1" * 5000]
        ),
    ),
    min_size=1,
    max_size=4,
)


def cut(document: Any, cuts: list[tuple[int, int, bytes]]) -> bytes:
    """Its JSON with some bytes replaced."""
    data = as_json(document)
    for place, length, new in cuts:
        start = place % len(data)
        data = data[:start] + new + data[start + length :]
    return data


_STATE = json.loads(LASTING[0].to_bytes())
TARGETS: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], None]]] = {
    "config.json": (changes(CONFIG), lambda found: config(as_json(changed(CONFIG, found)))),
    "config.json, all fields": (changes(FULL), lambda found: config(as_json(changed(FULL, found)))),
    "config.json, one odd value": (
        changes(CONFIG, ODD).map(lambda found: found[:1]),
        lambda found: config(as_json(changed(CONFIG, found))),
    ),
    "config.json, bytes": (CUTS, lambda cuts: config(cut(CONFIG, cuts))),
    "any JSON": (ANY, any_json),
    "process.json": (changes(PROCESS), lambda found: process(as_json(changed(PROCESS, found)))),
    "exec's options": (changes({"process": PROCESS}), exec_options),
    "resources": (
        st.tuples(changes(RESOURCES), UPDATE_FLAGS),
        lambda pair: update(as_json(changed(RESOURCES, pair[0])), pair[1]),
    ),
    "state.json": (changes(_STATE), lambda found: state(as_json(changed(_STATE, found)))),
    "gocker-oci words": (OCI_LINES, oci_line),
    "gocker run words": (lines(START_FLAGS, ["base", "true"]), run_line),
}
