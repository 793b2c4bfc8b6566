"""The agents that a command is for: one, several, a pattern, a group or all, resolved to names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from broker.contract.topics import check_agent_name
from broker.enrolment.enrolment_states import EnrolmentState, enrolment_states
from broker.errors import BrokerError, InvalidArgument
from broker.fleet.patterns import is_pattern
from broker.ledger.groups import check_group_name
from broker.ledger.ledger import Ledger
from broker.suggestions import did_you_mean

__all__ = [
    "ALL_AGENTS",
    "GROUP_TARGET",
    "Target",
    "UnknownAgent",
    "check_known",
    "resolve_target",
]


ALL_AGENTS = "all agents"
"""The description of a target that is all agents."""
GROUP_TARGET = "group "
"""What the description of a group begins with; it ends with its name."""


class UnknownAgent(BrokerError):
    """An agent is not in the ledger, or no agent matches."""

    code = "unknown_agent"


@dataclass(frozen=True)
class Target:
    """The agents by name, and the target as the user wrote it; `single`: it is the name of one agent."""

    agents: list[str]
    description: str
    single: bool = False


def resolve_target(
    ledger: Ledger,
    names: Sequence[str] | None,
    group: str | None,
    *,
    everyone: bool,
    allow_unknown: bool,
    within: frozenset[str] | None = None,
) -> Target:
    """Return the target that is given in exactly one of the three ways.

    `names` are names or patterns (fnmatch) of agents. Patterns, groups and all match known agents only, without revoked
    ones; unknown names are refused unless `allow_unknown`. If `within` is not None, no agent exists that is in none of
    these groups. Raises InvalidArgument, InvalidName, and UnknownAgent also if no agent matches.
    """
    if sum([names is not None, group is not None, everyone]) != 1:
        raise InvalidArgument(
            "Give the target in exactly one way: names of agents, a group (--group), or all (--all).",
            code="ambiguous_target",
        )
    visible = _Visible(ledger, within)
    if group is not None:
        check_group_name(group)
        members = set(ledger.groups.members(group)) if within is None or group in within else set()
        return _not_empty([name for name in visible.not_revoked() if name in members], GROUP_TARGET + group)
    if everyone:
        return _not_empty(visible.not_revoked(), ALL_AGENTS)
    words = [word.strip() for word in names or ()]
    if len(words) == 1 and not is_pattern(words[0]):
        return Target(visible.known(words, allow_unknown), words[0], single=True)
    agents = list(dict.fromkeys(_matching(visible, words, allow_unknown)))
    return _not_empty(agents, ",".join(words))


def check_known(ledger: Ledger, agents: list[str], *, can_allow: bool = True) -> None:
    """Raise InvalidName for a malformed agent name, UnknownAgent for one that is not in the ledger.

    `can_allow`: the command has the option --allow-unknown, which the message then names.
    """
    known = set(ledger.agent_names())
    for agent in agents:
        if check_agent_name(agent) not in known:
            hint = ", and --allow-unknown accepts it anyway" if can_allow else ""
            raise UnknownAgent(
                f"Unknown agent {agent!r}; `acm agents` lists the known ones{hint}.{did_you_mean(agent, known)}"
            )


class _Visible:
    """The agents of a ledger, or those in some of its groups."""

    def __init__(self, ledger: Ledger, within: frozenset[str] | None) -> None:
        self._ledger = ledger
        self._members = None if within is None else {it for name in within for it in ledger.groups.members(name)}

    def not_revoked(self) -> list[str]:
        enrolments = enrolment_states(self._ledger.database, self._ledger.now())
        names = self._only_members(self._ledger.agent_names())
        return [name for name in names if enrolments.get(name) is not EnrolmentState.REVOKED]

    def known(self, names: list[str], allow_unknown: bool) -> list[str]:
        checked = [check_agent_name(name) for name in names]
        if self._members is None and not allow_unknown:
            check_known(self._ledger, checked)
        for name in set(checked).difference(self._only_members(checked)):
            raise UnknownAgent(f"Unknown agent {name!r}; `acm agents` lists the known ones.")
        return checked

    def _only_members(self, names: list[str]) -> list[str]:
        return names if self._members is None else [name for name in names if name in self._members]


def _matching(visible: _Visible, words: list[str], allow_unknown: bool) -> Iterator[str]:
    for word in words:
        if is_pattern(word):
            yield from (name for name in visible.not_revoked() if fnmatchcase(name, word))
        else:
            yield from visible.known([word], allow_unknown)


def _not_empty(agents: list[str], description: str) -> Target:
    if not agents:
        raise UnknownAgent(
            f"No agent matches {description!r}. `acm agents` and `acm group list` show what exists.",
            code="no_agent_matches",
        )
    return Target(agents, description)
