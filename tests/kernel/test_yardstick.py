"""benchmarks/start.c, the yardstick of starts, does not give up where gocker does not."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

BUSY_AT_FIRST = r"""
#include <errno.h>
#include <string.h>
int __real_rmdir(const char *path);
int __wrap_rmdir(const char *path)
{
	static int calls;
	const char *name = strrchr(path, '/') + 1;
	if (strcmp(name, "gocker-bench") && ++calls % 3) { /* the shared one is left to the last */
		errno = EBUSY;
		return -1;
	}
	return __real_rmdir(path);
}
"""
ALLOW = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)  # BPF_RET SECCOMP_RET_ALLOW


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
@pytest.mark.skipif(not os.path.exists("/bin/busybox"), reason="needs a static busybox")
def test_what_is_busy_for_a_moment_is_removed_all_the_same(tmp_path: Path) -> None:
    for name in ("bin", "dev", "etc", "proc", "sys"):
        (tmp_path / "rootfs" / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", tmp_path / "rootfs/bin/true")
    (tmp_path / "work").mkdir()
    (tmp_path / "filter").write_bytes(ALLOW)
    (tmp_path / "busy.c").write_text(BUSY_AT_FIRST)
    source = Path(__file__).parents[2] / "benchmarks/start.c"
    start = f"{tmp_path}/start"
    subprocess.run(
        ["gcc", "-O1", "-Wl,--wrap=rmdir", "-o", start, source, f"{tmp_path}/busy.c"], check=True, timeout=60
    )
    arguments = [f"{tmp_path}/{name}" for name in ("rootfs", "work", "filter")]
    ran = subprocess.run([start, *arguments, "2"], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr, len(ran.stdout.splitlines())) == (0, "", 2)
    assert os.listdir(tmp_path / "work") == []
