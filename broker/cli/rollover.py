"""acm ca rollover: replaces the authority by a successor, without touching each agent."""

import time
from pathlib import Path
from typing import Annotated

import typer

from broker.app.broker_directory import write_trusted
from broker.app.credentials import open_revocation_file, server_certificate_files
from broker.app.factories import utc_now
from broker.cli.session import CA_DIR, CRL, LEDGER, Session, with_session
from broker.console.output import print_text
from broker.contract.messages import JsonObject
from broker.enrolment.mqtt_takeover import TakeoverError, TakeoverRefused
from broker.enrolment.rollover import RolloverProgress, announce_authorities, rollover_progress
from broker.enrolment.successor_probe import check_successor
from broker.errors import BrokerError
from broker.ledger.operations import Operation
from broker.mqtt.address import BrokerAddress, parse_url
from broker.pki.server_certificates import ServerCertificates
from broker.text import counted, some_of

__all__ = [
    "NoRollover",
    "RolloverUnfinished",
    "app",
]


_NO_ROLLOVER = "No rollover is in progress: `acm ca rollover begin` begins one."
_BROKER_TIMEOUT_S = 20.0
_POLL_INTERVAL_S = 0.5
app = typer.Typer(no_args_is_help=True)


class NoRollover(BrokerError):
    """There is no rollover to finish."""

    code = "no_rollover"


class RolloverUnfinished(BrokerError):
    """Agents, or the broker, would not accept the successor alone."""

    code = "rollover_unfinished"


@app.command(epilog="Example: acm ca rollover begin --config /var/lib/acm/broker/server.toml")
@with_session(CA_DIR, CRL, LEDGER)
def begin(session: Session) -> None:
    """Create the authority's successor, and let the broker, the servers and the agents trust both.

    From then on renewals come from the successor, as soon as the broker accepts its certificates. If that was
    interrupted, repeat it.
    """
    authority = session.authority
    is_new = authority.begin_rollover()
    _write_revocation_list(session)
    _write_trusted(session, authority.trusted)
    operation = announce_authorities(
        session.ledger, session.enrolment_store.enrolled_agents(), authority.trusted, session.origin
    )
    session.show(
        {**_progress_json(session, _progress(session)), **_operation_json(operation)},
        f"{'The successor is created' if is_new else 'There was a successor already'}, and trusted beside the "
        f"authority. {_operation_text(operation)}\n"
        "Agents move to it with the next renewal of their certificates: see `acm ca rollover status`.",
    )


@app.command(epilog="Example: acm ca rollover status --json")
@with_session(CA_DIR, LEDGER, only_reads=True)
def status(session: Session) -> None:
    """Show which agents have not moved to the successor yet."""
    progress = _progress(session)
    session.show(_progress_json(session, progress), _progress_text(session, progress))


@app.command(epilog="Example: acm ca rollover finish --config /var/lib/acm/broker/server.toml")
@with_session(CA_DIR, CRL, LEDGER)
def finish(
    session: Session,
    leave_behind: Annotated[
        bool,
        typer.Option(
            "--leave-agents-behind", help="Finish even if agents have not moved: they must be enrolled again."
        ),
    ] = False,
) -> None:
    """Let the successor take the authority's place; the old one is trusted no more, and its key is deleted.

    Renews the certificates of the broker and the servers by the successor first. If that was interrupted, repeat it.
    """
    authority = session.authority
    if authority.successor is None and not authority.is_half_promoted:
        raise NoRollover(_NO_ROLLOVER)
    operation = None
    if authority.successor is not None:
        operation = _hand_over(session, authority.successor, leave_behind=leave_behind)
        authority.promote_successor()
    _write_revocation_list(session)
    authority.finish_rollover()  # last: what was interrupted before is repeated
    session.show(
        {"fingerprint": authority.fingerprint, **_operation_json(operation)},
        f"The successor is the authority now. {_operation_text(operation)}\nKeep a copy of {session.config.ca} in a "
        "safe place; tokens that were created before are not valid any more.",
    )


def _hand_over(session: Session, successor: str, *, leave_behind: bool) -> Operation | None:
    """Let the broker, the servers and the agents use and trust the successor alone; each step can be repeated."""
    authority, progress = session.authority, _progress(session)
    if progress.not_moved and not leave_behind:
        raise RolloverUnfinished(
            f"{counted(len(progress.not_moved), 'agent has', 'agents have')} not moved to the successor: "
            f"{some_of(progress.not_moved)}. Wait for the renewal of their certificates, revoke those that will not "
            "come back, or use --leave-agents-behind.",
            code="agents_not_moved",
        )
    ServerCertificates(server_certificate_files(session.config), authority, now=utc_now).renew_by_successor()
    _await_broker(session)
    _write_trusted(session, successor, former=authority.certificate)
    return announce_authorities(session.ledger, progress.moved, successor, session.origin)


def _write_revocation_list(session: Session) -> None:
    open_revocation_file(session.config, session.authority, session.enrolment_store).write()


def _write_trusted(session: Session, trusted: str, former: str = "") -> None:
    """Write the authorities that the broker and the servers trust, where `acm broker config` has put them."""
    path = session.config.broker_ca
    if path is None or not write_trusted(Path(path), trusted, former):
        print_text(
            "acm: let the broker and the servers trust these authorities, and reload the broker "
            f"({path or 'broker_ca'} is not the file that has them):\n{trusted}",
            to_stderr=True,
        )


def _await_broker(session: Session) -> None:
    """Wait until the broker presents a certificate of the successor, and accepts one; raises RolloverUnfinished."""
    url = session.config.enroll_broker
    address = parse_url(url) if url else None
    deadline = time.monotonic() + _BROKER_TIMEOUT_S
    while address is not None and address.tls:
        problem = _broker_problem(session, address)
        if problem is None:
            return
        if time.monotonic() >= deadline:
            raise RolloverUnfinished(
                f"The broker does not use a certificate of the successor yet: {problem} Give it one, make it reload "
                "(Mosquitto: SIGHUP), and repeat the command.",
                code="broker_not_moved",
            )
        time.sleep(_POLL_INTERVAL_S)


def _broker_problem(session: Session, address: BrokerAddress) -> str | None:
    try:
        check_successor(session.authority, address, session.authority.successor or "")
    except (TakeoverError, TakeoverRefused) as error:
        return str(error)
    return None


def _progress(session: Session) -> RolloverProgress:
    return rollover_progress(session.enrolment_store, session.authority, utc_now(), session.config.grace_after_expiry)


def _progress_json(session: Session, progress: RolloverProgress) -> JsonObject:
    return {
        "in_progress": session.authority.successor is not None,
        "fingerprint": session.authority.fingerprint,
        "trusted": session.authority.trusted,
        "moved": list(progress.moved),
        "not_moved": list(progress.not_moved),
    }


def _progress_text(session: Session, progress: RolloverProgress) -> str:
    if session.authority.is_half_promoted:
        return "The rollover was interrupted at its end. Next: acm ca rollover finish"
    if session.authority.successor is None:
        return _NO_ROLLOVER
    total = len(progress.moved) + len(progress.not_moved)
    text = f"{len(progress.moved)} of {counted(total, 'agent')} have moved to the successor."
    if progress.not_moved:
        return f"{text} Not moved: {', '.join(progress.not_moved)}."
    return f"{text} Next: acm ca rollover finish"


def _operation_json(operation: Operation | None) -> JsonObject:
    return {"operation": operation.id if operation else None}


def _operation_text(operation: Operation | None) -> str:
    if operation is None:
        return "No agents are enrolled."
    return f"{counted(operation.size, 'agent')} get a command for that: acm operation show {operation.id}"
