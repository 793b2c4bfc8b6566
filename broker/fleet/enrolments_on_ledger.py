"""Enrolment tokens and enrolments on a ledger, as a principal may see and change them."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from broker.enrolment.enrolment_states import EnrolmentState
from broker.enrolment.records import EnrolmentRecord, find_enrolment, page_of_enrolments
from broker.enrolment.store import EnrolmentStore, UnknownEnrolment
from broker.enrolment.tokens import TokenRecord, TokenState, TokenStore, new_enrolment_token
from broker.errors import InvalidArgument
from broker.fleet.enrolment_models import (
    CreatedEnrolmentToken,
    EnrolmentTokenRequest,
    EnrolmentTokenView,
    EnrolmentView,
    RevocationRequest,
    RevokedEnrolments,
)
from broker.fleet.models import MAX_PAGE, PageOf
from broker.fleet.targets import UnknownAgent
from broker.ledger.also import Also, nothing_else
from broker.ledger.database import Database
from broker.ledger.groups import GroupStore
from broker.pki.revocation_list import RevocationReason

__all__ = [
    "LedgerEnrolments",
    "view_of_enrolment",
    "view_of_enrolment_token",
]


class LedgerEnrolments:
    """The enrolment tokens and enrolments of all agents, or of those in one of `groups`.

    `also` writes, in the same transaction, what belongs to the answer of a method that changes anything; it is given
    that answer. Every method raises LedgerError if the database fails.
    """

    def __init__(
        self,
        database: Database,
        *,
        now: Callable[[], datetime],
        groups: frozenset[str] | None = None,
        also: Also[Any] = nothing_else,
    ) -> None:
        self._tokens, self._enrolments = TokenStore(database, now=now), EnrolmentStore(database, now=now)
        self._reading, self._members = database.reading, GroupStore(database, now)
        self._now = now
        self._groups = groups
        self._also = also

    def tokens(
        self,
        *,
        agent: str | None = None,
        state: TokenState | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> PageOf[EnrolmentTokenView]:
        """Return a page of tokens, newest first. Raises InvalidArgument for a cursor."""
        rows, end = self._tokens.page(cursor, min(limit, MAX_PAGE), agent, self._groups)
        return PageOf(tuple(view_of_enrolment_token(row) for row in rows if state in (None, row.state)), end)

    def create_token(
        self, request: EnrolmentTokenRequest, *, fingerprint: str, name_of_server: str, server: str
    ) -> CreatedEnrolmentToken:
        """Let one agent enroll, once, with the authority that has this fingerprint.

        No agent may have the name of the server. With groups, only an agent that is in one of them: raises UnknownAgent
        for others. Raises InvalidName and InvalidArgument.
        """
        _refuse_name_of_server(request.agent, name_of_server)
        self._require_visible(request.agent)
        token = new_enrolment_token(fingerprint)
        made: list[CreatedEnrolmentToken] = []

        def also(connection: Any, row: TokenRecord) -> None:
            made.append(CreatedEnrolmentToken(**vars(view_of_enrolment_token(row)), token=token.text, server=server))
            self._also(connection, made[-1])

        self._tokens.add(request.agent, token, timedelta(seconds=request.ttl_s), also)
        return made[-1]

    def revoke_token(self, token_id: str) -> EnrolmentTokenView:
        """Revoke a token that was not used. Raises UnknownToken for any other."""

        def also(connection: Any, row: TokenRecord) -> None:
            self._also(connection, view_of_enrolment_token(row))

        return view_of_enrolment_token(self._tokens.revoke(token_id, self._groups, also))

    def enrolments(
        self,
        *,
        agent: str | None = None,
        state: EnrolmentState | None = None,
        cursor: str | None = None,
        limit: int = 100,
    ) -> PageOf[EnrolmentView]:
        """Return a page of enrolments, newest first. Raises InvalidArgument for a cursor."""
        with self._reading() as connection:
            rows, end = page_of_enrolments(connection, cursor, min(limit, MAX_PAGE), agent, self._groups)
        views = map(self._view, rows)
        return PageOf(tuple(it for it in views if state in (None, it.state)), end)

    def enrolment(self, enrolment_id: str) -> EnrolmentView:
        """Return one enrolment. Raises UnknownEnrolment."""
        with self._reading() as connection:
            row = find_enrolment(connection, enrolment_id, self._groups)
        if row is None:
            raise UnknownEnrolment(f"No enrolment has the id {enrolment_id[:80]!r}; `acm enrolment list` shows all.")
        return self._view(row)

    def revoke_enrolment(self, enrolment_id: str, request: RevocationRequest) -> EnrolmentView:
        """Revoke an enrolment; one that is revoked stays as it is. Raises UnknownEnrolment.

        The revocation list is not written: that is up to the caller, who has the authority.
        """
        self.enrolment(enrolment_id)
        row = self._enrolments.revoke_enrolment(
            enrolment_id,
            RevocationReason(request.reason),
            lambda connection, it: self._also(connection, self._view(it)),
        )
        return self._view(row)

    def revoke_agent(self, agent: str, request: RevocationRequest) -> RevokedEnrolments:
        """Revoke all enrolments and unused tokens of an agent. Raises UnknownEnrolment if it has had none.

        The revocation list is not written, as with `revoke_enrolment`.
        """
        self._require_visible(agent)

        def revoked(rows: list[EnrolmentRecord]) -> RevokedEnrolments:
            return RevokedEnrolments(tuple(map(self._view, rows)))

        rows = self._enrolments.revoke_agent(
            agent, RevocationReason(request.reason), lambda connection, it: self._also(connection, revoked(it))
        )
        return revoked(rows)

    def _require_visible(self, agent: str) -> None:
        if self._groups is not None and not any(agent in self._members.members(group) for group in self._groups):
            raise UnknownAgent(f"Unknown agent {agent[:80]!r}; `acm agents` lists the known ones.")

    def _view(self, row: EnrolmentRecord) -> EnrolmentView:
        return view_of_enrolment(row, self._now())


def view_of_enrolment(row: EnrolmentRecord, now: datetime) -> EnrolmentView:
    """Return an enrolment as operators see it."""
    state = EnrolmentState.of(row.not_after if row.revoked_at is None else None, now)
    return EnrolmentView(**vars(row), state=state)


def view_of_enrolment_token(row: TokenRecord) -> EnrolmentTokenView:
    """Return a token as operators see it."""
    return EnrolmentTokenView(**vars(row))


def _refuse_name_of_server(agent: str, name_of_server: str) -> None:
    """Raise InvalidArgument if an agent would have the client id of the server."""
    if agent == name_of_server:
        raise InvalidArgument(
            f"{agent!r} is the client id of the server: an agent needs another name.", code="name_of_server"
        )
