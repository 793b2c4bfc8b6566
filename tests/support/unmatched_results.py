"""The results that answered no open command, as operators read them."""

from broker.contract.messages import JsonObject
from broker.ledger.ledger import Ledger


def unmatched_results(ledger: Ledger) -> list[JsonObject]:
    """Return them, oldest first."""
    rows, _ = ledger.page_of_unmatched(None, 1000)
    return [unmatched.result for unmatched in reversed(rows)]
