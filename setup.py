"""Metadata and entry points; tool settings live in pyproject.toml."""

from pathlib import Path

from setuptools import setup

CONTROLLERS = {
    "memory": "Memory",
    "cpuset": "Cpuset",
    "cpushare": "Cpushare",
    "pids": "Pids",
    "cpuacct": "Cpuacct",
    "blkio": "Blkio",
    "devices": "Devices",
    "cpu": "Cpu",
    "freezer": "Freezer",
    "net_cls": "NetCls",
    "net_prio": "NetPrio",
    "rdma": "Rdma",
    "unified": "Unified",
}
NAMESPACES = {
    "uts": "Uts",
    "ipc": "Ipc",
    "pid": "Pid",
    "mount": "Mount",
    "network": "Network",
    "cgroup": "Cgroup",
    "user": "User",
    "time": "Time",
}

# import-linter is a test (tests/unit/test_layers.py); linters are pinned, each release finds more.
TEST = [
    "coverage>=7.10",
    "hypothesis>=6.100",
    "import-linter>=2.5",
    "jsonschema>=4.18",
    "pyelftools>=0.30",
    "pytest>=8.3",
    "pytest-timeout>=2.3",
]
DEV = ["mypy==2.4.*", "nox>=2024.4", "ruff==0.17.*", "towncrier>=24.8"]


def entry_points(plugins: dict[str, str]) -> list[str]:
    """`name = gocker.plugins.name:Class` for each."""
    return [f"{name} = gocker.plugins.{name}:{cls}" for name, cls in plugins.items()]


setup(
    name="gocker",
    version="0.1.0",
    description="A container runtime whose every limit and isolation is a plug-in and every step on the record",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    install_requires=["click>=8.1", "structlog>=24.1", "stevedore>=5.1"],
    extras_require={"test": TEST, "dev": [*TEST, *DEV]},
    package_dir={"gocker": "core", "gocker.plugins": "plugins"},
    packages=[
        "gocker",
        "gocker.kernel",
        "gocker.cli",
        "gocker.embedding",
        "gocker.oci",
        "gocker.ocicli",
        "gocker.testing",
        "gocker.steps",
        "gocker.plugins",
        *(f"gocker.plugins.{name}" for name in {**CONTROLLERS, **NAMESPACES}),
    ],
    package_data={"gocker": ["py.typed", "data/*.json"]},
    entry_points={
        "console_scripts": ["gocker = gocker.__main__:main", "gocker-oci = gocker.ocicli.main:main"],
        "gocker.controllers": entry_points(CONTROLLERS),
        "gocker.namespaces": entry_points(NAMESPACES),
    },
    classifiers=[
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Typing :: Typed",
    ],
)
