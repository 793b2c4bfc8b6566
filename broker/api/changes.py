"""Requests that change something: done once for each Idempotency-Key, and in the audit log."""

import hashlib
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from fastapi import Header
from starlette.requests import Request
from starlette.responses import Response

from broker.access.answers import AnsweredBefore, AnswerStore, RememberedAnswer
from broker.access.audit_log import AuditLog
from broker.access.grants import Credential
from broker.contract.messages import Origin
from broker.fleet.models import Sent
from broker.fleet.on_ledger import LedgerFleet
from broker.fleet.reports_on_ledger import LedgerReports
from broker.fleet.traced_sending import traced_by
from broker.ledger.also import Also, nothing_else
from broker.ledger.ledger import Ledger
from broker.tracing.port import Tracer

__all__ = [
    "ORIGIN_MODULE",
    "IdempotencyKey",
    "Requests",
    "Wanted",
]


ORIGIN_MODULE = "api"
_LONGEST_TARGET = 1000
IdempotencyKey = Annotated[
    str | None,
    Header(
        description="Any text that is new for each request, such as a UUID. For a day, a request with the same key and "
        "body does nothing, and gets the same answer, with `Idempotent-Replayed: true`.",
        min_length=1,
        max_length=255,
        pattern=r"^[!-~]+$",
        examples=["0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f"],
    ),
]


class Wanted:
    """A request that changes something: what it does, on which target, and its Idempotency-Key."""

    def __init__(
        self, request: Request, credential: Credential, key: str | None, action: str, target: str, body: bytes = b""
    ) -> None:
        self.credential, self.key, self.action, self.target = credential, key, action, target[:_LONGEST_TARGET]
        # Credentials of one name may be for other groups, and must not get one another's answers.
        groups = credential.principal.groups
        within = [] if groups is None else [msgspec.json.encode(sorted(groups))]
        whole = b"\n".join([request.method.encode(), request.url.path.encode(), body, *within])
        self.hash = hashlib.sha256(whole).hexdigest()


class Requests:
    """Does what requests ask for, as their principals may."""

    def __init__(self, ledger: Ledger, answers: AnswerStore, audit_log: AuditLog, tracer: Tracer | None = None) -> None:
        self._ledger = ledger
        self._creating = traced_by(tracer)
        self._answers = answers
        self._audit_log = audit_log

    def fleet(self, credential: Credential, also: Also[Any] = nothing_else) -> LedgerFleet:
        """Return the fleet as a principal sees it; without `also`, for requests that only read."""
        origin = Origin(credential.principal.name, ORIGIN_MODULE)  # its name as the server knows it
        return LedgerFleet(self._ledger, origin, credential.principal.groups, also, creating=self._creating)

    def reports(self, credential: Credential) -> LedgerReports:
        """Return the reports on the fleet as a principal sees it."""
        return LedgerReports(self._ledger, credential.principal.groups)

    def change(self, wanted: Wanted, call: Callable[[LedgerFleet], Any], status: int = 200) -> Response:
        """Change something in the fleet, as `once` does."""
        return self.once(wanted, lambda also: call(self.fleet(wanted.credential, also)), status)

    def once(self, wanted: Wanted, call: Callable[[Also[Any]], Any], status: int = 200) -> Response:
        """Do it and answer with this status, or return the answer to an earlier request with its key.

        `call` gets what it must call with its answer in the transaction that changes anything. What was done, the entry
        in the audit log and the remembered answer are one commit. An error is not remembered: nothing was done. Raises
        what `call` does, and KeyReused.
        """  # design.md: "An answer is remembered by the commit that it is about"
        earlier = self._earlier(wanted)
        if earlier is not None:
            return earlier

        def also(connection: Any, answer: object) -> None:
            self._audit_log.add(connection, wanted.credential, wanted.action, wanted.target, _subject(answer))
            if wanted.key is not None:
                remembered = RememberedAnswer(status, msgspec.json.encode(answer))
                self._answers.keep(connection, wanted.credential.principal.name, wanted.key, wanted.hash, remembered)

        try:
            answer = call(also)
        except AnsweredBefore:
            earlier = self._earlier(wanted)
            assert earlier is not None
            return earlier
        return _response(msgspec.json.encode(answer), status)

    def logged(self, who: Credential, action: str, target: str) -> Also[object]:
        """Return what writes an entry in the audit log, for a change whose repeat changes nothing anyway."""
        return lambda connection, _: self._audit_log.add(connection, who, action, target, target)

    def _earlier(self, wanted: Wanted) -> Response | None:
        if wanted.key is None:
            return None
        found = self._answers.find(wanted.credential.principal.name, wanted.key, wanted.hash)
        if found is None:
            return None
        return _response(found.body, found.status, {"Idempotent-Replayed": "true"})


def _subject(answer: object) -> str:
    """Return the id of what came of a change, or its name; empty if it has neither, or is several things."""
    if isinstance(answer, Sent):
        sent = answer.command or answer.operation
        return sent.id if sent else ""
    return str(getattr(answer, "id", getattr(answer, "name", "")))


def _response(body: bytes, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, headers, media_type="application/json")
