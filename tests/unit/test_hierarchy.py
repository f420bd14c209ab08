"""Hierarchies: a corpus of hosts (mountinfo/*.txt), the parsers' edges, errors and the one reader."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gocker.errors import HierarchyError
from gocker.hierarchy import (
    Hierarchies,
    MountEntry,
    Place,
    parse_cgroup,
    parse_mountinfo,
    read_host,
    resolve,
)
from gocker.model import Hierarchy

CORPUS = Path(__file__).parent / "mountinfo"
HOSTS = sorted(path.stem for path in CORPUS.glob("*.txt"))


class Host:
    """One file of the corpus: the texts of a host, and what they resolve to."""

    def __init__(self, name: str) -> None:
        sections: dict[str, str] = {}
        title = ""
        for line in (CORPUS / f"{name}.txt").read_text("utf-8").splitlines(keepends=True):
            if line.startswith("### "):
                title = line[4:].strip()
                assert title not in sections, title
                sections[title] = ""
            elif title:
                sections[title] += line
        self.mountinfo = sections.pop("mountinfo")
        self.cgroup = sections.pop("cgroup")
        (expect,) = [title for title in sections if title.startswith("expect ")]
        self.mode = expect.removeprefix("expect ")
        self.places: list[Place] = []
        self.unmounted: list[str] = []
        for row in sections.pop(expect).splitlines():
            controller, *columns = [column.strip(" ") for column in row.split("|")]
            if controller == "unmounted":
                self.unmounted += columns
                continue
            version, access, mountpoint, root, own, comounted = columns
            self.places.append(
                Place(
                    controller=controller,
                    version=Hierarchy(version),
                    mountpoint=mountpoint,
                    root=root,
                    own=own,
                    readonly={"ro": True, "rw": False}[access],
                    comounted=tuple(comounted.split()),
                )
            )
        self.controllers = {title.removeprefix("controllers "): text for title, text in sections.items()}

    def resolve(self) -> Hierarchies:
        return resolve(self.mountinfo, self.cgroup, self.controllers)


@pytest.mark.parametrize("name", HOSTS)
def test_each_host_of_the_corpus_resolves_to_its_table(name: str) -> None:
    host = Host(name)
    found = host.resolve()
    assert list(found.entries) == host.places
    assert list(found.unmounted) == host.unmounted
    assert found.mode == host.mode


@pytest.mark.parametrize("name", HOSTS)
def test_each_line_of_the_corpus_parses(name: str) -> None:
    host = Host(name)
    assert len(parse_mountinfo(host.mountinfo)) == len(host.mountinfo.splitlines())
    assert len(parse_cgroup(host.cgroup)) >= len(host.cgroup.splitlines())


@pytest.mark.parametrize(
    "word",
    (
        "debian-12 ubuntu-18.04 ubuntu-20.04 fedora centos-7 alpine-3.12 alpine-3.20 docker-v1 docker-v2 kubernetes"
        " podman lxc lxd wsl2 microvm cgroup-namespace initramfs removed escapes overmounted twins twice nothing elsewhere"
    ).split(),
)
def test_the_corpus_has(word: str) -> None:
    assert any(word in name for name in HOSTS)


# --- mountinfo


def test_a_line_has_the_fields_of_the_manual() -> None:
    line = "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 propagate_from:7 - ext3 /dev/root rw,errors=continue\n"
    assert parse_mountinfo(line) == (
        MountEntry(
            mount_id=36,
            parent_id=35,
            major_minor="98:0",
            root="/mnt1",
            mountpoint="/mnt2",
            options=("rw", "noatime"),
            fstype="ext3",
            source="/dev/root",
            super_options=("rw", "errors=continue"),
        ),
    )


def test_mount_ids_may_have_all_32_bits() -> None:
    (entry,) = parse_mountinfo("4294967295 4294967294 0:1 / /a rw - tmpfs none rw")
    assert (entry.mount_id, entry.parent_id) == (4294967295, 4294967294)


def test_no_text_is_no_mount() -> None:
    assert parse_mountinfo("") == ()
    assert parse_cgroup("\n") == {}


def test_an_empty_source_is_a_field_too() -> None:
    (entry,) = parse_mountinfo("1 0 0:1 / /a rw - tmpfs  rw")
    assert (entry.fstype, entry.source, entry.super_options) == ("tmpfs", "", ("rw",))


def test_a_source_that_is_a_hyphen_is_no_separator() -> None:
    (entry,) = parse_mountinfo("1 0 0:1 / /a rw shared:2 - tmpfs - rw")
    assert (entry.fstype, entry.source) == ("tmpfs", "-")


def test_unescaped_spaces_in_the_last_field_belong_to_it() -> None:
    (entry,) = parse_mountinfo(r"1 0 0:1 / /a rw - 9p C:\134x rw,path=C:\Program Files - x,trans=fd")
    assert entry.source == r"C:\x"
    assert entry.super_options == ("rw", r"path=C:\Program Files - x", "trans=fd")


def test_only_a_newline_ends_a_line() -> None:
    (entry,) = parse_mountinfo("1 0 0:1 / /a\r\x0b\x0c\x1c\x85\u2028b rw - tmpfs none rw")
    assert entry.mountpoint == "/a\r\x0b\x0c\x1c\x85\u2028b"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"/\040\011\012\134\043", "/ \t\n\\#"),
        (r"/\134040", r"/\040"),
        (r"/\001\177\200", "/\x01\x7f\udc80"),
        (r"/\1340", r"/\0"),
        (r"/a\04", r"/a\04"),
        (r"/a\08z0", r"/a\08z0"),
        (r"/a\400", r"/a\400"),
        (r"/a\000", r"/a\000"),
        ("/a\\", "/a\\"),
        (r"/a\\040", "/a\\ "),
        (r"/a\0１0", r"/a\0１0"),
    ],
)
def test_escapes(written: str, meant: str) -> None:
    (entry,) = parse_mountinfo(f"1 0 0:1 {written} {written} rw - x{written} {written} {written},rw")
    assert (entry.root, entry.mountpoint, entry.source) == (meant, meant, meant)
    assert entry.fstype == f"x{meant}"
    assert entry.super_options == (meant, "rw")


def test_an_escaped_byte_above_ascii_is_that_byte() -> None:
    (entry,) = parse_mountinfo(r"1 0 0:1 / /\303\251\377 rw - tmpfs none rw")
    assert os.fsencode(entry.mountpoint) == b"/\xc3\xa9\xff"


def test_an_escaped_comma_does_not_part_options() -> None:
    (entry,) = parse_mountinfo(r"1 0 0:1 / /a rw - cgroup none rw,release_agent=/x\054cpu,memory")
    assert entry.super_options == ("rw", "release_agent=/x,cpu", "memory")


@pytest.mark.parametrize(
    ("options", "super_options", "readonly"),
    [("rw", "rw", False), ("ro", "rw", True), ("rw", "ro", True), ("rw,noro", "rw,rox", False)],
)
def test_a_mount_is_read_only_by_itself_or_by_its_file_system(
    options: str, super_options: str, readonly: bool
) -> None:
    (entry,) = parse_mountinfo(f"1 0 0:1 / /a {options} - cgroup none {super_options}")
    assert entry.readonly is readonly


GOOD = "27 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nonsense", "too few fields"),
        ("27 1 254:1 / / - ext4 /dev/vda1 rw", "too few fields"),
        ("27 1 254:1 / / rw ext4 /dev/vda1 rw", "too few fields"),
        ("27 1 254:1 / / rw - ext4 /dev/vda1", "too few fields"),
        ("27 1 254:1 / relative rw - ext4 /dev/vda1 rw", "the mount point 'relative' is not absolute"),
        ("x 1 254:1 / / rw - ext4 /dev/vda1 rw", "the mount ids are not numbers"),
        ("27 -1 254:1 / / rw - ext4 /dev/vda1 rw", "the mount ids are not numbers"),
        ("2_7 1 254:1 / / rw - ext4 /dev/vda1 rw", "the mount ids are not numbers"),
        ("２ 1 254:1 / / rw - ext4 /dev/vda1 rw", "the mount ids are not numbers"),
        ("9" * 5000 + " 1 254:1 / / rw - ext4 /dev/vda1 rw", "the mount ids are not numbers"),
    ],
)
def test_a_malformed_mount_is_named(line: str, reason: str) -> None:
    with pytest.raises(HierarchyError) as caught:
        parse_mountinfo(f"{GOOD}\n{line}\n{GOOD}\n")
    assert caught.value.operation == "parse mountinfo"
    assert caught.value.target == f"line 2 {line!r}"
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "line", ["one two", "40 27 0:1 / /cg rw - cgroup none", "x 27 0:1 / /c rw - cgroup n rw"]
)
def test_resolving_names_a_malformed_line_too(line: str) -> None:
    with pytest.raises(HierarchyError, match="line 2 "):
        resolve(f"{GOOD}\n{line}\n", "0::/\n", {})


def test_oddities_of_other_mounts_do_not_matter() -> None:
    assert resolve("x y z / odd rw\n40 27 0:1 / /a rw - cgroup2 none rw\n", "0::/\n", {}).mode == "v2"


# --- /proc/PID/cgroup


def test_a_cgroup_file_is_read_by_controller() -> None:
    text = "12:cpu,cpuacct:/a:b\n3:pids,name=x:/p\n1:name=systemd:/user.slice\n0::/c d\n"
    assert parse_cgroup(text) == {
        "cpu": "/a:b",
        "cpuacct": "/a:b",
        "pids": "/p",
        "name=x": "/p",
        "name=systemd": "/user.slice",
        "": "/c d",
    }


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("memory", "not ID:CONTROLLERS:PATH"),
        ("1:memory", "not ID:CONTROLLERS:PATH"),
        ("1:memory:relative", "the path 'relative' is not absolute"),
        ("1:memory:", "the path '' is not absolute"),
    ],
)
def test_a_malformed_cgroup_line_is_named(line: str, reason: str) -> None:
    for parse in (parse_cgroup, lambda text: resolve(GOOD, text, {})):
        with pytest.raises(HierarchyError) as caught:
            parse(f"0::/\n{line}\n")
        assert caught.value.operation == "parse cgroup"
        assert caught.value.target == f"line 2 {line!r}"
        assert caught.value.reason == reason


# --- properties


def escape(text: str) -> str:
    """As the kernel writes it: seq_path(9) and mangle() in fs/proc_namespace.c."""
    return "".join(f"\\{ord(char):03o}" if char in " \t\n\\#," else char for char in text)


# Any byte but NUL, as surrogateescape text.
NAMES = st.binary(max_size=40).map(lambda data: data.replace(b"\0", b"x").decode("utf-8", "surrogateescape"))


@given(
    root=NAMES,
    point=NAMES,
    source=NAMES,
    options=st.lists(NAMES, min_size=1, max_size=4),
    optional=st.booleans(),
)
def test_whatever_the_kernel_escapes_comes_back(
    root: str, point: str, source: str, options: list[str], optional: bool
) -> None:
    tag = " shared:1 master:2" if optional else ""
    text = (
        f"7 6 0:5 /{escape(root)} /{escape(point)} rw{tag} - fuse {escape(source)} "
        f"{','.join(escape(option) for option in options)}\n"
    )
    (entry,) = parse_mountinfo(text)
    assert entry.root == f"/{root}"
    assert entry.mountpoint == f"/{point}"
    assert entry.source == source
    assert entry.super_options == tuple(options)


@given(point=NAMES, own=NAMES)
def test_a_hierarchy_is_found_behind_any_name(point: str, own: str) -> None:
    own = own.replace("\n", "")
    found = resolve(
        f"{GOOD}\n40 27 0:1 / /x{escape(point)} rw - cgroup2 none rw\n",
        f"0::/{own}\n",
        {f"/x{point}": "memory\n"},
    )
    place = found.require("memory")
    assert (place.mountpoint, place.own) == (f"/x{point}", f"/{own}")


WHOLE_LINES = (
    "1 2 0:1 / /a rw - cgroup none rw,memory",
    "2 1 0:1 / /a/b rw - cgroup2 none rw",
    "1:memory:/",
    "0::/",
)
PIECES = st.sampled_from(
    [
        *(f"{line}\n" for line in WHOLE_LINES),
        *"1 2 3 0:1 / /a /a/b /.. rw ro - : , \\040 \\ cgroup cgroup2 rw,memory memory name=x none".split(),
        *(" ", "  ", " - ", "\n", "\0", "é", "\udcff", "\ud800"),
    ]
)
GARBAGE = st.one_of(st.text(), st.lists(PIECES, max_size=40).map("".join))


@given(GARBAGE, GARBAGE, st.dictionaries(st.sampled_from(["/a", "/a/b"]), GARBAGE))
def test_garbage_is_refused_with_our_own_error_or_understood(
    mountinfo: str, cgroup: str, controllers: dict[str, str]
) -> None:
    for attempt in (
        lambda: parse_mountinfo(mountinfo),
        lambda: parse_cgroup(cgroup),
        lambda: resolve(mountinfo, cgroup, controllers),
    ):
        message = ""
        try:
            attempt()
        except HierarchyError as error:
            message = str(error)
        assert not message or "line " in message
        assert "\n" not in message


@st.composite
def mount_trees(draw: st.DrawFn) -> list[tuple[int, int, str]]:
    """Mounts as a kernel makes them: each on a directory, below the mount that a lookup of it ends in."""
    mounts = [(1, 0, "/")]
    points = st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
    for point in draw(st.lists(points, max_size=12)):
        mounts.append((len(mounts) + 1, look_up(mounts, point), point))
    return mounts


def look_up(mounts: list[tuple[int, int, str]], path: str) -> int:
    """The mount that a path walk ends in: part by part, over whatever is mounted there."""
    here, at = 1, ""
    for part in path.strip("/").split("/"):
        at = f"{at}/{part}"
        while True:
            above = [number for number, parent, point in mounts if (parent, point) == (here, at)]
            if not above:
                break
            here = above[-1]
    return here


@given(mount_trees())
def test_exactly_the_mounts_that_a_path_walk_reaches_are_found(mounts: list[tuple[int, int, str]]) -> None:
    lines = [
        f"{number} {parent} 0:{number} / {point} rw - cgroup none rw,c{number}"
        for number, parent, point in mounts
    ]
    groups = [f"{number}:c{number}:/" for number, _, _ in mounts]
    found = resolve("\n".join(lines), "\n".join(groups), {})
    reached = [f"c{number}" for number, _, point in mounts if number == 1 or look_up(mounts, point) == number]
    assert [place.controller for place in found.entries] == reached


def test_parents_in_a_circle_do_not_hang() -> None:
    text = "1 2 0:1 / /a rw - cgroup none rw,memory\n2 1 0:2 / /b rw - tmpfs none rw\n"
    assert resolve(text, "1:memory:/\n", {}).require("memory").mountpoint == "/a"


def test_a_thousand_mounts_deep_is_no_problem() -> None:
    lines = [f"{n} {n - 1} 0:{n} / /{'/'.join('x' * n)} rw - tmpfs none rw" for n in range(1, 1500)]
    lines.append(f"1500 1499 0:9 / /{'/'.join('x' * 1500)} rw - cgroup none rw,memory")
    assert resolve("\n".join(lines), "1:memory:/\n", {}).find("memory")


# --- places


def place(**changes: object) -> Place:
    base = Place(
        controller="memory",
        version=Hierarchy.V1,
        mountpoint="/sys/fs/cgroup/memory",
        root="/",
        own="/",
        readonly=False,
        comounted=(),
    )
    return base.replace(**changes)


@pytest.mark.parametrize(
    ("path", "directory"),
    [
        ("/gocker/ID", "/sys/fs/cgroup/memory/gocker/ID"),
        ("gocker/ID", "/sys/fs/cgroup/memory/gocker/ID"),
        ("//gocker/./ID/", "/sys/fs/cgroup/memory/gocker/ID"),
        ("/", "/sys/fs/cgroup/memory"),
        ("", "/sys/fs/cgroup/memory"),
        ("/..a/b..", "/sys/fs/cgroup/memory/..a/b.."),
    ],
)
def test_a_cgroup_path_becomes_a_directory_below_the_mount(path: str, directory: str) -> None:
    assert place().directory(path) == directory


def test_a_mount_on_the_root_directory_works_too() -> None:
    assert place(mountpoint="/").directory("/a") == "/a"
    assert place(mountpoint="/").directory("/") == "/"


@pytest.mark.parametrize("path", ["..", "/..", "/a/../b", "/a/..", "../x", "/a\0b"])
def test_a_cgroup_path_that_leads_out_is_refused(path: str) -> None:
    with pytest.raises(HierarchyError, match="could lead out of /sys/fs/cgroup/memory") as caught:
        place().directory(path)
    assert repr(path) in str(caught.value)


@given(st.text(alphabet="./a\0é", max_size=12))
def test_no_cgroup_path_ever_leaves_the_mount(path: str) -> None:
    try:
        directory = place().directory(path)
    except HierarchyError:
        assert ".." in path.split("/") or "\0" in path
    else:
        assert os.path.normpath(directory) == directory
        assert f"{directory}/".startswith("/sys/fs/cgroup/memory/")


@pytest.mark.parametrize(
    ("root", "own", "position"),
    [
        ("/", "/", "/"),
        ("/", "/user.slice/s", "/user.slice/s"),
        ("/docker/abc", "/docker/abc", "/"),
        ("/docker/abc", "/docker/abc/x/y", "/x/y"),
        ("/docker/abc", "/docker/abcd", None),
        ("/docker/abc", "/", None),
        ("/docker/abc", "/docker", None),
        ("/../..", "/", None),
        ("/..", "/../sibling", "/sibling"),
        ("/..", "/../../aunt", None),
        ("/", "/../sibling", None),
    ],
)
def test_the_own_cgroup_is_located_where_the_mount_shows_it(
    root: str, own: str, position: str | None
) -> None:
    assert place(root=root, own=own).position == position


# --- require


def test_find_and_require_give_the_place() -> None:
    hierarchies = Host("ubuntu-18.04-hybrid").resolve()
    assert hierarchies.find("nosuch") is None
    assert hierarchies.require("cpuacct") is hierarchies.find("cpuacct")
    assert hierarchies.require("cpuacct").directory("/gocker/x") == "/sys/fs/cgroup/cpu,cpuacct/gocker/x"
    assert hierarchies.require("cgroup") is hierarchies.v2


@pytest.mark.parametrize(
    ("host", "names", "controller"),
    [
        ("ubuntu-18.04-hybrid", {Hierarchy.V1: "blkio", Hierarchy.V2: "io"}, "blkio"),
        ("debian-12-systemd", {Hierarchy.V1: "blkio", Hierarchy.V2: "io"}, "io"),
        ("microvm-hybrid-hugetlb-on-v2", {Hierarchy.V1: "hugetlb", Hierarchy.V2: "hugetlb"}, "hugetlb"),
        ("microvm-hybrid-hugetlb-on-v2", {Hierarchy.V1: "cpuacct", Hierarchy.V2: "cgroup"}, "cpuacct"),
        ("debian-12-systemd", {Hierarchy.V1: "cpuacct", Hierarchy.V2: "cgroup"}, "cgroup"),
        ("ubuntu-18.04-hybrid", {Hierarchy.V2: "memory"}, None),
        ("debian-12-systemd", {Hierarchy.V1: "memory"}, None),
        ("debian-12-systemd", {}, None),
    ],
)
def test_a_controller_is_found_by_its_name_on_the_version_that_carries_it(
    host: str, names: dict[Hierarchy, str], controller: str | None
) -> None:
    hierarchies = Host(host).resolve()
    expected = hierarchies.find(controller) if controller else None
    assert hierarchies.place_of(names) == expected
    assert (expected is None) == (controller is None)


def refusal(host: str, controller: str) -> HierarchyError:
    with pytest.raises(HierarchyError) as caught:
        Host(host).resolve().require(controller)
    assert controller in str(caught.value)
    assert caught.value.remedy
    return caught.value


def test_what_v2_did_not_hand_down_is_said_with_its_file_and_how_to_delegate() -> None:
    error = refusal("podman-rootless-v2", "cpuset")
    assert error.reason == "not in /sys/fs/cgroup/cgroup.controllers"
    assert "echo +cpuset into cgroup.subtree_control" in error.remedy
    assert "Delegate=yes" in error.remedy
    assert "cgroup_enable=cpuset" in error.remedy


def test_what_v1_lacks_is_said_with_the_kernel_command_line() -> None:
    error = refusal("centos-7-v1", "hugetlb")
    assert error.reason == "no v1 hierarchy carries it"
    assert "/proc/cgroups" in error.remedy
    assert "cgroup_enable=hugetlb" in error.remedy
    assert "mount -t cgroup -o hugetlb cgroup /sys/fs/cgroup/hugetlb" in error.remedy


@pytest.mark.parametrize("controller", ["net_cls", "net_prio"])
def test_of_what_v1_alone_has_a_v2_host_is_not_told_to_hand_it_down(controller: str) -> None:
    error = refusal("debian-12-systemd", controller)
    assert error.reason == "cgroup v2 has no such controller"
    assert error.remedy.startswith("leave it out")


def test_what_a_hybrid_host_lacks_is_said_of_both_versions() -> None:
    error = refusal("microvm-hybrid-hugetlb-on-v2", "rdma")
    assert error.reason == "not in /sys/fs/cgroup/unified/cgroup.controllers and no v1 hierarchy carries it"
    assert "/proc/cgroups" in error.remedy


@pytest.mark.parametrize("controller", ["memory", "cpuset"])
@pytest.mark.parametrize("host", ["nothing-mounted", "overmounted-sys"])
def test_where_nothing_is_mounted_a_mount_is_the_remedy(host: str, controller: str) -> None:
    error = refusal(host, controller)
    assert error.reason == "no cgroup file system is mounted where gocker can reach it"
    assert "mount -t cgroup2 none /sys/fs/cgroup" in error.remedy


@pytest.mark.parametrize("host", ["nothing-mounted", "centos-7-v1"])
def test_a_missing_cgroup2_mount_is_said(host: str) -> None:
    assert refusal(host, "cgroup").reason == "no cgroup2 file system is mounted where gocker can reach it"


@pytest.mark.parametrize(
    ("controller", "remedy"),
    [
        (
            "memory",
            "mkdir -p /sys/fs/cgroup/memory && mount -t cgroup -o memory cgroup /sys/fs/cgroup/memory",
        ),
        (
            "cpuacct",
            "mkdir -p /sys/fs/cgroup/cpu,cpuacct && mount -t cgroup -o cpu,cpuacct cgroup /sys/fs/cgroup/cpu,cpuacct",
        ),
        (
            "pids",
            "mkdir -p {0} && mount -t cgroup -o pids,name=grader cgroup {0}".format(
                "/sys/fs/cgroup/pids,grader"
            ),
        ),
        (
            "name=systemd",
            "mkdir -p /sys/fs/cgroup/systemd && mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd",
        ),
    ],
)
def test_a_v1_hierarchy_out_of_reach_is_mounted_with_all_its_controllers(
    controller: str, remedy: str
) -> None:
    error = refusal("v1-mounted-elsewhere", controller)
    assert error.reason == "its v1 hierarchy is not mounted where gocker can reach it"
    assert error.remedy == remedy


@pytest.mark.parametrize("host", ["docker-v1-readonly", "docker-v2-cgroupns"])
def test_a_read_only_mount_is_said(host: str) -> None:
    error = refusal(host, "memory")
    assert error.reason.endswith("is mounted read-only")
    assert "mount -o remount,rw /sys/fs/cgroup" in error.remedy


# --- read_host


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc directory of a v2 process; its cgroup2 mount is a directory with a space in its name."""
    mount = tmp_path / "my cgroup"
    mount.mkdir()
    (mount / "cgroup.controllers").write_text("cpu memory\n")
    directory = tmp_path / "proc"
    directory.mkdir()
    (directory / "mountinfo").write_text(f"{GOOD}\n40 27 0:1 / {escape(str(mount))} rw - cgroup2 none rw\n")
    (directory / "cgroup").write_text("0::/here\n")
    return directory


def test_reading_a_host_reads_its_three_files(proc: Path) -> None:
    found = read_host(str(proc))
    assert [place.controller for place in found.entries] == ["cgroup", "cpu", "memory"]
    assert found.require("memory").own == "/here"
    assert found.mode == "v2"


def test_a_file_larger_than_one_read_is_read_whole(proc: Path) -> None:
    mountinfo = proc / "mountinfo"
    filler = "".join(f"{n} 27 0:{n} / /mnt/{n} rw - tmpfs none rw\n" for n in range(100, 1000))
    mountinfo.write_text(filler + mountinfo.read_text())
    assert read_host(str(proc)).mode == "v2"


def test_bytes_that_are_not_utf8_come_through(proc: Path) -> None:
    (proc / "cgroup").write_bytes(b"0::/\xff\n")
    assert os.fsencode(read_host(str(proc)).require("cpu").own) == b"/\xff"


def test_a_v1_host_has_no_third_file(proc: Path) -> None:
    (proc / "mountinfo").write_text("40 27 0:1 / /nowhere rw - cgroup none rw,memory\n")
    (proc / "cgroup").write_text("1:memory:/\n")
    assert read_host(str(proc)).mode == "v1"


@pytest.mark.parametrize("name", ["proc/mountinfo", "proc/cgroup", "my cgroup/cgroup.controllers"])
def test_a_file_that_cannot_be_read_is_named(proc: Path, name: str) -> None:
    path = proc.parent / name
    path.unlink()
    with pytest.raises(HierarchyError, match="ENOENT") as caught:
        read_host(str(proc))
    assert caught.value.target == str(path)
    assert caught.value.remedy


def open_fds() -> Iterator[str]:
    yield from os.listdir("/proc/self/fd")


def test_reading_leaves_no_file_open_even_when_it_fails(proc: Path) -> None:
    before = list(open_fds())
    read_host(str(proc))
    (proc / "cgroup").unlink()
    (proc / "cgroup").mkdir()
    with pytest.raises(HierarchyError, match="EISDIR"):
        read_host(str(proc))
    assert list(open_fds()) == before


def test_this_very_host_resolves_to_directories() -> None:
    found = read_host()
    assert found.mode in {"v1", "v2", "hybrid", "none"}
    for entry in found.entries:
        assert os.path.exists(f"{entry.mountpoint}/cgroup.procs"), entry


def test_a_host_that_is_as_it_was_is_not_resolved_again(proc: Path) -> None:
    assert read_host(str(proc)) is read_host(str(proc))


@pytest.mark.parametrize("name", ["proc/mountinfo", "proc/cgroup", "my cgroup/cgroup.controllers"])
def test_what_has_changed_since_the_last_time_is_seen(proc: Path, name: str) -> None:
    before = read_host(str(proc))
    path = proc.parent / name
    old, new = {"mountinfo": (" rw ", " ro "), "cgroup": ("/here", "/there")}.get(path.name, ("cpu", "pids"))
    path.write_text(path.read_text().replace(old, new))
    after = read_host(str(proc))
    assert after != before
    assert read_host(str(proc)) is after
