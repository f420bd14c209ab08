"""Run-time state: for each living container a locked directory with its plan, and its name.

    GOCKER_STATE/containers/ID/lock       flock held by the gocker that answers for the container; begins with
                                          its first process's kernel.progress, then comes what `owe` wrote
    GOCKER_STATE/containers/ID/plan.json  what was planned, and so what there is to undo
    GOCKER_STATE/containers/ID/state.json of a container that outlives its gocker: who it is (core/lasting.py);
                                          .state.json while it is being created or deleted
    GOCKER_STATE/containers/.ID           ID while it is being made
    GOCKER_STATE/names/NAME               symbolic link whose text is ID

A container whose lock nobody holds is abandoned: its gocker was killed. Not so with a state.json: that one lasts
until it is deleted, and the lock is held by whoever does something with it. One whose lock owes something was left by
a gocker that was killed or could not go on: `indebted` finds it. These hold at each moment, so that a kill between
any two system calls leaves something that `abandoned` or `indebted` understands:

- ID appears by one rename, complete and with its lock held.
- `.ID` is only made and renamed under a shared flock of containers/; who gets that flock for itself
  knows that each `.ID` is a leftover.
- A container comes to last by one rename, after it has all that it needs to, and its first process has
  been let go; it ceases to by one rename, before anything of it is taken back.
- A name is taken after ID has appeared and given up before the plan goes, so a name without its
  container does not last. A name is removed only under an exclusive flock of names/, after a look
  at whose it is.
- The plan goes after all in it is undone, then the lock, then the directory: a directory without
  a plan, or without a lock, needs no undoing.

A flock belongs to the open file description, which the container's first process shares until it
execs (the fd is close-on-exec). So a free lock proves that nothing is set up any more, and what is
undone stays undone. A killed gocker's child, which dies with it, may hold the lock for some
milliseconds more. Whoever finds a lock held must therefore know whether to wait: gocker has a
record lock (fcntl(2)) on the same file as well, which children do not inherit and which the kernel
drops at gocker's own end. Held and without a record lock means that it will be free shortly.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator

from gocker import paths
from gocker import statefiles as files
from gocker.claim import Claim, own
from gocker.errors import StateError

SHORT_ID = 12  # characters of an id that serve as the name of a container that was given none

_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_OTHER = _FIRST | frozenset("_.+-")
_MAX_ID = 128


def new_id() -> str:
    """A random id: 16 hexadecimal digits."""
    return os.urandom(8).hex()


def is_id(text: str) -> bool:
    """Whether `text` fully matches `gocker.model.ID_PATTERN`; 0.15 ms cheaper than compiling it."""
    return 0 < len(text) <= _MAX_ID and text[0] in _FIRST and _OTHER.issuperset(text)


class State:
    """The state directory; each call opens it anew, nothing is cached."""

    def __init__(self, root: str = "") -> None:
        """`root` is an absolute path; "" means `paths.state_root()`."""
        self.root = root or paths.state_root()

    def create(self, container: str, name: str, plan: bytes) -> Claim:
        """Put `plan` on disk under the id `container` and take its name ("" is the short id).

        From here until `Claim.release` the container is ours. Raise StateError when the id is
        malformed or in use, the name is malformed or another container's, or the directory cannot
        be written; then nothing is left behind.
        """
        name = name or container[:SHORT_ID]
        if not is_id(container):
            raise StateError("create container", container, "not a container id")
        if not is_id(name):
            raise StateError(
                "name container", name, "not a name", remedy="letters, digits and _.+-, at most 128"
            )
        try:
            containers = self._open("containers", make=True)
            try:
                lock, record = files.appear(containers, container, plan)
            finally:
                files.unlock_and_close(containers)
        except OSError as error:
            raise self._error("create state of", container, error) from error
        claim = Claim(self, container, name, plan, lock)
        claim.fd = record
        try:
            self._take_name(name, container)
        except BaseException as error:
            try:
                claim.release()
            except StateError as second:
                error.add_note(str(second))
            if isinstance(error, OSError):
                raise self._error("name container", name, error) from error
            raise
        return claim

    def abandoned(self) -> Iterator[Claim]:
        """The containers whose gocker is gone, each with its lock held by us while it is looked at.

        Undo `Claim.plan`, then `Claim.release` it; one that is not released stays for the next call.
        One with `Claim.busy` is still held after some seconds of waiting: nothing can be done with it.
        What needs no undoing is tidied up on the way. Raise StateError when the directory cannot be
        read or written.
        """
        try:
            containers = self._open("containers")
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._error("read state in", self.root, error) from error
        try:
            entries = sorted(os.listdir(containers))
            hidden = [entry for entry in entries if entry.startswith(".") and is_id(entry[1:])]
            if hidden:
                files.sweep(containers, hidden)
            for entry in entries:
                # Where there are many, nearly all last.
                if files.surely_lasts(containers, entry):
                    continue
                claim = self._take_over(containers, entry) if is_id(entry) else None
                if claim is not None:
                    try:
                        yield claim
                    finally:
                        claim.close()
        except OSError as error:
            raise self._error("read state in", self.root, error) from error
        finally:
            os.close(containers)

    def lasting(self, container: str, patience: float = files.PATIENCE) -> Claim:
        """A container that lasts, to do something with, once nobody else does; `patience` is in seconds.

        `Claim.close` it, or `Claim.release` it for good. Raise StateError when there is none of that id, and
        when somebody else has it for too long.
        """
        directory = self._directory(container)
        lock = -1
        try:
            lock = os.open("lock", files.LOCK, dir_fd=directory)
            deadline = time.monotonic() + patience
            nap = files.NAP_FIRST
            while not files.lock_if_free(lock):
                if time.monotonic() > deadline:
                    raise StateError("use container", container, "another gocker is at work on it")  # noqa: TRY301
                time.sleep(nap)
                nap = min(2 * nap, files.NAP_LAST)
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            plan, record = files.read_file(directory, "plan.json"), files.read_lock(lock)
            if (
                plan is None
                or os.fstat(lock).st_nlink == 0
                or files.read_file(directory, files.LASTS) is None
            ):
                raise _no_container(container)  # noqa: TRY301
            return Claim(self, container, container, plan, lock, record=record)
        except BaseException as error:
            if lock >= 0:
                os.close(lock)
            if isinstance(error, FileNotFoundError):
                raise _no_container(container) from error
            if isinstance(error, OSError):
                raise self._error("use container", container, error) from error
            raise
        finally:
            os.close(directory)

    def indebted(self) -> Iterator[Claim]:
        """The containers that last and of which something is to be put on the record or brought to an end.

        Nobody is waited for: what another gocker is at work on is its own. Raise StateError.
        """
        try:
            containers = self._open("containers")
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._error("read state in", self.root, error) from error
        try:
            for entry in sorted(os.listdir(containers)):
                if not files.owes(containers, entry):
                    continue
                if not is_id(entry) or self._path(entry) in own or not files.lasts(containers, entry):
                    continue
                try:
                    claim = self.lasting(entry, 0.0)
                except StateError:  # it is in use, or was deleted meanwhile
                    continue
                try:
                    yield claim
                finally:
                    claim.close()
        except OSError as error:
            raise self._error("read state in", self.root, error) from error
        finally:
            os.close(containers)

    def describe(self, container: str) -> bytes:
        """What `Claim.last` wrote of a container; nobody is kept waiting. Raise StateError when there is none."""
        directory = self._directory(container)
        try:
            data = files.read_file(directory, files.LASTS)
        except OSError as error:
            raise self._error("read state of", container, error) from error
        finally:
            os.close(directory)
        if data is None:
            raise _no_container(container)
        return data

    def lasting_ids(self) -> list[str]:
        """The ids of all containers that last, sorted. Raise StateError."""
        try:
            containers = self._open("containers")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._error("read state in", self.root, error) from error
        try:
            return sorted(
                entry for entry in os.listdir(containers) if is_id(entry) and files.lasts(containers, entry)
            )
        finally:
            os.close(containers)

    def start_socket(self, container: str) -> str:
        """The path of the socket by which a created container is started."""
        return f"{self._path(container)}/{files.START}"

    def _directory(self, container: str) -> int:
        """An fd of a container's directory. Raise StateError when there is none."""
        if not is_id(container):
            raise StateError("use container", container, "not a container id")
        try:
            containers = self._open("containers")
            try:
                return os.open(container, files.DIRECTORY, dir_fd=containers)
            finally:
                os.close(containers)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _no_container(container) from error
        except OSError as error:
            raise self._error("use container", container, error) from error

    def _open(self, directory: str, *, make: bool = False) -> int:
        path = f"{self.root}/{directory}"
        try:
            fd = os.open(path, files.DIRECTORY)
        except FileNotFoundError:
            if not make:
                raise
            os.makedirs(self.root, 0o700, exist_ok=True)
            for entry in ("containers", "names"):
                with contextlib.suppress(FileExistsError):
                    os.mkdir(f"{self.root}/{entry}", 0o700)
            fd = os.open(path, files.DIRECTORY)
        for place, status in ((self.root, os.stat(self.root)), (path, os.fstat(fd))):
            if status.st_uid != os.geteuid() or status.st_mode & 0o022:
                os.close(fd)
                raise StateError(
                    "use state directory",
                    place,
                    "others own it or may write to it",
                    remedy="chown and chmod 0700 it, or set GOCKER_STATE to a directory of your own, or --root",
                )
        return fd

    def _take_name(self, name: str, container: str) -> None:
        names = self._open("names", make=True)
        try:
            locked = False
            while True:
                try:
                    os.symlink(container, name, dir_fd=names)
                except FileExistsError:
                    pass
                else:
                    return
                if not locked:
                    fcntl.flock(names, fcntl.LOCK_EX)
                    locked = True
                    continue
                holder = files.link(names, name)
                if holder and self._is_held(holder):
                    raise StateError(
                        "name container",
                        name,
                        f"container {holder} has this name",
                        remedy="stop it, or choose another name",
                    )
                files.unlink(name, names)
        finally:
            files.unlock_and_close(names)

    def _is_held(self, container: str) -> bool:
        """Whether some gocker, or a process of one, holds the container's lock."""
        if not is_id(container):
            return False
        if self._path(container) in own:
            return True
        containers = self._open("containers")
        try:
            directory = os.open(container, files.DIRECTORY, dir_fd=containers)
            try:
                lock = os.open("lock", files.LOCK, dir_fd=directory)
            finally:
                os.close(directory)
        except FileNotFoundError:
            return False
        finally:
            os.close(containers)
        try:
            return not files.lock_if_free(lock, fcntl.LOCK_SH)
        finally:
            os.close(lock)

    def _take_over(self, containers: int, container: str) -> Claim | None:
        """The container if it is abandoned and has a plan to undo."""
        if self._path(container) in own or files.lasts(containers, container):
            return None
        try:
            directory = os.open(container, files.DIRECTORY, dir_fd=containers)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                return None  # released meanwhile, or never ours
            raise
        try:
            lock = os.open("lock", files.LOCK, dir_fd=directory)
        except FileNotFoundError:
            files.rmdir(container, containers)
            return None
        else:
            try:
                free = files.lock_when_orphaned(lock)
                if free is None or os.fstat(lock).st_nlink == 0 or files.lasts(containers, container):
                    os.close(lock)  # it is in use, was released or has come to last before we had the lock
                    return None
                plan, record = files.read_file(directory, "plan.json"), files.read_lock(lock)
                known = files.read_file(directory, files.NEW_LASTS)
            except BaseException:
                os.close(lock)
                raise
        finally:
            os.close(directory)
        claim = Claim(self, container, "", plan or b"", lock, record=record, busy=not free)
        claim.known = known or b""
        if plan is None and free:
            claim.release()
            return None
        return claim

    def _path(self, container: str) -> str:
        return f"{self.root}/containers/{container}"

    def _error(self, operation: str, target: str, error: OSError) -> StateError:
        remedy = "set GOCKER_STATE to a directory of your own that can be written"
        if error.errno in {errno.EACCES, errno.EPERM} and os.geteuid() != 0:
            remedy = f"run gocker as root, or {remedy}"
        elif error.errno in {errno.ENOSPC, errno.EDQUOT}:
            remedy = f"free some space, or {remedy}"
        elif error.errno in {errno.ELOOP, errno.ENOTDIR}:
            remedy = "give GOCKER_STATE the path of a real directory"
        where = target if self.root in target else f"{target} in {self.root}"
        text = f"{errno.errorcode.get(error.errno or 0, 'error')}: {error.strerror or error}"
        return StateError(operation, where, text, remedy=remedy, errno=error.errno or 0)


def _no_container(container: str) -> StateError:
    return StateError(
        "use container", container, "container does not exist", remedy="gocker-oci list", errno=errno.ENOENT
    )
