"""Block I/O: a container's weight against others, how fast it may read and write each device, counters."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

from gocker.api import Cgroup, CgroupController, CgroupReader, LimitHelp, Resources, Scalar, oci_text
from gocker.errors import LimitError, errno_name
from gocker.limits import parse_count, parse_size
from gocker.model import Hierarchy

_V1_FILE = "blkio.throttle.io_service_bytes_recursive"
_WEIGHTS = (10, 1000)  # OCI's and docker's, those of the CFQ scheduler
_MOST_IOPS = (1 << 32) - 1  # tg_conf_updated of block/blk-throttle.c
_DISK_REMEDY = "name a whole disk, not a partition; lsblk shows them"
_WEIGHT_REMEDY = "weights need the BFQ scheduler, modprobe bfq, or on v2 CONFIG_BLK_CGROUP_IOCOST"
_LEAF_REMEDY = "leaf weights went with the CFQ scheduler in Linux 5.0: leave it out"
_RATES = {  # key: (OCI path, v1 file, word of io.max)
    "read_bps": ("blockIO.throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
    "write_bps": ("blockIO.throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
    "read_iops": ("blockIO.throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
    "write_iops": ("blockIO.throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
}


def _rate_help(key: str, text: str) -> LimitHelp:
    path, file, _ = _RATES[key]
    example = "1m" if key.endswith("bps") else "100"
    return LimitHelp(
        key=f"blkio.{key}",
        example=f"blkio.{key}=/dev/vda:{example}",
        text=f"DEVICE:RATE for each, by path or 254:0: the most {text} a second; 0 is no limit.",
        oci=path,
        files={Hierarchy.V1: file, Hierarchy.V2: "io.max"},
    )


class Blkio(CgroupController):
    """Source: kernel Documentation/admin-guide/cgroup-v1/blkio-controller.rst and cgroup-v2.rst, IO.

    A weight is OCI's, 10 to 1000, on both versions. Of devices that are named by path the numbers
    are looked up while the start is planned.
    """

    api_version = (1, 1)
    name = "blkio"
    kernel_names = {Hierarchy.V1: "blkio", Hierarchy.V2: "io"}  # noqa: RUF012 - declared ClassVar
    always = True
    limits = (
        LimitHelp(
            key="blkio.weight",
            example="blkio.weight=200",
            text="Its weight against the others at the disks, 10 to 1000.",
            oci="blockIO.weight",
            files={Hierarchy.V1: "blkio.bfq.weight", Hierarchy.V2: "io.weight"},
        ),
        LimitHelp(
            key="blkio.weight_device",
            example="blkio.weight_device=/dev/vda:200",
            text="DEVICE:WEIGHT for each, by path or 254:0: its weight at that disk.",
            oci="blockIO.weightDevice",
            files={Hierarchy.V1: "blkio.bfq.weight_device", Hierarchy.V2: "io.weight"},
        ),
        _rate_help("read_bps", "bytes read"),
        _rate_help("write_bps", "bytes written"),
        _rate_help("read_iops", "reads"),
        _rate_help("write_iops", "writes"),
        LimitHelp(
            key="blkio.leaf_weight",
            example="blkio.leaf_weight=200",
            text="Its weight against cgroups below it, 10 to 1000; v1 before Linux 5.0 alone.",
            oci="blockIO.leafWeight",
            files={Hierarchy.V1: "blkio.leaf_weight"},
        ),
        LimitHelp(
            key="blkio.leaf_weight_device",
            example="blkio.leaf_weight_device=/dev/vda:200",
            text="The same at one disk, DEVICE:WEIGHT for each.",
            oci="x.blkio.leaf_weight_device",
            files={Hierarchy.V1: "blkio.leaf_weight_device"},
        ),
    )
    oci_paths = tuple(row.oci for row in limits if not row.oci.startswith("x."))

    def parse(self, fields: Mapping[str, str]) -> Resources:
        """Tables as `/dev/vda:1048576,254:0:200`, in bytes or in times a second."""
        resources: dict[str, Scalar] = {}
        for key, path in (("weight", "blockIO.weight"), ("leaf_weight", "blockIO.leafWeight")):
            if key in fields:
                resources[path] = _weight(f"blkio.{key}", fields[key])
        for key, path in _TABLES.items():
            if key in fields:
                resources[path] = ",".join(
                    f"{device}:{number}" for device, number in _pairs(key, fields[key])
                )
        return resources

    def from_oci(self, part: Mapping[str, object]) -> Mapping[str, str]:
        """[{"major": 8, "minor": 0, "rate": 600}] as `8:0:600`. A weight of zero is not set, as runc has it."""
        words: dict[str, list[str]] = {}
        for key, path in (("weight", "blockIO.weight"), ("leaf_weight", "blockIO.leafWeight")):
            if path in part and (text := oci_text(path, part[path])) != "0":
                words[key] = [text]
        for key, path in (
            *((key, path) for key, (path, _, _) in _RATES.items()),
            ("", "blockIO.weightDevice"),
        ):
            rows = part.get(path, [])
            for row in rows if isinstance(rows, list) else [rows]:
                for device, name, number in _numbers(
                    path, row, ("rate",) if key else ("weight", "leafWeight")
                ):
                    table = key or {"weight": "weight_device", "leafWeight": "leaf_weight_device"}[name]
                    if key or number:
                        words.setdefault(table, []).append(f"{device}:{number}")
        return {key: ",".join(texts) for key, texts in words.items()}

    def set(self, group: Cgroup, resources: Resources) -> None:
        """Weights, then rates, device by device: the files are tables, and a line that is not named stays."""
        if "blockIO.weight" in resources:
            _write_weight(group, "blkio.weight", "default", int(resources["blockIO.weight"]))
        if "blockIO.leafWeight" in resources:
            _write_leaf(group, "leaf_weight", str(resources["blockIO.leafWeight"]))
        for key, path in _TABLES.items():
            for device, number in _pairs(key, str(resources.get(path, ""))):
                numbers = _device(key, device)
                if key == "weight_device":
                    _write_weight(group, "blkio.weight_device", numbers, number)
                elif key == "leaf_weight_device":
                    _write_leaf(group, key, f"{numbers} {number}")
                else:
                    _, file, word = _RATES[key]
                    v1 = group.hierarchy is Hierarchy.V1
                    row = f"{numbers} {number}" if v1 else f"{numbers} {word}={number or 'max'}"
                    group.write(
                        file if v1 else "io.max", row, limit=f"blkio.{key}", row=True, remedy=_DISK_REMEDY
                    )

    def stats(self, group: CgroupReader) -> Mapping[str, int]:
        """Bytes read from and written to block devices, all of them together; the page cache is none.

        v1 since Linux 6.10 (commit a3166c51702b) counts only for devices where some cgroup has a throttle:
        a file without devices says nothing.
        """
        if group.hierarchy is Hierarchy.V1:
            pairs = _v1_pairs(group.read(_V1_FILE))
            names = {"Read": "io_read_bytes", "Write": "io_write_bytes"}
        else:
            pairs = _v2_pairs(group.read("io.stat"))
            names = {"rbytes": "io_read_bytes", "wbytes": "io_write_bytes"}
        if pairs is None:
            return {}
        totals = dict.fromkeys(names.values(), 0)
        for name, value in pairs:
            if name in names and value.isdecimal():
                totals[names[name]] += int(value)
        return totals


_TABLES = {
    "weight_device": "blockIO.weightDevice",
    "leaf_weight_device": "x.blkio.leaf_weight_device",
    **{key: path for key, (path, _, _) in _RATES.items()},
}


def io_weight(weight: int) -> int:
    """The weight in io.weight, 1 to 10000, of an OCI weight, 10 to 1000: a straight line from end to end.

    It is the formula of runc (github.com/opencontainers/cgroups, utils.go, ConvertBlkIOToIOWeightValue)
    and of crun (crun.1.md, "IO controller"). The weight in io.bfq.weight is OCI's own.
    """
    return 1 + (weight - 10) * 9999 // 990


def _refused(label: str, text: str, reason: str, remedy: str = "") -> LimitError:
    return LimitError("set limit", f"{label}={text}", reason, remedy=remedy)


def _weight(label: str, text: str) -> int:
    return parse_count(text, label, minimum=_WEIGHTS[0], maximum=_WEIGHTS[1])


def _pairs(key: str, text: str) -> list[tuple[str, int]]:
    """(path or numbers, number) of `/dev/vda:1m,254:16:2m`; raise LimitError."""
    label = f"blkio.{key}"
    pairs: dict[str, int] = {}
    for word in text.split(",") if text else ():
        device, _, number = word.rpartition(":")
        if not _is_path(device) and not _is_numbers(device):
            raise _refused(label, text, f"{word!r} is not DEVICE:NUMBER", f"as {label}=/dev/vda:100")
        if key.endswith("bps"):
            value = parse_size(number, label)
        elif key.endswith("iops"):
            value = parse_count(number, label, minimum=0, maximum=_MOST_IOPS)
        else:
            value = _weight(label, number)
        if pairs.setdefault(device, value) != value:
            raise _refused(label, text, f"{device} is there twice")
    if not pairs and text != "":
        raise _refused(label, text, "names no device")
    return list(pairs.items())


def _is_path(text: str) -> bool:
    return text.startswith("/") and "\0" not in text


def _is_numbers(text: str) -> bool:
    major, _, minor = text.partition(":")
    return all(part.isascii() and part.isdigit() and len(part) <= 10 for part in (major, minor))


def _device(key: str, text: str) -> str:
    """`254:0` of a block device's path; numbers as they are."""
    if not _is_path(text):
        return text
    try:
        status = os.stat(text)
    except OSError as error:
        raise _refused(f"blkio.{key}", text, errno_name(error.errno or 0), "lsblk shows the disks") from error
    if not stat.S_ISBLK(status.st_mode):
        raise _refused(f"blkio.{key}", text, "not a block device", "lsblk shows the disks")
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def _numbers(path: str, row: object, names: tuple[str, ...]) -> list[tuple[str, str, int]]:
    """(`8:0`, name, number) of one object of an OCI list; raise LimitError where it has anything else."""
    known = {"major", "minor", *names}
    sound = isinstance(row, dict) and row.keys() <= known and {"major", "minor"} <= row.keys()
    if not isinstance(row, dict) or not sound or not all(type(value) is int for value in row.values()):
        shape = f"an object of major, minor and {' or '.join(names)}"
        raise LimitError("read linux.resources", path, f"{row!r} is not {shape}")
    device = f"{row['major']}:{row['minor']}"
    found = [(device, name, row[name]) for name in names if name in row]
    if not found or any(value < 0 for value in row.values()):
        raise LimitError("read linux.resources", path, f"{row!r} has no {' or '.join(names)}, or one below 0")
    return found


def _write_weight(group: Cgroup, label: str, device: str, weight: int) -> None:
    """`device` is `default` for all; which file there is, is for the kernel's scheduler to say."""
    if group.hierarchy is Hierarchy.V2:
        group.write(
            "io.weight",
            f"{device} {io_weight(weight)}",
            limit=label,
            accept=(str(weight),),  # io.bfq.weight showed nothing but the number before Linux 5.4
            row=True,
            fallback=(("io.bfq.weight", f"{device} {weight}"),),
            remedy=_WEIGHT_REMEDY,
        )
    elif device == "default":
        group.write(
            "blkio.bfq.weight",
            str(weight),
            limit=label,
            fallback=(("blkio.weight", str(weight)),),
            remedy=_WEIGHT_REMEDY,
        )
    else:
        row = f"{device} {weight}"
        group.write(
            "blkio.bfq.weight_device",
            row,
            limit=label,
            row=True,
            fallback=(("blkio.weight_device", row),),
            remedy=_WEIGHT_REMEDY,
        )


def _write_leaf(group: Cgroup, key: str, text: str) -> None:
    label = f"blkio.{key}"
    if group.hierarchy is Hierarchy.V2:
        raise _refused(label, text, "cgroup v2 has no leaf weights", f"leave {label} out")
    group.write(label, text, limit=label, row=" " in text, remedy=_LEAF_REMEDY)


def _v1_pairs(text: str | None) -> list[tuple[str, str]] | None:
    """`8:0 Read 4096` a line, and `Total 4096` last."""
    fields = [line.split() for line in (text or "").splitlines()]
    return [(words[1], words[2]) for words in fields if len(words) == 3] or None


def _v2_pairs(text: str | None) -> list[tuple[str, str]] | None:
    """`8:0 rbytes=4096 wbytes=0 rios=1 ...` a line; no line before the first I/O."""
    if text is None:
        return None
    words = [word.partition("=") for line in text.splitlines() for word in line.split()[1:]]
    return [(name, value) for name, _, value in words]
