"""Metadata and entry points; tool settings live in pyproject.toml."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

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


VERSION = "0.1.0"
COMMANDS = {"gocker": "gocker.__main__:main", "gocker-oci": "gocker.ocicli.main:main"}
NATIVE = Path("core", "native")
# Freestanding programs, each of one file; without a compiler gocker does the same in Python.
CFLAGS = [
    *("-std=gnu11", "-Os", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostdlib", "-static", "-s"),
    *("-fno-builtin", "-fno-pie", "-no-pie", "-fno-stack-protector", "-fno-asynchronous-unwind-tables"),
    *("-fno-tree-loop-distribute-patterns", "-Wl,--build-id=none", "-Wl,-z,noexecstack"),
    "-Wl,-z,noseparate-code",
]
MACHINE_CFLAGS = {"x86_64": ["-fcf-protection=none"], "aarch64": ["-mbranch-protection=none"]}


def native_programs() -> list[str]:
    """Their names: executor, client."""
    return sorted(source.stem for source in NATIVE.glob("*.c"))


def compile_native(name: str, target: Path) -> bool:
    """Whether `name` could be compiled for this machine; a warning says why not."""
    machine = os.uname().machine
    compiler = shlex.split(os.environ.get("CC") or "cc")
    if machine not in MACHINE_CFLAGS or not sys.platform.startswith("linux") or not shutil.which(compiler[0]):
        print(f"gocker: no C compiler for {machine}: {name} is not built")
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_name(f".{name}.new")
    version = f'-DGOCKER_VERSION="{VERSION}"'
    command = [
        *compiler,
        *CFLAGS,
        *MACHINE_CFLAGS[machine],
        version,
        "-o",
        str(fresh),
        str(NATIVE / f"{name}.c"),
    ]
    try:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"gocker: {name} is not built: {error}")
        return False
    fresh.replace(target)
    return True


class BuildNative(build_py):
    """Builds the native programs beside the modules."""

    built: tuple[str, ...] = ()

    def run(self) -> None:
        """As ever, then the compiler."""
        super().run()
        into = Path(self.build_lib, "gocker", "native")
        self.built = tuple(
            str(into / name) for name in native_programs() if compile_native(name, into / name)
        )

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """With the programs."""
        return [*super().get_outputs(include_bytecode), *self.built]


class PlatformWheel(bdist_wheel):
    """A wheel with a program in it is of this machine, for any Python.

    With a client the commands are it, and the Python ones get another name, by which it execs them.
    """

    def write_wheelfile(self, wheelfile_base: str, *args: str) -> None:
        """Called once all is in its place, and before it is packed."""
        super().write_wheelfile(wheelfile_base, *args)
        client = Path(self.bdist_dir, "gocker", "native", "client")
        if not client.exists():
            return
        scripts = Path(self.bdist_dir, f"{self.wheel_dist_name}.data", "scripts")
        scripts.mkdir(parents=True, exist_ok=True)
        points = Path(wheelfile_base, "entry_points.txt")
        text = points.read_text(encoding="utf-8")
        for name in COMMANDS:
            shutil.copy(client, scripts / name)
            text = text.replace(f"\n{name} = ", f"\n{name}-python = ")
        points.write_text(text, encoding="utf-8")
        client.unlink()

    def get_tag(self) -> tuple[str, str, str]:
        """py3-none-linux_x86_64, or any where nothing was built."""
        tag: tuple[str, str, str] = super().get_tag()
        built = any(
            Path(self.bdist_dir or "", "gocker", "native", name).exists() for name in native_programs()
        )
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        return ("py3", "none", platform) if built else tag


setup(
    name="gocker",
    version=VERSION,
    description="A container runtime whose every limit and isolation is a plug-in and every step on the record",
    long_description=Path("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    install_requires=["click>=8.1", "structlog>=24.1", "stevedore>=5.1", "jeepney>=0.8"],
    extras_require={"test": TEST, "dev": [*TEST, *DEV]},
    cmdclass={"build_py": BuildNative, "bdist_wheel": PlatformWheel},
    package_dir={"gocker": "core", "gocker.plugins": "plugins"},
    packages=[
        "gocker",
        "gocker.kernel",
        "gocker.cli",
        "gocker.embedding",
        "gocker.oci",
        "gocker.ocicli",
        "gocker.testing",
        "gocker.warm",
        "gocker.steps",
        "gocker.plugins",
        *(f"gocker.plugins.{name}" for name in {**CONTROLLERS, **NAMESPACES}),
    ],
    package_data={"gocker": ["py.typed", "data/*.json"]},
    entry_points={
        "console_scripts": [f"{name} = {function}" for name, function in COMMANDS.items()],
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
