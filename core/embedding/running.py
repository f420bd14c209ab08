"""`gocker.run`: a container from its start to its end in one call, shaped after subprocess.run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gocker.embedding.container import Container, Stream
from gocker.embedding.request import PIPE, Text
from gocker.embedding.result import CompletedContainer


def run(
    args: Sequence[Text],
    *,
    input: str | bytes | None = None,  # noqa: A002 - subprocess's name
    capture_output: bool = False,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
    timeout: float | None = None,
    check: bool = False,
    env: Mapping[str, str] | None = None,
    cwd: Text | None = None,
    limits: Mapping[str, str | float] | None = None,
    rootfs: Text | None = None,
    image: str | None = None,
    user: str | int | None = None,
    volumes: Sequence[Text] = (),
    network: str | None = None,
    hostname: str | None = None,
    name: str | None = None,
    options: Sequence[str] = (),
    text: bool = False,
    encoding: str | None = None,
    errors: str | None = None,
) -> CompletedContainer:
    """Run `args` in a new container and return how it ended; the arguments are those of `Container`.

    `input` goes to its stdin; `capture_output` keeps stdout and stderr. Whatever happens, when this is over nothing
    of the container is left. Raise TimeoutExpired, with the output so far, when it was killed after `timeout`
    seconds; ContainerError, with `check`, when it did not end well; GockerError when it never ran, or a limit does
    not bind.
    """
    streams = streams_of(input, stdin, stdout, stderr, capture_output=capture_output)
    container = Container(
        args,
        **streams,
        timeout=timeout,
        env=env,
        cwd=cwd,
        limits=limits,
        rootfs=rootfs,
        image=image,
        user=user,
        volumes=volumes,
        network=network,
        hostname=hostname,
        name=name,
        options=options,
        text=text,
        encoding=encoding,
        errors=errors,
    )
    try:
        container._launch()
        output = container.communicate(input)
    except BaseException:
        container._abandon()
        raise
    container._release()
    return conclude(container, output, timeout, check=check)


def streams_of(
    given: str | bytes | None, stdin: Stream, stdout: Stream, stderr: Stream, *, capture_output: bool
) -> dict[str, Stream]:
    """The streams that the shorter words stand for. Raise ValueError."""
    if given is not None:
        if stdin is not None:
            raise ValueError("stdin and input exclude each other")
        stdin = PIPE
    if capture_output:
        if stdout is not None or stderr is not None:
            raise ValueError("stdout and stderr exclude capture_output")
        stdout = stderr = PIPE
    return {"stdin": stdin, "stdout": stdout, "stderr": stderr}


def conclude(
    container: Container, output: tuple[Any, Any], timeout: float | None, *, check: bool
) -> CompletedContainer:
    """The result with its output. Raise TimeoutExpired and ContainerError."""
    assert container.result is not None  # noqa: S101 - it has ended
    result = container.result.replace(stdout=output[0], stderr=output[1])
    if result.verdict.kind == "timeout":
        from gocker.embedding.failures import TimeoutExpired

        raise TimeoutExpired(result.args, timeout or 0.0, *output, result)
    if check:
        result.check_returncode()
    return result
