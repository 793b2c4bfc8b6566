"""kill -9 of the agent, the server or the broker at random moments, while commands are sent and run."""

import itertools
from collections.abc import Callable

from tests.faults.site import SETTLE_S, FaultySite, faulty_site
from tests.faults.tally import Budget, Tally

__all__ = ["agents", "brokers", "old_brokers", "servers"]


_COMMANDS = 4
_STANDS_S = 5.5  # connections that end sooner, five in a row, are taken for a second client, and waited out for minutes


def agents(budget: Budget) -> Tally:
    """Kill the agent, again and again."""

    def kill(site: FaultySite) -> None:
        site.ends_within(site.agent, budget)
        site.start_agent()

    return _loop(budget, kill)


def servers(budget: Budget) -> Tally:
    """Kill the server, again and again."""

    def kill(site: FaultySite) -> None:
        site.ends_within(site.server, budget)
        site.start_server()

    return _loop(budget, kill)


def brokers(budget: Budget) -> Tally:
    """Kill the broker, again and again; every second one comes back without its data."""
    turns = itertools.cycle([True, False, False])

    def kill(site: FaultySite) -> None:
        if next(turns):
            site.stands(_STANDS_S)
        if budget.random.random() < 0.5:
            site.broker.lose_data()
        else:
            site.broker.kill()
            site.broker.start()

    return _loop(budget, kill)


def old_brokers(budget: Budget) -> Tally:
    """Put the broker back to earlier moments, again and again, with their statuses, sessions and queues."""
    saved: list[bytes] = []

    def put_back(site: FaultySite) -> None:
        if not saved or budget.random.random() < 0.4:
            saved.append(site.broker.save())
            site.ends_within(site.agent, budget)
            site.start_agent()
        site.stands(_STANDS_S)
        site.broker.go_back(budget.random.choice(saved))

    return _loop(budget, put_back)


def _loop(budget: Budget, kill: Callable[[FaultySite], None]) -> Tally:
    tally = Tally()
    with faulty_site() as site:
        for _ in budget.rounds(reserve_s=SETTLE_S):
            site.send(_COMMANDS)
            kill(site)
            tally.counts["kills"] += 1
        site.settle(tally)
    return tally
