"""What a container uses, from its cgroups' files, in the shape in which `events` prints it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from gocker.api import CgroupReader, counter
from gocker.model import Hierarchy

_NO_LIMIT = (1 << 64) - 1
_MICRO = 1000  # nanoseconds
_TABLES = {  # name: the v1 file
    "ioServiceBytesRecursive": "blkio.bfq.io_service_bytes_recursive",
    "ioServicedRecursive": "blkio.bfq.io_serviced_recursive",
    "ioQueueRecursive": "blkio.bfq.io_queued_recursive",
    "ioServiceTimeRecursive": "blkio.bfq.io_service_time_recursive",
    "ioWaitTimeRecursive": "blkio.bfq.io_wait_time_recursive",
    "ioMergedRecursive": "blkio.bfq.io_merged_recursive",
    "ioTimeRecursive": "blkio.bfq.time_recursive",
    "sectorsRecursive": "blkio.bfq.sectors_recursive",
}
_THROTTLED = {  # where no BFQ scheduler counts
    "ioServiceBytesRecursive": "blkio.throttle.io_service_bytes_recursive",
    "ioServicedRecursive": "blkio.throttle.io_serviced_recursive",
}
_WORDS = {  # of io.stat: the table, the operation
    "rbytes": ("ioServiceBytesRecursive", "Read"),
    "wbytes": ("ioServiceBytesRecursive", "Write"),
    "dbytes": ("ioServiceBytesRecursive", "Discard"),
    "rios": ("ioServicedRecursive", "Read"),
    "wios": ("ioServicedRecursive", "Write"),
    "dios": ("ioServicedRecursive", "Discard"),
}


def stats(readers: Mapping[str, CgroupReader], sizes: Iterable[str], network: str) -> dict[str, Any]:
    """The data of a `stats` event, as JSON types.

    `readers` are by the controllers' names, `cgroup` for cgroup v2, any of which may be missing; `sizes` are the huge
    page sizes as their files have them ("2MB"); `network` is the text of the first process's /proc/PID/net/dev, "" for
    none. Source of the shape: runc-events(8); of the figures: kernel Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
    """
    return {
        "cpu": {"usage": _cpu_usage(readers), "throttling": _throttling(readers)},
        "cpuset": _cpuset(_reader(readers, "cpuset")),
        "memory": _memory(_reader(readers, "memory")),
        "pids": _pids(_reader(readers, "pids")),
        "blkio": _blkio(_reader(readers, "blkio")),
        "hugetlb": _hugetlb(_reader(readers, "hugetlb"), sizes),
        "intel_rdt": {},
        "network_interfaces": interfaces(network),
    }


class _Nothing:
    """The reader of a controller that the container is not in."""

    hierarchy = Hierarchy.V1

    def read(self, file: str) -> str | None:
        """No file."""
        return None


def _reader(readers: Mapping[str, CgroupReader], name: str) -> CgroupReader:
    return readers.get(name) or readers.get("cgroup") or _Nothing()


def _is_v2(reader: CgroupReader) -> bool:
    return reader.hierarchy is Hierarchy.V2


def flat(text: str | None) -> dict[str, int]:
    """The numbers of a flat keyed file, `anon 4096`."""
    pairs = (line.split() for line in (text or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _limit(text: str | None) -> int:
    return _NO_LIMIT if text in {None, "max"} else counter(text) or 0


def _cpu_usage(readers: Mapping[str, CgroupReader]) -> dict[str, Any]:
    """In nanoseconds. v2 counts the CPUs together."""
    reader = _reader(readers, "cpuacct")
    if _is_v2(reader):
        found = flat(reader.read("cpu.stat"))
        names = {"total": "usage_usec", "kernel": "system_usec", "user": "user_usec"}
        return {name: found.get(key, 0) * _MICRO for name, key in names.items()}
    usage: dict[str, Any] = {
        name: counter(reader.read(file)) or 0
        for name, file in (
            ("total", "cpuacct.usage"),
            ("kernel", "cpuacct.usage_sys"),
            ("user", "cpuacct.usage_user"),
        )
    }
    usage["percpu"] = [int(word) for word in (reader.read("cpuacct.usage_percpu") or "").split()]
    rows = [line.split() for line in (reader.read("cpuacct.usage_all") or "").splitlines()[1:]]
    usage["percpu_user"] = [int(row[1]) for row in rows]
    usage["percpu_kernel"] = [int(row[2]) for row in rows]
    return usage


def _throttling(readers: Mapping[str, CgroupReader]) -> dict[str, int]:
    """The time in nanoseconds."""
    reader = readers.get("cpu") or _reader(readers, "cpushare")
    found = flat(reader.read("cpu.stat"))
    throttled = found.get("throttled_usec", 0) * _MICRO if _is_v2(reader) else found.get("throttled_time", 0)
    return {
        "periods": found.get("nr_periods", 0),
        "throttledPeriods": found.get("nr_throttled", 0),
        "throttledTime": throttled,
    }


def numbers(text: str | None) -> list[int]:
    """`0-2,5` as [0, 1, 2, 5]; of no text none."""
    found: list[int] = []
    for part in (text or "").split(","):
        low, _, high = part.partition("-")
        if low.isdigit():
            found += range(int(low), int(high or low) + 1)
    return found


def _cpuset(reader: CgroupReader) -> dict[str, Any]:
    def switch(file: str) -> int:
        return counter(reader.read(file)) or 0

    end = ".effective" if _is_v2(reader) else ""
    return {
        "cpus": numbers(reader.read(f"cpuset.cpus{end}")),
        "cpu_exclusive": switch("cpuset.cpu_exclusive"),
        "mems": numbers(reader.read(f"cpuset.mems{end}")),
        "mem_hardwall": switch("cpuset.mem_hardwall"),
        "mem_exclusive": switch("cpuset.mem_exclusive"),
        "memory_migrate": switch("cpuset.memory_migrate"),
        "memory_spread_page": switch("cpuset.memory_spread_page"),
        "memory_spread_slab": switch("cpuset.memory_spread_slab"),
        "memory_pressure": switch("cpuset.memory_pressure"),
        "sched_load_balance": switch("cpuset.sched_load_balance"),
        "sched_relax_domain_level": int(reader.read("cpuset.sched_relax_domain_level") or 0),
    }


def _memory(reader: CgroupReader) -> dict[str, Any]:
    raw = flat(reader.read("memory.stat"))
    if _is_v2(reader):
        usage = _entry_v2(reader, "memory")
        usage["failcnt"] = counter(reader.read("memory.events"), "max") or 0
        swap = _entry_v2(reader, "memory.swap")
        swap["usage"] += usage["usage"]  # v1's: both together
        if _NO_LIMIT not in {swap["limit"], usage["limit"]}:
            swap["limit"] += usage["limit"]
        return {"cache": raw.get("file", 0), "usage": usage, "swap": swap, "kernel": _kernel(raw), "raw": raw}
    entries = {
        name: _entry_v1(reader, file)
        for name, file in (
            ("usage", "memory"),
            ("swap", "memory.memsw"),
            ("kernel", "memory.kmem"),
            ("kernelTCP", "memory.kmem.tcp"),
        )
    }
    return {"cache": raw.get("cache", 0), **entries, "raw": raw}


def _kernel(raw: dict[str, int]) -> dict[str, int]:
    return {"limit": _NO_LIMIT, "usage": raw.get("kernel", 0), "failcnt": 0}


def _entry_v1(reader: CgroupReader, file: str) -> dict[str, int]:
    names = {
        "limit": "limit_in_bytes",
        "usage": "usage_in_bytes",
        "max": "max_usage_in_bytes",
        "failcnt": "failcnt",
    }
    return {name: counter(reader.read(f"{file}.{end}")) or 0 for name, end in names.items()}


def _entry_v2(reader: CgroupReader, file: str) -> dict[str, int]:
    return {
        "limit": _limit(reader.read(f"{file}.max")),
        "usage": counter(reader.read(f"{file}.current")) or 0,
        "max": counter(reader.read(f"{file}.peak")) or 0,
        "failcnt": 0,
    }


def _pids(reader: CgroupReader) -> dict[str, int]:
    """A limit of zero is none."""
    limit = reader.read("pids.max")
    return {"current": counter(reader.read("pids.current")) or 0, "limit": counter(limit) or 0}


def _blkio(reader: CgroupReader) -> dict[str, list[dict[str, Any]]]:
    if _is_v2(reader):
        return _io_stat(reader.read("io.stat") or "")
    found = {}
    for name, file in _TABLES.items():
        text = reader.read(file)
        if not text and name in _THROTTLED:
            text = reader.read(_THROTTLED[name])
        found[name] = table(text or "")
    return found


def table(text: str) -> list[dict[str, Any]]:
    """The rows `8:0 Read 4096` or `8:0 4096` of a v1 file; its total is left out."""
    rows = []
    for line in text.splitlines():
        device, *operation, value = line.split()
        major, colon, minor = device.partition(":")
        if colon and value.isdigit():
            rows.append(
                {"major": int(major), "minor": int(minor), "op": "".join(operation), "value": int(value)}
            )
    return rows


def _io_stat(text: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in _TABLES}
    for line in text.splitlines():
        device, *words = line.split()
        major, _, minor = device.partition(":")
        for word in words:
            key, _, value = word.partition("=")
            if key in _WORDS and value.isdigit():
                name, operation = _WORDS[key]
                found[name].append(
                    {"major": int(major), "minor": int(minor), "op": operation, "value": int(value)}
                )
    return found


def _hugetlb(reader: CgroupReader, sizes: Iterable[str]) -> dict[str, dict[str, int]]:
    names = {"usage": "usage_in_bytes", "max": "max_usage_in_bytes", "failcnt": "failcnt"}
    if _is_v2(reader):
        names = {"usage": "current"}
    found = {}
    for size in sizes:
        if reader.read(f"hugetlb.{size}.{names['usage']}") is None:
            continue
        found[size] = {
            name: counter(reader.read(f"hugetlb.{size}.{end}")) or 0 for name, end in names.items()
        }
        if _is_v2(reader):
            found[size]["failcnt"] = counter(reader.read(f"hugetlb.{size}.events"), "max") or 0
    return found


def interfaces(text: str) -> list[dict[str, Any]]:
    """The counters of /proc/PID/net/dev but for the loopback's; proc_pid_net(5)."""
    found = []
    for line in text.splitlines():
        name, colon, rest = line.strip().rpartition(":")
        words = rest.split()
        if not colon or name == "lo" or len(words) < 12:
            continue
        keys = (
            "RxBytes",
            "RxPackets",
            "RxErrors",
            "RxDropped",
            "TxBytes",
            "TxPackets",
            "TxErrors",
            "TxDropped",
        )
        values = [int(word) for word in (*words[:4], *words[8:12])]
        found.append({"Name": name, **dict(zip(keys, values, strict=True))})
    return found
