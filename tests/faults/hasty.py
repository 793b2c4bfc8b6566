"""acm, or an agent with the commands of slow_agent, that notices within seconds what takes minutes otherwise.

Few messages are in flight, so that as few lost PUBACKs stop everything.
"""

import sys

from broker.__main__ import main as run_acm
from broker.mqtt import hearing, paho_client, unanswered
from consumer.engine import round_trip
from tests.acceptance import slow_agent

__all__ = ["ANSWER_S", "DEAF_S", "WINDOW", "main"]


ANSWER_S = 2.0
DEAF_S = 6.0
WINDOW = 5  # how many messages the broker sends before it gets their PUBACKs


def main() -> None:
    """Run `acm server`, or the agent for `run`."""
    unanswered._LONGEST_S = unanswered._LONGEST_CONNECT_S = ANSWER_S
    hearing.SILENT_AFTER_S, hearing._LONGEST_PATIENCE_S = DEAF_S, 2 * DEAF_S
    round_trip.STATUS_INTERVAL_S = DEAF_S / 2
    paho_client._RECEIVE_MAXIMUM = WINDOW
    (slow_agent.main if sys.argv[1] == "run" else run_acm)()


if __name__ == "__main__":
    main()
