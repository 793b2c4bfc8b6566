"""The results that answered no open command, as operators read them: from the ledger's table."""

import msgspec

from broker.contract.messages import JsonObject
from broker.ledger.ledger import Ledger
from broker.ledger.tables import STRAY_RESULTS


def unmatched_results(ledger: Ledger) -> list[JsonObject]:
    """Return them, oldest first."""
    query = STRAY_RESULTS.select().order_by(STRAY_RESULTS.c.received_at)
    with ledger.database.reading() as connection:
        return [msgspec.json.decode(row.body) for row in connection.execute(query)]
