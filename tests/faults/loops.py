"""The loops by name. Each returns by itself when its budget is over, and leaves nothing behind."""

from tests.faults import failing_calls
from tests.faults.tally import Loop

__all__ = ["LOOPS"]


LOOPS: dict[str, Loop] = {
    "failing-calls": failing_calls.loop,
}
