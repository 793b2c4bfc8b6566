"""What a simulated agent reads and writes: commands and acks decoded as far as it needs them, feedback as bytes."""

import hashlib
from base64 import b64decode
from datetime import UTC, datetime

import msgspec

__all__ = ["Ack", "Arrived", "Identity", "Report", "acks_in", "commands_in", "no_op", "requests_in"]


class Number(msgspec.Struct):
    epoch: int
    number: int


class Arrived(msgspec.Struct):
    """A command; `raw` is its JSON."""

    id: str
    created_at: datetime
    sequence: Number
    raw: bytes = b""


class Ack(msgspec.Struct):
    command_id: str


class Report(msgspec.Struct):
    action: str
    command_id: str


class _Envelope(msgspec.Struct):
    payload: str = ""


class _Body(msgspec.Struct):
    messages: msgspec.Raw


_NO_OP = (
    b'{"id":"%s","type":"no-op","parameters":{},"origin":{"name":"bench","module":"benchmarks"},'
    b'"created_at":"2026-01-01T00:00:00Z"}'
)
_ENVELOPE = msgspec.json.Decoder(_Envelope)
_BODY = msgspec.json.Decoder(_Body)
_RAWS = msgspec.json.Decoder(list[msgspec.Raw])
_COMMAND = msgspec.json.Decoder(Arrived)
_ACKS = msgspec.json.Decoder(list[Ack])
_REPORTS = msgspec.json.Decoder(list[Report])


def commands_in(payload: bytes) -> list[Arrived]:
    """Return the commands of a frame, which may be signed; the signature is not verified."""
    found = []
    for raw in _RAWS.decode(_listed(payload)):
        command = _COMMAND.decode(raw)
        command.raw = bytes(raw)
        found.append(command)
    return found


def no_op(command_id: str, epoch: int, number: int) -> Arrived:
    """Return a command as it would have arrived now."""
    return Arrived(command_id, datetime.now(UTC), Number(epoch, number), _NO_OP % command_id.encode())


def acks_in(payload: bytes) -> list[Ack]:
    """Return the acks of a frame."""
    return _ACKS.decode(_listed(payload))


def requests_in(payload: bytes) -> list[Report]:
    """Return the controls of a frame."""
    return _REPORTS.decode(_listed(payload))


def _listed(payload: bytes) -> bytes:
    if payload.startswith(b'{"payload"'):
        payload = bytes(_BODY.decode(b64decode(_ENVELOPE.decode(payload).payload)).messages)
    return payload if payload.startswith(b"[") else b"[" + payload + b"]"


class Identity:
    """The constant parts of what one agent says. `enrolment` is its id and the version of the keys that it trusts."""

    def __init__(self, name: str, enrolment: tuple[str, int] | None) -> None:
        self.name = name
        self._unsigned = b"" if enrolment else b',"accepts_unsigned":true'
        about = f'"agent":"{name}","store_generation":"g-{name}","incarnation":"i-{name}"'
        self._result = f'{{"kind":"result",{about},"status":"completed","message":"Done.","command_id":"'.encode()
        self._gap = f'{{"kind":"gap",{about},"status":"pending","message":"Send again.","expected":'.encode()
        self._status = f'{about},"boot_id":"b","version":"0.1.0","supported_types":["no-op"]'
        if enrolment:
            self._status += f',"enrolment_id":"{enrolment[0]}","signing_keys_version":{enrolment[1]}'
        else:
            self._status += ',"accepts_unsigned":true'

    def result(self, command: Arrived) -> bytes:
        """Return the result of a command, with its echo, as long as that of a real agent."""
        echo = command.raw[:-1] + b',"status":"processing"}'
        sequence = b'{"epoch":%d,"number":%d}' % (command.sequence.epoch, command.sequence.number)
        return self._ended(command.id, b'"command":' + echo + b',"sequence":' + sequence + b",")

    def plain_result(self, command_id: str) -> bytes:
        """Return the result of a command that this agent has deleted."""
        return self._ended(command_id, b"")

    def _ended(self, command_id: str, about: bytes) -> bytes:
        name = command_id.encode()
        now = datetime.now(UTC).isoformat().encode()
        digest = hashlib.sha256(name).hexdigest().encode()
        ended = b'",' + about + b'"outcome":"success","started_at":"' + now + b'","finished_at":"' + now
        return self._result + name + ended + b'","digest":"' + digest + b'"' + self._unsigned + b"}"

    def gap(self, expected: int, epoch: int, number: int) -> bytes:
        """Return the report that a number came too early."""
        sequence = b',"sequence":{"epoch":%d,"number":%d}' % (epoch, number)
        return self._gap + b"%d" % expected + sequence + self._unsigned + b"}"

    def status(self, *, online: bool, order: tuple[int, int], last: Number, waiting: int, answers: str | None) -> bytes:
        """Return the status; `order` is the attempt to connect and the number of the status."""
        numbers = f',"last_sequence":{last.number},"results_waiting":{waiting},"order":[1,{order[0]},{order[1]}]'
        if last.epoch:
            numbers += f',"epoch":{last.epoch}'
        if answers:
            numbers += f',"answers":"{answers}"'
        is_online = "true" if online else "false"
        at = datetime.now(UTC).isoformat()
        return f'{{{self._status},"online":{is_online}{numbers},"updated_at":"{at}"}}'.encode()
