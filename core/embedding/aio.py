"""`gocker.arun`: `gocker.run` for asyncio. No thread waits for it, and a cancelled task leaves no container."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Mapping, Sequence
from typing import Any

from gocker.embedding.container import Container, Stream
from gocker.embedding.request import Text
from gocker.embedding.result import CompletedContainer
from gocker.embedding.running import conclude, streams_of


async def arun(
    args: Sequence[Text],
    *,
    input: str | bytes | None = None,  # noqa: A002 - subprocess's name
    capture_output: bool = False,
    stdin: Stream = None,
    stdout: Stream = None,
    stderr: Stream = None,
    timeout: float | None = None,  # noqa: ASYNC109 - the container's own, as run's
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
    """As `run`, which has the same arguments, without blocking the event loop.

    Cancelled, it kills the container and ends when nothing of it is left.
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
        container._begin(input)
        while not container._over:
            await _step(container._interests())
        output = container._collect()
        container._require()
    except BaseException:
        container._give_up()
        try:
            while container._channel is not None and not container._over:
                await _step([container._listen()])
        finally:
            container._release()
        raise
    container._release()
    return conclude(container, output, timeout, check=check)


async def _step(interests: list[tuple[int, int, Any]]) -> None:
    """Wait for one of them and do what can be done."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    for fd, mask, _ in interests:
        if mask == select.POLLIN:
            loop.add_reader(fd, wake)
        else:
            loop.add_writer(fd, wake)
    try:
        await ready
    finally:
        for fd, mask, _ in interests:
            if mask == select.POLLIN:
                loop.remove_reader(fd)
            else:
                loop.remove_writer(fd)
    for _, _, action in interests:
        action()  # none of them blocks
