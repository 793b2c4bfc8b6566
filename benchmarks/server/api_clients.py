"""Clients of the API in a process of their own: `python -m benchmarks.server.api_clients SETTING`.

SETTING is a file that `benchmarks.server.beside_api` writes. Once all follow events, it prints a line; a line on stdin
with the id of the last event lets them end when they have it, and report what they got.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from time import monotonic
from typing import Any

_LISTS = (
    "/v1/agents?limit=500",
    "/v1/agents?name=agent-0*&state=online&limit=500",
    "/v1/commands?limit=100",
    "/v1/commands?state=completed&outcome=error&limit=100",
    "/v1/commands?type=no-op&limit=100",
)
_LISTS_EVERY_S = 0.5
_POLL_S = 0.05
_DATA = b"\ndata: "


class Follower:
    """A client that follows events, all of them or those of one agent."""

    def __init__(self, address: tuple[str, int], token: str, agent: str | None) -> None:
        self._address, self._token = address, token
        self.path = "/v1/events" + (f"?agent={agent}" if agent else "")
        self.sees_all = agent is None
        self.events = 0
        self.position = 0
        self.begun = asyncio.Event()

    async def run(self) -> None:
        """Count events until cancelled; the application sends whole events in each chunk."""
        reader, writer, _ = await _asked(self._address, self._token, self.path)
        while size := int(await reader.readline(), 16):
            chunk = await reader.readexactly(size + 2)
            self.events += chunk.count(_DATA)
            self.position = int(chunk[chunk.rindex(b"id: ") + 4 :].split(b"\n", 1)[0])
            self.begun.set()
        writer.close()


async def _asked(
    address: tuple[str, int], token: str, path: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, int]:
    """Ask for a path; return what follows the headers of the answer, its writer, and its length, 0 for chunks.

    The connection ends with its writer.
    """
    reader, writer = await asyncio.open_connection(*address, limit=1 << 20)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: api\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    )
    answer = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert answer.startswith(b"http/1.1 200"), answer
    _, found, length = answer.partition(b"content-length: ")
    return reader, writer, int(length.split(b"\r\n")[0]) if found else 0


async def _list(address: tuple[str, int], token: str, taken_ms: list[float]) -> None:
    for path in cycle(_LISTS):
        began = monotonic()
        reader, writer, length = await _asked(address, token, path)
        await reader.readexactly(length)
        writer.close()
        taken_ms.append((monotonic() - began) * 1000)
        await asyncio.sleep(_LISTS_EVERY_S)


async def run(setting: dict[str, Any]) -> dict[str, Any]:
    """Follow and list until the given end, and return what was got."""
    address = (setting["host"], setting["port"])
    tokens: Sequence[str] = setting["tokens"]
    each = zip(setting["agents"], cycle(tokens), strict=False)
    followers = [Follower(address, token, agent) for agent, token in each]
    lists_ms: list[float] = []
    tasks = [asyncio.create_task(it.run()) for it in followers]
    while not all(it.begun.is_set() for it in followers):
        _raise_failures(tasks)
        await asyncio.sleep(_POLL_S)
    print(json.dumps({"following": len(followers)}), flush=True)
    tasks.append(asyncio.create_task(_list(address, tokens[0], lists_ms)))
    end = int(await asyncio.to_thread(sys.stdin.readline))
    while any(it.position < end for it in followers):
        _raise_failures(tasks)
        await asyncio.sleep(_POLL_S)
    for task in tasks:
        task.cancel()
    return {"events_of_all": [it.events for it in followers if it.sees_all], "lists_ms": lists_ms}


def _raise_failures(tasks: Sequence["asyncio.Task[None]"]) -> None:
    for task in tasks:
        if task.done():
            task.result()


def main() -> None:
    """Run as the setting says."""
    print(json.dumps(asyncio.run(run(json.loads(Path(sys.argv[1]).read_bytes())))), flush=True)


if __name__ == "__main__":
    main()
