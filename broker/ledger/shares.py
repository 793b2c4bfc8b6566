"""Shares of agents in what is sent at once, so that a long queue delays no other agent."""

from collections.abc import Iterator, Mapping

__all__ = [
    "LEAST_SHARE",
    "share_of_each",
    "share_out",
]


LEAST_SHARE = 20


def share_of_each(agents: int, limit: int) -> int:
    """Return how many of `limit` rows each of so many agents gets at most."""
    return max(LEAST_SHARE, limit // max(1, agents))


def share_out(counts: Mapping[str, int], limit: int, share: int) -> Iterator[tuple[list[str], int]]:
    """Distribute `limit` rows over agents with these numbers of rows, the first ones first, a share for each at most.

    Yield agents, and how many of their rows to take at most: one agent that has more rows than its share, or several
    that get all of theirs, in order of name, so that one query reads them all.
    """
    together: list[str] = []
    size = 0
    for agent, count in counts.items():
        if limit <= 0:
            break
        taken = min(count, share, limit)
        limit -= taken
        if together and (taken < count or agent < together[-1]):
            yield together, size
            together, size = [], 0
        if taken < count:
            yield [agent], taken
        else:
            together.append(agent)
            size += taken
    if together:
        yield together, size
