"""The checks of .ci/run one by one, in environments of their own: nox -l lists them."""

from __future__ import annotations

import nox

nox.options.sessions = ["lint", "types", "tests-3.11"]
nox.options.reuse_existing_virtualenvs = True


def install(session: nox.Session, extra: str) -> None:
    """A wheel of the tree, built as .ci/run builds it; nothing to do when the tree has not changed."""
    session.install("setuptools>=70")
    script = '. .ci/lib.sh && python=$GOCKER_VENV/bin/python && install_gocker "$0"'
    session.run("bash", "-ec", script, extra, env={"GOCKER_VENV": session.virtualenv.location}, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, import layers and changelog fragments."""
    install(session, "dev")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-cache")
    session.run("towncrier", "build", "--draft", "--version", "next")


@nox.session
def types(session: nox.Session) -> None:
    """Strict types of the package and of its tests."""
    install(session, "dev")
    session.run("mypy", "--strict", "-p", "gocker")
    session.run("mypy", "--strict", "tests", "contrib")


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Pytest with the arguments after `--`; without any, all tiers that run on the host."""
    install(session, "test")
    session.run("pytest", *(session.posargs or ["tests", "--ignore-glob=tests/guest/*_v2.py"]))


@nox.session
def guest(session: nox.Session) -> None:
    """The guest's tests in one boot."""
    session.run("tests/guest/run", *session.posargs, external=True)
