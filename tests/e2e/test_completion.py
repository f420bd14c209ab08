"""Completion of commands and options, as the shells ask for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from command import SLOWNESS, Gocker

PATH = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"


def shell(name: str, *args: str, env: Mapping[str, str] | None = None) -> str:
    """The output of a shell in which `gocker` is the command under test; skip where it is not installed."""
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run(
        [program, *args],
        env={**os.environ, "PATH": PATH, **(env or {})},
        capture_output=True,
        text=True,
        timeout=30 * SLOWNESS,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def in_bash(*words: str) -> list[str]:
    """What bash offers in place of the last word."""
    script = (
        'eval "$(_GOCKER_COMPLETE=bash_source gocker)"\n'
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))\n'
        "_gocker_completion gocker\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    return shell("bash", "--norc", "-c", script, "bash", *words).split()


def in_zsh(*words: str) -> dict[str, str]:
    """Value to description, as zsh is given them; its completion system itself needs a terminal."""
    script = (
        "compdef() { :; }\n"
        "_describe() { print -rl -- ${(P)3}; }\n"
        "compadd() { print -rl -- ${(P)@[-1]}; }\n"
        'eval "$(_GOCKER_COMPLETE=zsh_source gocker)"\n'
        'words=("$@"); CURRENT=$#\n'
        "_gocker_completion\n"
    )
    lines = shell("zsh", "-f", "-c", script, "zsh", *words).splitlines()
    return {value: text for value, _, text in (line.partition(":") for line in lines if line)}


def in_fish(line: str, home: Path) -> dict[str, str]:
    """Value to description, as fish offers them at the end of a line."""
    script = f"_GOCKER_COMPLETE=fish_source gocker | source; complete --do-complete '{line}'"
    out = shell("fish", "--no-config", "-c", script, env={"HOME": str(home), "XDG_DATA_HOME": str(home)})
    return {value: text for value, _, text in (row.partition("\t") for row in out.splitlines())}


def test_bash_completes_commands() -> None:
    assert in_bash("gocker", "pl") == ["plan", "plugins"]
    assert {"run", "plan", "why", "plugins", "audit", "doctor", "version", "warm"} == set(
        in_bash("gocker", "")
    )
    assert in_bash("gocker", "nosuch") == []


def test_bash_completes_options_of_gocker_and_of_a_command() -> None:
    assert in_bash("gocker", "--v") == ["--version"]
    assert in_bash("gocker", "run", "--memory") == [
        "--memory",
        "--memory-swap",
        "--memory-reservation",
        "--memory-swappiness",
    ]
    assert "--report" in in_bash("gocker", "run", "--re")
    assert "--report" not in in_bash("gocker", "plan", "--re")


def test_bash_completes_options_after_options() -> None:
    assert in_bash("gocker", "run", "--limit", "memory=100m", "--read") == ["--read-only"]


def test_bash_completes_values_of_which_there_are_few() -> None:
    assert in_bash("gocker", "plan", "--format", "") == ["text", "json"]


def test_bash_completes_sub_commands_and_their_options() -> None:
    assert in_bash("gocker", "audit", "") == ["show", "tail", "verify"]
    assert in_bash("gocker", "audit", "tail", "--fo") == ["--format", "--follow"]


def test_what_follows_the_image_is_not_gockers() -> None:
    assert in_bash("gocker", "run", "base", "--mem") == []


def test_zsh_completes_commands_with_what_they_do() -> None:
    found = in_zsh("gocker", "p")
    assert found == {
        "plan": "Show what `run` would do, step by step, and touch nothing.",
        "plugins": "List the installed controllers and namespaces.",
    }


def test_zsh_completes_options_with_what_they_mean() -> None:
    assert in_zsh("gocker", "run", "--memory-s") == {
        "--memory-swap": "Memory and swap together: --limit memory.swap.",
        "--memory-swappiness": "How readily it is swapped, 0 to 100: --limit memory.swappiness.",
    }


def test_fish_completes_commands_with_what_they_do(tmp_path: Path) -> None:
    assert in_fish("gocker plu", tmp_path) == {"plugins": "List the installed controllers and namespaces."}


def test_fish_completes_options_with_what_they_mean(tmp_path: Path) -> None:
    assert in_fish("gocker run --read", tmp_path) == {"--read-only": "Mount the root file system read-only."}


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
def test_the_script_names_the_command_that_it_completes(gocker: Gocker, kind: str) -> None:
    ran = gocker(env={"_GOCKER_COMPLETE": f"{kind}_source"})
    assert (ran.code, ran.err) == (0, "")
    assert "gocker" in ran.out
    assert f"{kind}_complete" in ran.out


@pytest.mark.parametrize("words", ["gocker ", "gocker run --", "gocker why ", "gocker plugins --format "])
def test_it_touches_nothing(gocker: Gocker, tmp_path: Path, words: str) -> None:
    leftover = tmp_path / "state" / "containers" / "gone"
    leftover.mkdir(0o700, parents=True)
    env = {
        "GOCKER_ROOT": f"{tmp_path}/data",
        "GOCKER_STATE": f"{tmp_path}/state",
        "GOCKER_AUDIT_LOG": f"{tmp_path}/audit.jsonl",
    }
    asked = {"_GOCKER_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    ran = gocker(env={**env, **asked})
    assert (ran.code, ran.err) == (0, "")
    assert ran.out
    assert sorted(os.listdir(tmp_path)) == ["state"]
    assert leftover.is_dir()
    assert gocker("plugins", env=env).code == 0  # which does recover, and so would have seen it
    assert not leftover.exists()
