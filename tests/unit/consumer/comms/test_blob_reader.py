"""Reading a blob over a wire that loses, repeats and delays, on a turned clock."""

import itertools
import random
from collections.abc import Callable

import pytest

from broker.contract.messages import MAX_BLOB_CHUNK_BYTES, BlobChunk, BlobRequest
from consumer.comms.blob_reader import BlobReader
from consumer.errors import DownloadError
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock

CONTENT = random.Random(1).randbytes(3_000_000)
NAME = "a" * 64
CHUNK = MAX_BLOB_CHUNK_BYTES


class Wire:
    """Answers each request at once, as `deliver` lets it."""

    def __init__(self, clock: TurnedClock) -> None:
        self.clock = clock
        self.requests: list[BlobRequest] = []
        self.chunk_bytes = CHUNK
        self.deliver: Callable[[BlobChunk], None] = lambda chunk: self.reader.receive(chunk)
        self.reader = BlobReader(self.request, clock, poll_s=0.0)

    def request(self, request: BlobRequest) -> None:
        self.requests.append(request)
        for offset in range(request.offset, request.offset + request.length, self.chunk_bytes):
            end = min(offset + self.chunk_bytes, request.offset + request.length)
            self.deliver(chunk(offset, CONTENT[offset:end]))

    def read(self, offset: int = 0, turn_s: float = 1.0) -> bytes:
        """Read to the end; each time that nothing has come, some seconds are over."""
        got = b""
        for block in self.reader.read(NAME, offset, len(CONTENT)):
            got += block
            if not block:
                self.clock.turn(turn_s)
        return got


@pytest.fixture
def wire(clock: TurnedClock) -> Wire:
    return Wire(clock)


def chunk(offset: int, data: bytes, name: str = NAME) -> BlobChunk:
    return BlobChunk(name, offset, len(CONTENT), data)


def test_requests_stay_smaller_where_the_brokers_limit_makes_the_chunks_shorter(wire: Wire) -> None:
    wire.chunk_bytes = 20_000
    assert wire.read() == CONTENT
    assert max(request.length for request in wire.requests) <= 8 * wire.chunk_bytes


def test_blob_is_read_with_growing_requests(wire: Wire) -> None:
    assert wire.read() == CONTENT
    lengths = [request.length // CHUNK for request in wire.requests]
    assert lengths == [1, 2, 4, 8, 7]
    assert [request.offset for request in wire.requests] == [CHUNK * sum(lengths[:n]) for n in range(5)]


def test_blob_is_read_from_an_offset(wire: Wire) -> None:
    assert wire.read(2_999_000) == CONTENT[2_999_000:]
    assert wire.requests == [BlobRequest(NAME, 2_999_000, 1000)]


def test_lost_repeated_and_swapped_chunks_are_requested_again(wire: Wire) -> None:
    luck = random.Random(7)
    late: list[BlobChunk] = []

    def deliver(chunk: BlobChunk) -> None:
        fate = luck.random()
        late.append(chunk)
        for arriving in [chunk] * (fate > 0.3) + [late[luck.randrange(len(late))]] * (fate > 0.8):
            wire.reader.receive(arriving)

    wire.deliver = deliver
    assert wire.read() == CONTENT


def test_unanswered_request_is_repeated_with_backoff(wire: Wire) -> None:
    wire.deliver = lambda chunk: None
    reading = wire.reader.read(NAME, 0, len(CONTENT))
    asked_at = []
    for second in range(120):
        before = len(wire.requests)
        assert next(reading) == b""
        asked_at += [second] * (len(wire.requests) - before)
        wire.clock.turn(1.0)
    waits = [after - before for before, after in itertools.pairwise(asked_at)]
    assert waits[0] <= 2
    assert max(waits) <= 31
    assert 6 <= len(asked_at) <= 12
    assert all(request == BlobRequest(NAME, 0, CHUNK) for request in wire.requests)


def test_request_is_repeated_at_once_on_a_new_connection(wire: Wire) -> None:
    wire.deliver = lambda chunk: None
    reading = wire.reader.read(NAME, 0, len(CONTENT))
    assert [next(reading), next(reading)] == [b"", b""]
    assert len(wire.requests) == 1
    wire.reader.connected()
    assert [next(reading), next(reading)] == [b"", b""]
    assert len(wire.requests) == 2


def test_data_on_its_way_on_a_slow_line_is_not_requested_again(wire: Wire) -> None:
    line: list[BlobChunk] = []
    wire.deliver = line.append
    got = b""
    for block in wire.reader.read(NAME, 0, len(CONTENT)):
        got += block
        wire.clock.turn(1.0)
        if line and wire.clock.monotonic() % 17 == 0:
            wire.reader.receive(line.pop(0))
    assert got == CONTENT
    assert sum(request.length for request in wire.requests) < 1.3 * len(CONTENT)


def test_refusal_ends_the_reading_and_a_stale_one_does_not(wire: Wire) -> None:
    def refuse(offset: int) -> None:
        wire.reader.receive(BlobChunk(NAME, offset, error="There is none."))

    wire.deliver = lambda chunk: refuse(chunk.offset + 1)
    reading = wire.reader.read(NAME, 0, len(CONTENT))
    assert next(reading) == b""
    refuse(0)
    with raises_code(DownloadError, "blob_refused"):
        next(reading)


def test_blob_of_another_size_is_refused(wire: Wire) -> None:
    wire.deliver = lambda chunk: wire.reader.receive(BlobChunk(NAME, 0, 5, b"hello"))
    with raises_code(DownloadError, "wrong_size"):
        wire.read()


def test_chunks_of_other_blobs_and_surplus_chunks_are_dropped(wire: Wire) -> None:
    wire.deliver = lambda answer: wire.reader.receive(chunk(0, b"foreign", "b" * 64))
    reading = wire.reader.read(NAME, 0, len(CONTENT))
    assert next(reading) == b""
    for _ in range(1000):
        wire.reader.receive(chunk(0, CONTENT[:CHUNK]))
    (inbox,) = wire.reader._inboxes
    assert inbox.qsize() < 20
    assert next(reading) == CONTENT[:CHUNK]
    reading.close()
    assert wire.reader._inboxes == {}
