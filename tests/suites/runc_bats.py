"""The integration tests of opencontainers/runc against one runtime: `--runtime PATH`.

They are in no way part of this project: `--source`, or GOCKER_RUNC, names a tree of
https://github.com/opencontainers/runc with its test programs built and its images in place.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import suite

NAME = "runc"
OURS = "runc-cgroups-integration-test"
# Checkpoints are CRIU's, labels SELinux's; neither is anything that gocker has.
LEFT_OUT = frozenset({"checkpoint", "selinux"})
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# The suite asks Go for the architecture that its images are called by.
# runc opens /dev/tty: the suite is meant to have a controlling terminal, at which nobody types, nor hangs up.
ATTENDED = 'mkfifo "$TMPDIR/typed" && exec script -qec "$1" /dev/null <>"$TMPDIR/typed"'
GO = "#!/bin/sh\necho {}\n"


def main() -> int:
    """Run what the options say."""
    options = suite.arguments(
        NAME, "opencontainers/runc tests/integration against one OCI runtime"
    ).parse_args()
    runtime = suite.resolve(options.runtime)
    source = Path(options.source or os.environ.get("GOCKER_RUNC") or suite.CACHE / NAME).absolute()
    integration = source / "tests/integration"
    bats = shutil.which("bats")
    missing = [tool for tool in ("bats", "gawk", "jq", "script") if not shutil.which(tool)]
    if missing or not bats:
        sys.exit(f"no {' and no '.join(missing)}: Debian packages them, script in bsdutils")
    if not (source / "tests/cmd/_bin/recvtty").exists():
        sys.exit(f"{source}: no built tree of opencontainers/runc: see tests/suites/README.md")
    found = _tests(integration)
    names = suite.select(found, options.only)
    suite.enter(runtime)

    def jobs(scratch: str) -> Sequence[suite.Job]:
        go = Path(f"{scratch}/bin/go")
        go.parent.mkdir()
        go.write_text(GO.format(ARCHITECTURES[os.uname().machine]))
        go.chmod(0o755)
        env = {"RUNC": runtime, "PATH": f"{go.parent}:{os.environ['PATH']}"}
        made = []
        for name in names:
            file, title = found[name]
            only = re.sub(r"([][\\.^$*+?(){}|])", r"\\\1", title)
            command = shlex.join([bats, "-t", "-f", f"^{only}$", str(file)])
            made.append(suite.Job(name, ["/bin/sh", "-c", ATTENDED, "sh", command], env, str(integration)))
        return made

    return suite.run_suite(options, NAME, runtime, OURS, jobs, judge)


def _tests(integration: Path) -> dict[str, tuple[Path, str]]:
    """Every test by the name that the table has: FILE.WORDS-OF-ITS-TITLE."""
    found = {}
    for file in sorted(integration.glob("*.bats")):
        if file.stem in LEFT_OUT:
            continue
        for title in re.findall(r'^@test "(.*)" \{', file.read_text(), re.MULTILINE):
            words = re.sub(r"[^A-Za-z0-9._=-]+", "-", title).strip("-")
            found[f"{file.stem}.{words}"] = (file, title.replace('\\"', '"').replace("\\$", "$"))
    return found


def judge(ended: suite.Ended) -> tuple[str, str]:
    """A test of bats tells why it failed on stdout, the command that did at its top."""
    if ended.code != 0:
        said = [line.removeprefix("# ").strip() for line in ended.out.splitlines() if line.startswith("# ")]
        failed = [line for line in said if line.startswith("`")]
        return "fail", " ".join(failed[:1] + [line for line in said if line.startswith("gocker")][-1:])
    return suite.judge_tap(ended)


if __name__ == "__main__":
    sys.exit(main())
