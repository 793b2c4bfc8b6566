"""Turns a token into an enrolment on the disk, in steps that can be repeated after a crash."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from broker.contract.enrolment_token import EnrolmentToken, InvalidToken
from consumer.enrolment.client import EnrolmentClient
from consumer.enrolment.store import AttemptState, Enrolment, EnrolmentDirectory
from consumer.enrolment.trial import EnrolmentTrial
from consumer.errors import EnrolmentError, StateDirectoryInUse, StoreError
from consumer.ports import Clock
from consumer.store.state_directory import make_private, refuse_other_agent, take_lock, usable

__all__ = [
    "enroll_by_hand",
    "obtain",
    "parse_token",
]


def parse_token(text: str) -> EnrolmentToken:
    """Return the token; raises EnrolmentError, whose message does not contain it."""
    try:
        return EnrolmentToken.parse(text)
    except InvalidToken as error:
        raise EnrolmentError(str(error), code="invalid_token") from error


def obtain(
    enrolments: EnrolmentDirectory,
    client: EnrolmentClient,
    token: EnrolmentToken,
    agent: str,
    *,
    on_key: Callable[[], None],
) -> Enrolment:
    """Return the enrolment that this server grants for this token; the same one each time.

    The key is durable before the token is used; `on_key` is called in between. Raises EnrolmentError.
    """
    known = enrolments.granted_for(token.secret_hash, client.server, client.clock.now())
    if known is not None:
        return known
    key = enrolments.key_for(token.secret_hash)
    on_key()
    return enrolments.add(client.enroll(token, agent, key), key)


def enroll_by_hand(
    state: Path, server: str, token: EnrolmentToken, agent: str, clock: Clock, deadline: float
) -> Enrolment:
    """Enroll the agent of a state directory and return its enrolment; does nothing if it already has this one.

    If it has another, the new one must first carry a result. Raises EnrolmentError, or StoreError if the directory
    cannot be used or an agent is using it.
    """
    enrolments, client = EnrolmentDirectory(state), EnrolmentClient(server, clock, deadline, threading.Event())
    before = enrolments.current()
    if before is not None and before == enrolments.granted_for(token.secret_hash, client.server, clock.now()):
        return before
    with _locked(state, agent):
        enrolment = obtain(enrolments, client, token, agent, on_key=lambda: None)
        if before is not None and before != enrolment:
            _try_out(enrolments, enrolment, clock, deadline)
        _end_attempt(enrolments)
        enrolments.make_current(enrolment.directory.name)
        enrolments.keep_only(enrolment.directory.name)
    return enrolment


@contextmanager
def _locked(state: Path, agent: str) -> Iterator[None]:
    try:
        make_private(state)
        lock = take_lock(state / "lock")
    except StateDirectoryInUse as error:
        raise StateDirectoryInUse(
            f"The agent of {state} is running: stop it first, or send it the command enroll-agent."
        ) from error
    except OSError as error:
        raise StoreError(
            f"The state directory {state} cannot be used: {error.strerror}.", code="state_directory_unusable"
        ) from error
    try:
        with usable(state):
            refuse_other_agent(state, agent)
        yield
    finally:
        os.close(lock)


def _try_out(enrolments: EnrolmentDirectory, enrolment: Enrolment, clock: Clock, deadline: float) -> None:
    try:
        unsigned = not enrolment.grant.signing_keys
        EnrolmentTrial(enrolment, "enrolment", "enrolment", clock, unsigned).run(deadline, threading.Event())
    except EnrolmentError as error:
        enrolments.remove(enrolment.directory.name)
        raise EnrolmentError(f"{error} The agent keeps its previous enrolment.", code=error.code) from error


def _end_attempt(enrolments: EnrolmentDirectory) -> None:
    """Keep an unfinished command from changing the enrolment later."""
    attempt = enrolments.attempt()
    if attempt is not None and attempt.state is not AttemptState.COMMITTED:
        enrolments.record(replace(attempt, state=AttemptState.ROLLED_BACK, reason="Another enrolment replaced it."))
