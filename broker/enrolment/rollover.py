"""The progress of a rollover: which agents have a certificate of the authority's successor, and which have none yet."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from broker.contract.commands.update_authorities import UPDATE_AUTHORITIES, UpdateAuthorities
from broker.contract.messages import Origin
from broker.enrolment.store import EnrolmentStore
from broker.ledger.enqueue import CommandRequest
from broker.ledger.ledger import Ledger
from broker.ledger.operations import Operation
from broker.pki.authority import CertificateAuthority

__all__ = [
    "RolloverProgress",
    "announce_authorities",
    "rollover_progress",
]


_END = "-----END CERTIFICATE-----\n"
_TARGET = "agents with an enrolment"


@dataclass(frozen=True)
class RolloverProgress:
    """The names of the agents that have moved to the successor, and of those that have not, each in order."""

    moved: tuple[str, ...]
    not_moved: tuple[str, ...]


def rollover_progress(
    enrolments: EnrolmentStore, authority: CertificateAuthority, now: datetime, grace: timedelta
) -> RolloverProgress:
    """Return the progress by the newest certificates. An agent that can still renew an expired one counts, too.

    Raises LedgerError.
    """
    found = enrolments.newest_certificates(now - grace)
    moved = {it.agent for it in found if authority.is_of_successor(it.pem)}
    return RolloverProgress(tuple(sorted(moved)), tuple(sorted({it.agent for it in found} - moved)))


def announce_authorities(ledger: Ledger, agents: Sequence[str], trusted: str, origin: Origin) -> Operation | None:
    """Tell these agents to trust these authorities (PEM) alone, as one operation; None if there are none.

    Raises LedgerError.
    """
    if not agents:
        return None
    certificates = tuple(part + _END for part in trusted.split(_END) if part)
    parameters = msgspec.to_builtins(UpdateAuthorities(certificates))
    return ledger.add_operation(agents, _TARGET, CommandRequest(UPDATE_AUTHORITIES, parameters, origin))
