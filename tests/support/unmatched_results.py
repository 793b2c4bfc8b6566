"""The results that answered no open command, as operators read them."""

from operator import attrgetter

from broker.contract.messages import JsonObject
from broker.ledger.ledger import Ledger


def unmatched_results(ledger: Ledger) -> list[JsonObject]:
    """Return them, oldest first."""
    found = sorted(ledger.unmatched_results(limit=None), key=attrgetter("received_at"))
    return [unmatched.result for unmatched in found]
