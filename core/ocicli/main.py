"""The process of the `gocker-oci` command: which verb, where errors go, which exit status."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import sys
from typing import Any, NoReturn

from gocker.cli import quick
from gocker.cli.show import output_failed, show_error
from gocker.errors import GockerError, UsageError
from gocker.kernel import caller
from gocker.ocicli.flags import GLOBAL, VERBS, Verb
from gocker.ocicli.log import LOG, open_log

NAME = "gocker-oci"
_FAILED, _EXEC_FAILED = 1, 255  # as runc has it: 1 is what many a program ends with
_CREATING = frozenset({"create", "run"})
_STATELESS = frozenset({"features", "spec", "version"})
_ALONE = frozenset({"events", "ps"})  # run a program, or for ever: nothing for a warm worker
_READ = frozenset(
    {"events", "list", "ps", "state"}
)  # callers read what they print, some of them stderr with it


def main() -> NoReturn:
    """Run the verb; ends the process."""
    gc.disable()
    sys.argv[0] = sys.argv[0].removesuffix("-python")  # the client execs it by that name
    os._exit(run())


def run() -> int:
    """Run the verb that sys.argv asks for, up to the last word of its output; the exit status."""
    status = _main(sys.argv[1:])
    try:
        sys.stdout.flush()
    except OSError as error:
        status = output_failed(error)
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    return status


def _main(arguments: list[str]) -> int:
    """The exit status; whatever was wrong has been said, on stderr and in the log that was asked for."""
    options: dict[str, Any] = {}
    try:
        options = _parse(NAME, GLOBAL, arguments)
        LOG.go_to(options["log"], as_json=options["log_format"] == "json")
        return _run(options)
    except GockerError as error:
        LOG.error(error)
        show_error(error)
        return _failed(options)
    except BrokenPipeError as error:
        return output_failed(error)
    except Exception as error:  # noqa: BLE001 - what no one foresaw is a bug
        bug = GockerError(
            "internal error", type(error).__name__, str(error), remedy="a bug in gocker: please report it"
        )
        bug.__cause__ = error
        LOG.error(bug)
        show_error(bug)
        return _failed(options)


def _failed(options: dict[str, Any]) -> int:
    return _EXEC_FAILED if options.get("arguments", ())[:1] == ("exec",) else _FAILED


def _run(options: dict[str, Any]) -> int:
    if options["debug"]:
        os.environ["GOCKER_DEBUG"] = "1"
    name, *arguments = options["arguments"] or ("",)
    if options["version"]:
        name = "version"
    if options["help"] or not name:
        return _help(NAME, GLOBAL, "COMMAND [ARG...]", {verb: row.text for verb, row in VERBS.items()})
    verb = VERBS.get(name)
    if verb is None:
        raise UsageError(
            name, reason=f"no such command: No help topic for '{name}'", remedy=f"{NAME} --help lists them"
        )
    _check_global(options)
    chosen = _parse(f"{NAME} {name}", verb.flags, arguments, verb.words)
    if chosen.pop("help"):
        return _help(f"{NAME} {name}", verb.flags, verb.usage, {}, verb.text)
    _check_count(name, verb, chosen["arguments"])
    return _call(name, options, chosen)


def _call(name: str, options: dict[str, Any], chosen: dict[str, Any]) -> int:
    import importlib

    if name in _ALONE:
        caller.give_back(name)
    if name not in _STATELESS:
        from gocker.ocicli.recover import recover_abandoned
        from gocker.state import State

        recover_abandoned(State(options["root"]), quiet=name in _READ)
    if name in _CREATING:
        chosen["annotation"] = options["annotation"]
        chosen["systemd_cgroup"] = options["systemd_cgroup"] or options["cgroup_manager"] == "systemd"
    module = importlib.import_module(f"gocker.ocicli.{name}")
    status: int = module.command(options["root"], **chosen)
    return status


def _parse(path: str, flags: Any, arguments: list[str], words: int = 0) -> dict[str, Any]:
    try:
        return quick.parse(flags, arguments, words=words)
    except quick.Unclear as unclear:
        raise UsageError(
            path.removeprefix(f"{NAME} "), reason=str(unclear), remedy=f"see {path} --help"
        ) from None


def _check_global(options: dict[str, Any]) -> None:
    if options["cgroup_manager"] not in {"cgroupfs", "disabled", "systemd"}:
        raise UsageError("set --cgroup-manager", options["cgroup_manager"], "not cgroupfs or systemd")
    if options["log_format"] not in {"text", "json"}:
        raise UsageError("set --log-format", options["log_format"], "not text or json")
    if options["log"]:
        try:
            os.close(open_log(options["log"]))
        except OSError as error:
            remedy = "a pipe needs somebody who reads it" if error.errno == errno.ENXIO else ""
            raise UsageError.from_os("open log", options["log"], error, remedy=remedy) from error
    if not options["root"]:
        raise UsageError("set --root", "''", "not a directory")
    options["root"] = os.path.abspath(options["root"])


def _check_count(name: str, verb: Verb, arguments: tuple[str, ...]) -> None:
    if verb.least <= len(arguments) <= verb.most:
        return
    reason = (
        "too few arguments"
        if len(arguments) < verb.least
        else f"too many arguments: {arguments[verb.most]!r}"
    )
    raise UsageError(name, reason=reason, remedy=f"{NAME} {name} {verb.usage}".rstrip())


def _help(path: str, flags: Any, usage: str, verbs: dict[str, str], text: str = "") -> int:
    """Click writes the page."""
    import click

    formatter = click.HelpFormatter()
    formatter.write_usage(path, f"[OPTIONS] {usage}".strip())
    if text:
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text)
    rows = []
    for names, attributes in flags:
        metavar = attributes.get("metavar", "")
        rows.append((f"{', '.join(sorted(names, key=len))} {metavar}".rstrip(), attributes["help"]))
    with formatter.section("Options"):
        formatter.write_dl(rows)
    if verbs:
        with formatter.section("Commands"):
            formatter.write_dl(list(verbs.items()))
    print(formatter.getvalue(), end="")
    return 0
