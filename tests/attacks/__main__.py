"""`python -m tests.attacks --runtime PATH`: run the attacks and show a table."""

from __future__ import annotations

import argparse
import os
import shutil
import sys

from . import table
from .attacks import ATTACKS
from .lab import Runtime
from .suite import Attack, Result, Runner

HERE = os.path.dirname(os.path.abspath(__file__))
WEAK = Runtime("weak", f"{HERE}/weak.py")


def main(arguments: list[str] | None = None) -> int:
    """Return 0 when no runtime but the control runtime was broken, 1 otherwise, 2 when nothing could be said."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.attacks",
        description="Attack OCI runtimes on throwaway hosts. Needs root and gcc.",
    )
    parser.add_argument(
        "--runtime",
        action="append",
        metavar="[NAME=]PATH",
        help="may be given again; `weak` is the control runtime, the default is that one",
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help="this attack, those of this rule (R15), or those that contain NAME",
    )
    parser.add_argument("--format", choices=["table", "json", "markdown"], default="table")
    parser.add_argument("--update", metavar="FILE", help="write the markdown table between the marks in FILE")
    parser.add_argument(
        "--patience",
        type=float,
        default=float(os.environ.get("GATTACK_PATIENCE", "1")),
        help="factor for limits",
    )
    parser.add_argument("--list", action="store_true", help="name the attacks and end")
    options = parser.parse_args(arguments)
    chosen = [attack for attack in ATTACKS.values() if wanted(attack, options.only or [""])]
    if options.list:
        for attack in chosen:
            print(f"{attack.name:40} {attack.rule:4} {attack.source:28} {attack.text}")
        return 0
    if os.geteuid() != 0:
        print("python -m tests.attacks: needs root: namespaces and mounts are made", file=sys.stderr)
        return 2
    results: list[Result] = []
    status = 0
    runner = Runner(options.patience)
    try:
        for text in options.runtime or ["weak"]:
            runtime = named(text)
            problem = runner.check(runtime)
            if problem:
                print(f"{runtime.name}: does not run what is harmless: {problem}", file=sys.stderr)
                status = 2
                continue
            for attack in chosen:
                result = runner.run(attack, runtime)
                results.append(result)
                if options.format == "table":
                    print(table.line(result), flush=True)
                if runtime.name != WEAK.name and result.status in {"broken", "unclear"}:
                    status = max(status, 1)
    finally:
        runner.close()
    if runner.left:
        print(f"left behind: {' '.join(runner.left)}", file=sys.stderr)
    if options.update:
        table.update(options.update, results)
    if options.format == "json":
        print(table.as_json(results))
    elif options.format == "markdown":
        print(table.as_markdown(results))
    else:
        print(table.summary(results))
    return status


def wanted(attack: Attack, words: list[str]) -> bool:
    """A word that is a name or a rule means just that, another all names that contain it."""
    exact = {*ATTACKS, *(other.rule for other in ATTACKS.values())}
    return any(word in {attack.name, attack.rule} if word in exact else word in attack.name for word in words)


def named(text: str) -> Runtime:
    """`NAME=PATH`, a path, or the name of a program in PATH."""
    name, equals, path = text.rpartition("=")
    if text == WEAK.name:
        return WEAK
    found = shutil.which(path) or path
    return Runtime(name if equals else os.path.basename(path), os.path.abspath(found))


if __name__ == "__main__":
    sys.exit(main())
