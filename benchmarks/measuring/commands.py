"""The names of agents and commands that a benchmark makes itself, so that ledger and fleet agree on them."""

__all__ = ["agent_names", "command_id"]


def agent_names(count: int, kind: str = "agent") -> list[str]:
    """Return the names of `count` agents."""
    return [f"{kind}-{number:05d}" for number in range(1, count + 1)]


def command_id(agent: str, number: int) -> str:
    """Return the id of an agent's command, as long as a UUID."""
    return f"{agent}-{number:0{35 - len(agent)}d}"
