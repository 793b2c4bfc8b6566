"""The agents that a command is for: one, several, a pattern, a group or all, resolved to names."""

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from broker.app.factories import utc_now
from broker.contract.topics import check_agent_name
from broker.enrolment.enrolment_states import EnrolmentState, enrolment_states
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
    """An agent is not in the ledger, or no agent matches."""

    code = "unknown_agent"


@dataclass(frozen=True)
class Target:
    """The agents by name, and the target as the user wrote it. `single`: it is the name of one agent."""

    agents: list[str]
    description: str
    single: bool = False


def resolve_target(
    ledger: Ledger, names: str | None, group: str | None, *, everyone: bool, allow_unknown: bool
) -> Target:
    """Return the target that is given in exactly one of the three ways.

    `names` are names or patterns (fnmatch) of agents, separated by commas. Patterns, groups and all match known agents
    only, without revoked ones; unknown names are refused unless `allow_unknown`. Raises InvalidArgument, InvalidName,
    and UnknownAgent also if no agent matches.
    """
    if sum([names is not None, group is not None, everyone]) != 1:
        raise InvalidArgument("Give the target in exactly one way: AGENT, --group or --all.", code="ambiguous_target")
    if group is not None:
        members = set(ledger.groups.members(check_group_name(group)))
        return _not_empty([name for name in _not_revoked(ledger) if name in members], f"group {group}")
    if everyone:
        return _not_empty(_not_revoked(ledger), "all agents")
    words = [word.strip() for word in (names or "").split(",")]
    if len(words) == 1 and not _is_pattern(words[0]):
        return Target(_known(ledger, words, allow_unknown), words[0], single=True)
    return _not_empty(list(dict.fromkeys(_matching(ledger, words, allow_unknown))), ",".join(words))


def check_known(ledger: Ledger, agents: list[str], *, can_allow: bool = True) -> None:
    """Raise InvalidName for a malformed agent name, UnknownAgent for one that is not in the ledger.

    `can_allow`: the command has the option --allow-unknown, which the message then names.
    """
    known = set(ledger.agent_names())
    for agent in agents:
        if check_agent_name(agent) not in known:
            hint = ", and --allow-unknown accepts it anyway" if can_allow else ""
            raise UnknownAgent(f"Unknown agent {agent!r}; `acm agents` lists the known ones{hint}.")


def _matching(ledger: Ledger, words: list[str], allow_unknown: bool) -> Iterator[str]:
    for word in words:
        if _is_pattern(word):
            yield from (name for name in _not_revoked(ledger) if fnmatchcase(name, word))
        else:
            yield from _known(ledger, [word], allow_unknown)


def _not_revoked(ledger: Ledger) -> list[str]:
    enrolments = enrolment_states(ledger.database, utc_now())
    return [name for name in ledger.agent_names() if enrolments.get(name) is not EnrolmentState.REVOKED]


def _known(ledger: Ledger, names: list[str], allow_unknown: bool) -> list[str]:
    if allow_unknown:
        return [check_agent_name(name) for name in names]
    check_known(ledger, names)
    return names


def _is_pattern(word: str) -> bool:
    return not _WILDCARDS.isdisjoint(word)


def _not_empty(agents: list[str], description: str) -> Target:
    if not agents:
        raise UnknownAgent(
            f"No agent matches {description!r}. `acm agents` and `acm group list` show what exists.",
            code="no_agent_matches",
        )
    return Target(agents, description)
