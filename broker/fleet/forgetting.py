"""Which agents may be forgotten."""

from broker.contract.states import AgentState
from broker.enrolment.enrolment_states import EnrolmentState, enrolment_states
from broker.errors import BrokerError
from broker.ledger.agents import AgentRow
from broker.ledger.ledger import Ledger

__all__ = [
    "AgentIsOnline",
    "refuse_online",
]


class AgentIsOnline(BrokerError):
    """An agent that is to be forgotten is online."""

    code = "agent_is_online"


def refuse_online(ledger: Ledger, row: AgentRow) -> None:
    """Raise AgentIsOnline for an agent that would be listed again at once; one that was revoked would not."""
    if row.state is not AgentState.ONLINE:
        return
    if enrolment_states(ledger.database, ledger.now(), [row.name]).get(row.name) is not EnrolmentState.REVOKED:
        raise AgentIsOnline(
            f"{row.name} is online, and would be listed again: stop it, revoke it (`acm enrolment revoke {row.name}`), "
            "or use --force."
        )
