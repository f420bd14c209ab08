"""A cgroup that is a directory of plain files and answers as the kernel would."""

# ruff: noqa: S101 - tests assert

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

from gocker.errors import LimitError, errno_name
from gocker.kernel.devicefilter import parse_rule, v1_rules
from gocker.model import Hierarchy
from gocker.steps.cgroup import row_holds
from gocker.testing.answers import ANSWERS, PARENT, Answer


class FakeCgroup:
    """`gocker.api.Cgroup` and `CgroupReader` over a directory of plain files; records every call.

    It does at once what gocker does when the plan runs: `write` fails with LimitError where the file
    is not there, the kernel would refuse the text, or what is read back is neither the text nor in `accept`.
    """

    def __init__(
        self,
        directory: str,
        hierarchy: Hierarchy,
        files: Mapping[str, str],
        answers: Mapping[str, Answer] | None = None,
    ) -> None:
        """`directory` is made; `files`, name to text, are those that the kernel has in it at birth.

        `answers` adds to ANSWERS, keyed by the file that is read back.
        """
        self.path = directory
        self.calls: list[tuple[str, ...]] = []
        """("write", file, value, limit), ("inherit", file), ("attach",) and ("rmdir",), in order."""
        self.effective: dict[str, str] = {}
        """Limit to what the kernel answered."""
        self.devices: tuple[str, ...] | None = None
        """The rules of `allow_devices`; None: it was not called, and every device may be opened."""
        self.enabled: list[str] = []
        """The kernel controllers that `enable` was called for."""
        self.removed = False
        self._hierarchy = hierarchy
        self._answers = {**ANSWERS[hierarchy], **(answers or {})}
        os.makedirs(directory)
        for name, text in files.items():
            self._store(name, text)

    @property
    def hierarchy(self) -> Hierarchy:
        """V1 or V2."""
        return self._hierarchy

    @property
    def writes(self) -> list[tuple[str, str]]:
        """(file, value) of each limit, in order."""
        return [(call[1], call[2]) for call in self.calls if call[0] == "write"]

    def write(
        self,
        file: str,
        value: str,
        *,
        limit: str,
        accept: tuple[str, ...] = (),
        verify: str = "",
        optional: bool = False,
        remedy: str = "",
        row: bool = False,
        tentative: bool = False,
        fallback: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """See `gocker.api.Cgroup.write`."""
        for other, instead in fallback:
            if not os.path.exists(f"{self.path}/{file}"):
                file, value = other, instead
        target = f"{limit}={value}"
        shown = verify or file
        if not os.path.exists(f"{self.path}/{file}"):
            if optional or tentative:
                return
            raise LimitError(
                "set limit", target, f"this kernel has no {file}", remedy=remedy, errno=errno.ENOENT
            )
        try:
            answer = self._answers.get(shown, str)(value)
        except OSError as error:
            number = error.errno or 0
            if tentative and number == errno.EINVAL:
                return
            raise LimitError("set limit", target, errno_name(number), remedy=remedy, errno=number) from error
        self.calls.append(("write", file, value, limit))
        if row:
            answer = self._store_row(shown, value)
        else:
            self._store(file, value)
            self._store(shown, answer)
        if tentative:
            return
        if answer != value and answer not in accept and not (row and row_holds(value, answer)):
            raise LimitError(
                "set limit", target, f"asked {value}, the kernel answers {answer}", remedy=remedy
            )
        self.effective[limit] = answer

    def enable(self, controller: str) -> None:
        """See `gocker.api.Cgroup.enable`; its files are among those that the fake was made with."""
        self.enabled.append(controller)

    def inherit(self, file: str, *, above: bool = False) -> None:
        """See `gocker.api.Cgroup.inherit`; the parent has what PARENT says."""
        assert self._hierarchy is Hierarchy.V1, f"inherit {file}: only v1 files are born empty"
        self.calls.append(("inherit", file))
        if not above:
            self._store(file, PARENT.get(file, "0"))

    def allow_devices(self, rules: tuple[str, ...], *, limits: tuple[str, ...] = ()) -> None:
        """See `gocker.api.Cgroup.allow_devices`; v1 refuses what its lists cannot say."""
        parsed = tuple(parse_rule(rule) for rule in rules)
        if self._hierarchy is Hierarchy.V1:
            v1_rules(parsed)
        self.devices = rules
        self.effective.update(dict.fromkeys(limits, ", ".join(rules)))

    def attach(self) -> None:
        """See `gocker.api.Cgroup.attach`."""
        self.calls.append(("attach",))

    def rmdir(self) -> None:
        """See `gocker.api.Cgroup.rmdir`; the files stay, to be looked at."""
        self.calls.append(("rmdir",))
        self.removed = True

    def read(self, file: str) -> str | None:
        """See `gocker.api.CgroupReader.read`."""
        try:
            with open(f"{self.path}/{file}", encoding="utf-8") as stream:
                return stream.read().strip()
        except FileNotFoundError:
            return None

    def _store_row(self, name: str, row: str) -> str:
        """Put one line in a table as the kernel does: what the line does not name stays. Return it."""
        key, *words = row.split()
        table = [line.split() for line in (self.read(name) or "").splitlines()]
        held = next((line[1:] for line in table if line[0] == key), [])
        names = {word.partition("=")[0] for word in words if "=" in word}
        kept = [word for word in held if "=" in word and word.partition("=")[0] not in names]
        mine = [key, *kept, *words]
        lines = [line for line in table if line[0] != key] + [mine]
        self._store(name, "\n".join(" ".join(line) for line in lines))
        return " ".join(mine)

    def _store(self, name: str, text: str) -> None:
        with open(f"{self.path}/{name}", "w", encoding="utf-8") as stream:
            stream.write(f"{text}\n" if text else "")
