"""The validation programs of opencontainers/runtime-tools against one runtime: `--runtime PATH`.

They are in no way part of this project: `--source`, or GOCKER_RUNTIME_TOOLS, names a tree of
https://github.com/opencontainers/runtime-tools that was built as its README says.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import suite

NAME = "runtime-tools"
OURS = r"cgrouptest|testdir|(crun-)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
REWRITE = """#!/bin/sh
# An old runtime refuses the version that the suite asks for; what it asks for is old enough.
bundle=.
for word; do
	case $before in --bundle | -b) bundle=$word ;; esac
	before=$word
done
[ ! -f "$bundle/config.json" ] || sed -i 's/"ociVersion": *"[^"]*"/"ociVersion":"{version}"/' "$bundle/config.json"
exec {runtime} "$@"
"""


def main() -> int:
    """Run what the options say."""
    parser = suite.arguments(NAME, "opencontainers/runtime-tools validation against one OCI runtime")
    parser.add_argument(
        "--spec-version", help="write this ociVersion into each config.json, for old runtimes"
    )
    options = parser.parse_args()
    runtime = suite.resolve(options.runtime)
    source = Path(options.source or os.environ.get("GOCKER_RUNTIME_TOOLS") or suite.CACHE / NAME).absolute()
    programs = {path.stem: path for path in sorted(source.glob("validation/*/*.t"))}
    if not programs or not (source / "runtimetest").exists():
        sys.exit(f"{source}: no built tree of opencontainers/runtime-tools: see tests/suites/README.md")
    names = suite.select(programs, options.only)
    suite.enter(runtime)

    def jobs(scratch: str) -> Sequence[suite.Job]:
        command = runtime
        if options.spec_version:
            command = f"{scratch}/{os.path.basename(runtime)}"
            Path(command).write_text(REWRITE.format(version=options.spec_version, runtime=runtime))
            os.chmod(command, 0o755)
        # The programs look for the root file system's archive and runtimetest where they are started.
        return [suite.Job(name, [str(programs[name])], {"RUNTIME": command}, str(source)) for name in names]

    return suite.run_suite(options, NAME, runtime, OURS, jobs, suite.judge_tap)


if __name__ == "__main__":
    sys.exit(main())
