"""Shares of agents in what is sent at once, so that a long queue delays no other agent."""

from collections.abc import Iterator, Mapping

__all__ = [
    "share_out",
]


_LEAST_SHARE = 20


def share_out(counts: Mapping[str, int], limit: int) -> Iterator[tuple[list[str], int]]:
    """Distribute `limit` rows over agents with these numbers of rows, the first ones first.

    Yield agents, and how many of their rows to take at most: one agent that has more rows than its share, or several
    that get all of theirs, in order of name, so that one query reads them all.
    """
    share = max(_LEAST_SHARE, limit // max(1, len(counts)))
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
