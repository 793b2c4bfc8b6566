"""The fuzz targets. A target accepts any bytes and returns; an exception or a failed assertion is a finding.

To add one, write a function that takes bytes, suppresses the one declared error, and is decorated by `@target(seeds)`.
"""

import asyncio
import atexit
import base64
import contextlib
import json
import os
import shutil
import socket
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, get_args

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from structlog.testing import capture_logs

from broker.app.factories import open_database
from broker.cli.agent_list import AGENTS
from broker.cli.commands import COMMANDS, command_panel
from broker.console.formats import list_table, plain_lines
from broker.contract.codec import (
    DecodeError,
    Message,
    decode_acks,
    decode_blob_chunks,
    decode_blob_requests,
    decode_commands,
    decode_controls,
    decode_feedbacks,
    decode_status,
    encode,
    encode_status,
    frames,
    joined_frames,
)
from broker.contract.dsse import SignatureError as EnvelopeError
from broker.contract.enrolment import ENROLL_PATH, RENEW_PATH, EnrollResponse, ErrorResponse
from broker.contract.enrolment_token import EnrolmentToken, InvalidToken
from broker.contract.foreign_forms import is_foreign_form, read_foreign_form
from broker.contract.limits import CHANNEL_OF, LIMITS
from broker.contract.messages import Command, Origin
from broker.contract.topics import Channel, Topics
from broker.contract.trace_context import TraceContext
from broker.enrolment.http import enrolment_app
from broker.enrolment.service import EnrolmentPolicy, EnrolmentService
from broker.fleet.models import AgentFilter, CommandFilter
from broker.fleet.on_ledger import LedgerFleet
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.tables import METADATA
from broker.mqtt.broker_limits import MAX_PACKET_BYTES
from broker.mqtt.probe import ClosedByBroker, Probe
from broker.release.builder import verify_package
from broker.release.manifest import PackageError, parse_manifest
from broker.release.minisign import MinisignError, PublicKey, verify_signature
from broker.server.server import Server
from broker.signing.key_store import SigningKeyStore, create_signing_keys
from consumer.active_response.address_notations import networks, words
from consumer.active_response.allow_list import AllowList
from consumer.active_response.wazuh_protocol import read_keys
from consumer.engine.feedback import FeedbackFactory
from consumer.engine.gaps import Gaps
from consumer.engine.receiver import CommandReceiver
from consumer.enrolment.client import EnrolmentClient
from consumer.enrolment.grant_validation import CertificateRequest, validate_response
from consumer.errors import ActiveResponseError, ArchiveError, EnrolmentError, UpgradeError
from consumer.handler import Result
from consumer.ports import EncodedFeedback
from consumer.settings import ActiveResponseConfig, Syntax
from consumer.system.archives import Limits, is_archive, unpack
from consumer.system.leftovers import Leftovers
from consumer.system.masking import mask_text
from consumer.system.syntax import DEFAULT_SYNTAX, check_syntax
from consumer.trust.trusted_clock import TrustedClock
from consumer.trust.verification import NoTrust, Verifier
from consumer.upgrade.packages import open_package, unpack_package
from tests.fuzz import seeds
from tests.support.enrolling import EnrollingAgent, EnrolmentBackend
from tests.support.fakes.clock import TurnedClock
from tests.support.fakes.memory_store import MemoryCommandStore
from tests.support.fakes.refusals import KeptRefusals
from tests.support.makers import inbound, inbound_on
from tests.support.stored import all_commands

__all__ = ["TARGETS", "Target"]

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
_PART = b"\x00"  # separates the messages of one input; it does not occur in JSON


@dataclass(frozen=True)
class Target:
    """A function to fuzz, its seeds, and how many inputs a short run tries."""

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]
    tries: int


TARGETS: dict[str, Target] = {}


def target(
    first: Callable[[], Sequence[bytes]], *, tries: int = 1500
) -> Callable[[Callable[[bytes], None]], Callable[[bytes], None]]:
    """Make a function a target."""

    def register(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
        def run_quietly(data: bytes) -> None:
            with capture_logs(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                run(data)

        name = run.__name__.replace("_", "-")
        TARGETS[name] = Target(name, run_quietly, first, tries)
        return run

    return register


# -- the codec


def _commands(frame: bytes, max_bytes: int | None = None) -> list[Command]:
    return decode_commands(frame, received_at=NOW, new_id=lambda: "new-id", max_bytes=max_bytes)


def _round_trip(data: bytes, decode: Callable[[bytes], Sequence[Message]]) -> None:
    """A decoded frame is decoded as the same after encoding, unless it exceeds the frame limit then."""
    with contextlib.suppress(DecodeError):
        messages = decode(data)
        frame = encode(messages)
        if messages and len(frame) > LIMITS[CHANNEL_OF[type(messages[0])]].frame_bytes:
            return
        assert decode(frame) == messages
        assert [message for part in frames(messages) for message in decode(part)] == list(messages)


@target(lambda: [*seeds.frames("command"), *seeds.frames("foreign")])
def commands(data: bytes) -> None:
    _round_trip(data, _commands)


@target(lambda: seeds.frames("control"))
def controls(data: bytes) -> None:
    _round_trip(data, decode_controls)


@target(lambda: seeds.frames("ack"))
def acks(data: bytes) -> None:
    _round_trip(data, decode_acks)


@target(lambda: seeds.frames("feedback"))
def feedbacks(data: bytes) -> None:
    _round_trip(data, decode_feedbacks)


@target(lambda: seeds.frames("status"))
def status(data: bytes) -> None:
    with contextlib.suppress(DecodeError):
        said = decode_status(data)
        assert decode_status(encode_status(said)).agent == said.agent
        if len(encode([said])) <= len(data):
            assert decode_status(encode([said])) == said


@target(lambda: [b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\na=1,b@c=2"])
def trace_contexts(data: bytes) -> None:
    parent, _, state = data.decode("latin-1").partition("\n")
    context = TraceContext.read([("traceparent", parent), ("tracestate", state)])
    if context is not None:
        assert TraceContext.read(context.pairs()) == TraceContext.of_text(context.text) == context
        assert len(context.text) <= 55 + 1 + 512


@target(lambda: seeds.frames("blob-request"))
def blob_requests(data: bytes) -> None:
    _round_trip(data, decode_blob_requests)


@target(lambda: seeds.frames("blob-chunk"))
def blob_chunks(data: bytes) -> None:
    _round_trip(data, decode_blob_chunks)


@target(lambda: seeds.frames("foreign"))
def seed_forms(data: bytes) -> None:
    try:
        item = json.loads(data)
        json.dumps(item, ensure_ascii=False).encode()  # the codec refuses lone surrogates
    except (ValueError, RecursionError):
        return
    if isinstance(item, dict) and is_foreign_form(item):
        with contextlib.suppress(msgspec.ValidationError):
            assert read_foreign_form(item, NOW, lambda: "new-id").original == item


# -- received messages of both sides


class _Wire:
    """Records published messages."""

    def __init__(self) -> None:
        self.backlog = 0
        self.backlog_bytes = 0
        self.max_packet_bytes = MAX_PACKET_BYTES
        self.sent: list[tuple[str, bytes]] = []

    def max_payload_bytes(self, topic: str) -> int:
        return self.max_packet_bytes - 64

    filled_payload_bytes = max_payload_bytes

    def publish(self, topic: str, payload: bytes, retain: bool = False, trace: object = None) -> bool:
        self.sent.append((topic, payload))
        return True


def _intake_seeds() -> list[bytes]:
    marked = [(b"f", "feedback"), (b"s", "status"), (b"b", "blob-request")]
    said = [[mark + frame for frame in seeds.frames(prefix)] for mark, prefix in marked]
    return [*(one for several in said for one in several), *(_PART.join(several) for several in said)]


class _FilledLedger:
    """One ledger with two commands of an agent; `reset` restores that state."""

    def __init__(self) -> None:
        self.ledger = Ledger(open_database("sqlite://"), now=lambda: NOW)
        atexit.register(self.ledger.database.close)
        for number in range(2):
            self.ledger.add_command("web-01", CommandRequest("restart-agent", {"number": number}, Origin("me", "test")))
        with self.ledger._transaction() as connection:
            found = [(table, connection.execute(table.select()).mappings().all()) for table in METADATA.sorted_tables]
        self._rows = [(table, [dict(row) for row in rows]) for table, rows in found]

    def reset(self) -> Ledger:
        with self.ledger._transaction() as connection:
            for table, _ in reversed(self._rows):
                connection.execute(table.delete())
            for table, rows in self._rows:
                if rows:
                    connection.execute(table.insert(), rows)
        return self.ledger


_filled_ledger = cache(_FilledLedger)


@target(_intake_seeds, tries=80)
def server_intake(data: bytes) -> None:
    channels = {b"f": "feedback", b"s": "status", b"b": "blob-request"}
    ledger, wire = _filled_ledger().reset(), _Wire()
    server = Server(ledger, wire, Topics(), monotonic=TurnedClock().monotonic)
    server.step()
    for part in data.split(_PART):
        topic = f"acm/web-01/{channels.get(part[:1], 'feedback')}"
        server.receive([inbound_on(topic, part[1:])])
    server.connected()
    server.step()
    _check_sent_messages(wire)
    _check_shown_text(ledger)


def _check_sent_messages(wire: _Wire) -> None:
    decoders: dict[str, Callable[[bytes], Any]] = {
        "command": _commands,
        "control": decode_controls,
        "ack": decode_acks,
        "blob-chunk": decode_blob_chunks,
    }
    for topic, payload in wire.sent:
        decoders[topic.rpartition("/")[2]](payload)


def _check_shown_text(ledger: Ledger) -> None:
    fleet = LedgerFleet(ledger, Origin("me", "test"))
    agents = [agent for agent in fleet.agents(AgentFilter()).items if agent.status]
    completed = [command for command in fleet.commands(CommandFilter()).items if command.result]
    if agents or completed:
        with Path(os.devnull).open("w") as nowhere:
            console = Console(file=nowhere, width=10_000, record=True)
            for listing, rows in ((AGENTS, agents), (COMMANDS, completed)):
                console.print(list_table(listing.columns, rows, 10_000, headers=True))
                console.print(*plain_lines(listing.columns, rows, headers=True), markup=False)
            console.print(*map(command_panel, completed))
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(console.export_text())


@target(lambda: [*seeds.frames("command"), *seeds.frames("foreign")], tries=200)
def agent_intake(data: bytes) -> None:
    store, clock = MemoryCommandStore(), TurnedClock()
    reports = FeedbackFactory("web-01", "i1", store.store_generation)
    verifier, gaps = _verifier(clock, accept_unsigned=True), Gaps(store, reports, clock)
    receiver = CommandReceiver(store, reports, clock, verifier, NoTrust(), KeptRefusals(), gaps)
    said: list[EncodedFeedback] = []
    for mid, part in enumerate(data.split(_PART), start=1):
        said += receiver.receive([inbound(part, mid=mid)])
    clock.turn(1.0)
    said += gaps.take_due()
    for stored in all_commands(store):
        said.append(reports.result(stored.command, Result("Done.", stored.command.parameters), clock.now()))
    for frame in joined_frames([item.encoded for item in said], Channel.FEEDBACK):
        decode_feedbacks(frame)


@target(seeds.envelopes, tries=200)
def envelopes(data: bytes) -> None:
    """Messages to an enrolled agent, signed, forged or malformed, on each channel that must be signed."""
    for channel in (Channel.COMMAND, Channel.CONTROL, Channel.ACK):
        with contextlib.suppress(EnvelopeError, DecodeError):
            opened = _verifier(TurnedClock(), accept_unsigned=False).open(channel, data)
            assert opened.refusal is not None or opened.frame in seeds.SIGNED, "a changed frame was accepted"
            _commands(opened.frame)


def _verifier(clock: TurnedClock, *, accept_unsigned: bool) -> Verifier:
    return Verifier("web-01", seeds.FuzzedTrust(), TrustedClock(clock), accept_unsigned=accept_unsigned)


# -- files


def _new_directory() -> Path:
    return Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))


@contextlib.contextmanager
def _file(data: bytes) -> Iterator[Path]:
    directory = _new_directory()
    try:
        (directory / "file").write_bytes(data)
        (directory / "into").mkdir()
        yield directory / "file"
    finally:
        shutil.rmtree(directory)


@target(seeds.archives, tries=300)
def archives(data: bytes) -> None:
    limits = Limits(members=20, bytes=1 << 16)
    with _file(data) as file:
        into = file.with_name("into")
        is_archive(file)
        with contextlib.suppress(ArchiveError):
            made = unpack(file, into, limits)
            assert sorted(made) == sorted(path for path in into.rglob("*") if path.is_file())
        found = list(into.rglob("*"))
        assert not any(path.is_symlink() for path in found)
        assert sum(path.stat().st_size for path in found if path.is_file()) <= limits.bytes
        assert sorted(path.name for path in file.parent.iterdir()) == ["file", "into"]


@target(seeds.packages, tries=150)
def packages(data: bytes) -> None:
    with _file(data) as file:
        with contextlib.suppress(PackageError, MinisignError):
            verify_package(file, [PublicKey.parse(seeds.PUBLIC_KEY)])
        with contextlib.suppress(UpgradeError, ArchiveError):
            unpack_package(
                file, open_package(file, [seeds.PUBLIC_KEY]), file.with_name("into") / "release", Leftovers()
            )
        assert sorted(path.name for path in file.parent.iterdir()) == ["file", "into"]


_ALLOW_LIST = b"# why\nrestart0 - restart.cmd - 0\r\nrestart0 - restart - 0 # why\n!netsh - netsh - 0\n\nx - y\n"


@target(lambda: [_ALLOW_LIST, _ALLOW_LIST.decode().encode("utf-16")], tries=300)
def allow_lists(data: bytes) -> None:
    with _file(data) as file, contextlib.suppress(ActiveResponseError):
        loaded = AllowList.load(ActiveResponseConfig(str(file.parent), str(file)))
        assert all(line.isprintable() for line in loaded.refused)


_DOCUMENTS = (
    b"a: &a [*a, !b {c: 'd'}]\n? [e]\n: |\n  f\n---\n%TAG ! tag:g,2026:\n---\n- !!bool h\n- !!int ''\n",
    b"[a.b]\nc = [1, 0x2, 3e4, inf, 1979-05-27T07:32:00Z]\nd = {e = \"f\", g = '''h'''}\n[[i]]\n",
    b'// a\n{"b": [1, 2.5e3, true, null, "\\ud800",], /* c */ "d": {}}\n',
)


@target(
    lambda: [*_DOCUMENTS, seeds.DEEP, b"a: &a [x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n", b"- " * 2000, b"a.b" * 60 + b" = 1"]
)
def documents(data: bytes) -> None:
    """The files of a centralized configuration: their syntax, and how they are shown."""
    text = data.decode(errors="replace")
    for syntax in get_args(Syntax):
        with contextlib.suppress(ValueError):
            check_syntax(syntax, text)
    for suffix in (*DEFAULT_SYNTAX, ".conf"):
        with contextlib.suppress(ValueError):
            mask_text(f"file{suffix}", text).encode()


@target(lambda: [seeds.manifest(), seeds.DEEP])
def manifests(data: bytes) -> None:
    with contextlib.suppress(PackageError):
        parse_manifest(data)


@target(lambda: [seeds.signature(b"message"), seeds.PUBLIC_KEY.encode()])
def minisign(data: bytes) -> None:
    text = data.decode(errors="replace")
    with contextlib.suppress(MinisignError):
        verify_signature(b"message", text, [PublicKey.parse(seeds.PUBLIC_KEY)])
    with contextlib.suppress(MinisignError):
        verify_signature(b"message", seeds.signature(b"message").decode(), [PublicKey.parse(text)])


# -- other parsers


def _keys_line(*keys: str) -> bytes:
    said = {"version": 1, "origin": {"name": "block", "module": "active-response"}, "command": "check_keys"}
    return json.dumps({**said, "parameters": {"keys": keys}}).encode() + b"\n"


@target(lambda: [_keys_line("203.0.113.7"), _keys_line("a", "b"), seeds.DEEP])
def dialogue(data: bytes) -> None:
    assert all(key and key.isprintable() for key in read_keys(data) or ())


@target(lambda: [b"192.0.2.1-192.0.2.20", b"[2001:db8::1%eth0]:443", b"http://u@192.0.2/24#1", b"010.*", b"1-9.2."])
def address_notations(data: bytes) -> None:
    for word in words(data.decode(errors="replace")):
        networks(word, lambda _: ())


@target(
    lambda: [b"password: |\n  x\nsecret {\n a\n}\n", b"<a name='token'>x</a>", b"-u a:b\npsk 'x' <<E\nE\n"], tries=500
)
def masking(data: bytes) -> None:
    mask_text("a.conf", data.decode(errors="replace"))


@target(lambda: [f"acm1.{'a' * 43}.{'0' * 64}".encode()])
def tokens(data: bytes) -> None:
    with contextlib.suppress(InvalidToken):
        text = data.decode(errors="replace")
        assert EnrolmentToken.parse(text).text == text.strip()


_ANSWERS = [b"\x20\x03\x00\x00\x00", b"\x40\x03\x00\x01\x87", b"\x31\x06\x00\x03a/b\x00", b"\x90\x04\x00\x02\x00\x01"]


@target(lambda: [b"".join(_ANSWERS) + b"\xd0\x00", _ANSWERS[0] + b"\xe0\x01\x8b", b"\x20\xff\xff\xff\x7f"])
def broker_answers(data: bytes) -> None:
    near, far = socket.socketpair()
    with near, far, contextlib.suppress(ClosedByBroker):
        far.sendall(data[: 1 << 14])
        far.shutdown(socket.SHUT_WR)
        probe = Probe(near)
        if probe.connect("_doctor") == 0:
            probe.publish("acm/a/status")
            probe.subscribe(["acm/#"])


class _EnrolmentServer:
    """The HTTP application with its own authority and ledger."""

    def __init__(self) -> None:
        directory = _new_directory()
        atexit.register(shutil.rmtree, directory)
        clock = TurnedClock()
        backend = EnrolmentBackend.create(directory, clock.now)
        atexit.register(backend.database.close)
        create_signing_keys(directory / "signing", clock.now())
        terms = EnrolmentPolicy("mqtts://broker", "acm", timedelta(days=30), "acm-server")
        service = EnrolmentService(
            backend.authority,
            SigningKeyStore(directory / "signing"),
            backend.enrolments,
            terms,
            lambda serial: False,
        )
        self._app = enrolment_app(service)
        self.agent = EnrollingAgent("web-01")
        self.enroll = self.agent.enroll(backend.token().text)
        self.granted = service.enroll(self.enroll)
        self.renew = self.agent.renew(self.granted.certificate, self.agent.key)

    def request(self, path: str, body: bytes) -> int:
        """Return the status of the response. Raises what the application raises."""
        sent: list[Any] = []
        scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b"", "client": None}

        async def receive() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(self._app(scope, receive, send))
        return int(sent[0]["status"])


@cache
def _enrolment_server() -> _EnrolmentServer:
    return _EnrolmentServer()


def _bodies() -> list[bytes]:
    server = _enrolment_server()
    strange = {
        "csr": _of_another_version(server.enroll.csr),
        "certificate": _of_another_version(server.renew.certificate),
    }
    asked = [asdict(server.enroll), asdict(server.renew), {**asdict(server.enroll), "csr": strange["csr"]}]
    return [json.dumps(members).encode() for members in (*asked, {**asdict(server.renew), **strange})]


def _of_another_version(pem: str) -> str:
    """Return a certificate or a request with an unknown version, which is its first integer."""
    first, *lines, last = pem.strip().splitlines()
    head, integer, rest = base64.b64decode("".join(lines)).partition(b"\x02\x01")
    return "\n".join([first, base64.b64encode(head + integer + b"\x12" + rest[1:]).decode(), last, ""])


@target(_bodies, tries=60)
def enrolment_bodies(data: bytes) -> None:
    for path in (ENROLL_PATH, RENEW_PATH):
        assert _enrolment_server().request(path, data) in (200, 400, 403, 409, 413)


class _Enrolling:
    """A client of an enrolment server, and its key."""

    client = EnrolmentClient("https://server", TurnedClock(), 1e9, threading.Event())
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))


@target(seeds.enrolment_answers, tries=600)
def enrolment_answers(data: bytes) -> None:
    with contextlib.suppress(EnrolmentError):
        answer = _Enrolling.client._decode(200, data, EnrollResponse)
        request = CertificateRequest("https://server", "web-01", _Enrolling.key, "hash")
        validate_response(answer, request, TurnedClock().now())
    with contextlib.suppress(EnrolmentError):
        _Enrolling.client._decode(403, data, ErrorResponse)
