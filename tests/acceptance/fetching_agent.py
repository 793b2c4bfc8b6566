"""An agent with a command type that fetches an artifact, as a program that embeds the library would register it.

With `hold_at`, it creates the file `holding` after that many bytes, and continues once the file `go_on` exists.
"""

import sys
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

from broker.contract.artifacts import Artifact
from broker.contract.messages import Command
from consumer.agent import Agent
from consumer.config import load_config
from consumer.handler import Context, Handler, Interruption, Result
from consumer.ports import Blobs


@dataclass(frozen=True)
class FetchFile:
    artifact: Artifact
    to: str
    hold_at: int | None = None


class HoldingBlobs:
    def __init__(self, blobs: Blobs, hold_at: int, directory: Path) -> None:
        self._blobs = blobs
        self._hold_at = hold_at
        self._directory = directory

    def read(self, name: str, offset: int, size: int) -> Generator[bytes, None, None]:
        go_on = self._directory / "go_on"
        for block in self._blobs.read(name, offset, size):
            offset += len(block)
            yield block
            while offset >= self._hold_at and not go_on.exists():
                (self._directory / "holding").touch()
                yield b""


def _fetch(command: Command, parameters: FetchFile, context: Context) -> Result:
    to = Path(parameters.to)
    if parameters.hold_at is not None:
        assert context.blobs is not None
        context = replace(context, blobs=HoldingBlobs(context.blobs, parameters.hold_at, to.parent))
    context.downloader().fetch(parameters.artifact, to)
    return Result("The file is there.")


def main() -> None:
    given = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
    config = load_config(None, {name.removeprefix("--"): value for name, value in given.items()})
    Agent(config, handlers=[Handler("fetch-file", Interruption.RERUN, FetchFile, _fetch)]).run()


if __name__ == "__main__":
    main()
