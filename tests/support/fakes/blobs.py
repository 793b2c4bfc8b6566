"""The server's files in memory, read as over the wire."""

from collections.abc import Generator

from tests.support.fakes.clock import TurnedClock


class MemoryBlobs:
    """Holds one file. From the byte `until` on it is silent, and a second is over each time that nothing comes."""

    def __init__(self, clock: TurnedClock, content: bytes, until: int | None = None) -> None:
        self.clock = clock
        self.content = content
        self.until = len(content) if until is None else until
        self.offsets: list[int] = []

    def read(self, name: str, offset: int, size: int) -> Generator[bytes, None, None]:
        self.offsets.append(offset)
        for at in range(offset, self.until, 1000):
            yield self.content[at : at + 1000]
        while self.until < size:
            self.clock.turn(1.0)
            yield b""
