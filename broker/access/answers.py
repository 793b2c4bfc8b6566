"""Answers to requests with an Idempotency-Key, so that a repeated request does nothing and gets the same answer."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from broker.access.sealing import hash_of_key, opened_answer, sealed_answer
from broker.access.tables import ANSWERS
from broker.errors import BrokerError
from broker.ledger.database import Database
from broker.ledger.ids import new_id
from broker.ledger.insert import insert_missing

__all__ = [
    "REMEMBERED_FOR",
    "AnswerStore",
    "AnsweredBefore",
    "KeyReused",
    "RememberedAnswer",
]


REMEMBERED_FOR = timedelta(days=1)


class KeyReused(BrokerError):
    """The Idempotency-Key was used before, for another request."""

    code = "idempotency_key_reused"


class AnsweredBefore(BrokerError):
    """Another request with the same Idempotency-Key was answered meanwhile; what this one has done is rolled back."""

    code = "answered_before"


@dataclass(frozen=True)
class RememberedAnswer:
    """The status and the body (JSON) of the answer to the first request with its key."""

    status: int
    body: bytes


class AnswerStore:
    """The answers of the last day, in the ledger's database. Raises LedgerError if that fails.

    An answer is sealed with the key of its request, of which the database has only a hash.
    """  # design.md: "An answer is sealed with the key of its request"

    def __init__(self, database: Database, *, now: Callable[[], datetime]) -> None:
        self._reading = database.reading
        self._now = now

    def find(self, principal: str, key: str, request_hash: str) -> RememberedAnswer | None:
        """Return the answer to the first request with this key, or None. Raises KeyReused."""
        query = ANSWERS.select().where(ANSWERS.c.principal == principal, ANSWERS.c.key == hash_of_key(key))
        with self._reading() as connection:
            row = connection.execute(query.where(ANSWERS.c.created_at >= self._oldest())).one_or_none()
        if row is None:
            return None
        if row.request_hash != request_hash:
            raise KeyReused("The Idempotency-Key was used for another request: use a new one for each.")
        return RememberedAnswer(row.status, opened_answer(key, row.body))

    def keep(
        self, connection: sa.Connection, principal: str, key: str, request_hash: str, answer: RememberedAnswer
    ) -> None:
        """Within the transaction of the request, remember its answer. Raises AnsweredBefore if there is one."""
        connection.execute(ANSWERS.delete().where(ANSWERS.c.created_at < self._oldest()))
        own, hashed = new_id(), hash_of_key(key)
        row = {
            "principal": principal,
            "key": hashed,
            "id": own,
            "request_hash": request_hash,
            "status": answer.status,
            "body": sealed_answer(key, answer.body),
            "created_at": self._now().timestamp(),
        }
        insert_missing(connection, ANSWERS, [row])
        of_key = sa.select(ANSWERS.c.id).where(ANSWERS.c.principal == principal, ANSWERS.c.key == hashed)
        if connection.scalar(of_key) != own:
            raise AnsweredBefore("Another request with this Idempotency-Key was answered meanwhile.")

    def _oldest(self) -> float:
        return (self._now() - REMEMBERED_FOR).timestamp()
