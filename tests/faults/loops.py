"""The loops by name. Each returns by itself when its budget is over, and leaves nothing behind."""

from tests.faults import clocks, databases, disks, failing_calls, kills, withheld
from tests.faults.tally import Loop

__all__ = ["LOOPS"]


LOOPS: dict[str, Loop] = {
    "failing-calls": failing_calls.loop,
    "full-disk": disks.full,
    "power-loss": disks.power_loss,
    "clock": clocks.loop,
    "kill-agent": kills.agents,
    "kill-server": kills.servers,
    "kill-broker": kills.brokers,
    "old-broker": kills.old_brokers,
    "withheld": withheld.loop,
    "database": databases.unpooled,
    "pooler": databases.pooled,
}
