"""Whom a command is for: one agent, several, a pattern, a group or all, turned into names."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from broker.contract.topics import check_agent_name
from broker.errors import BrokerError, InvalidArgument
from broker.ledger.groups import check_group_name
from broker.ledger.ledger import Ledger

__all__ = [
    "Target",
    "UnknownAgent",
    "check_known",
    "resolve_target",
]


_WILDCARDS = frozenset("*?[")


class UnknownAgent(BrokerError):
    """The ledger knows no agent of this name, or nobody is meant."""

    code = "unknown_agent"


@dataclass(frozen=True)
class Target:
    """The agents by name, and whom the user meant in words. `single`: one agent was named, and no more."""

    agents: list[str]
    words: str
    single: bool = False


def resolve_target(
    ledger: Ledger, names: str | None, group: str | None, *, everyone: bool, allow_unknown: bool
) -> Target:
    """Return the target that was named in exactly one of the three ways.

    `names` are agents' names or patterns (fnmatch), parted by commas. Patterns and groups mean known agents alone, and
    unknown names are refused unless allowed. Raises InvalidArgument, InvalidName, and UnknownAgent for nobody.
    """
    if sum([names is not None, group is not None, everyone]) != 1:
        raise InvalidArgument("Say whom the command is for in one way: AGENT, --group or --all.")
    if group is not None:
        members = set(ledger.groups.members(check_group_name(group)))
        return _not_empty([name for name in ledger.agent_names() if name in members], f"group {group}")
    if everyone:
        return _not_empty(ledger.agent_names(), "all agents")
    words = [word.strip() for word in (names or "").split(",")]
    if len(words) == 1 and not _is_pattern(words[0]):
        return Target(_known(ledger, words, allow_unknown), words[0], single=True)
    return _not_empty(list(dict.fromkeys(_named(ledger, words, allow_unknown))), ",".join(words))


def check_known(ledger: Ledger, agents: list[str], *, way_out: str = ", --allow-unknown takes it all the same") -> None:
    """Raise InvalidName for what is no agent name, UnknownAgent for one that the ledger does not know.

    `way_out` ends the sentence: what the user can do beside looking.
    """
    known = set(ledger.agent_names())
    for agent in agents:
        if check_agent_name(agent) not in known:
            raise UnknownAgent(f"The ledger knows no agent {agent!r}; `acm agents` lists them{way_out}.")


def _named(ledger: Ledger, words: list[str], allow_unknown: bool) -> Iterator[str]:
    for word in words:
        if _is_pattern(word):
            yield from (name for name in ledger.agent_names() if fnmatchcase(name, word))
        else:
            yield from _known(ledger, [word], allow_unknown)


def _known(ledger: Ledger, names: list[str], allow_unknown: bool) -> list[str]:
    if allow_unknown:
        return [check_agent_name(name) for name in names]
    check_known(ledger, names)
    return names


def _is_pattern(word: str) -> bool:
    return not _WILDCARDS.isdisjoint(word)


def _not_empty(agents: list[str], words: str) -> Target:
    if not agents:
        raise UnknownAgent(f"No agent is meant by {words!r}; `acm agents` and `acm group list` show whom there is.")
    return Target(agents, words)
