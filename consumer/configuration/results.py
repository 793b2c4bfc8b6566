"""Results of a configuration update. Each names the generation that is active on the disk."""

from typing import Any, Literal

from broker.contract.commands.apply_centralized_configuration import ApplyCentralizedConfigurationData
from broker.contract.messages import Output
from broker.contract.states import ErrorCode
from consumer.configuration.apply_journal import ApplyJournal
from consumer.configuration.generations import Generations
from consumer.handler import Result

__all__ = [
    "ended",
    "not_applied",
    "not_rolled_back",
    "unchanged",
    "unknown",
]


def unchanged(generations: Generations, name: str) -> Result:
    """Return the result when the wanted configuration was already active."""
    message = f"This configuration is already active, as generation {name}; nothing was done."
    return Result(message, _data(generations, "unchanged", previous=name))


def not_applied(generations: Generations, reason: str, code: ErrorCode, output: Output | None = None) -> Result:
    """Return the result when the previous generation is still active."""
    active = generations.current
    foreign = generations.foreign
    stays = f"Generation {active} stays active." if active else "No centralized configuration is active, as before."
    if foreign is not None:
        stays = f"{foreign}, to which `current` was changed by hand, stays active."
    return Result(f"{reason} {stays}", _data(generations, "not_applied", previous=active, reason=reason), code, output)


def unknown(reason: str, problem: str, code: ErrorCode, output: Output | None) -> Result:
    """Return the result when an update has failed, and `problem` prevents a look at which generation is active."""
    return Result(f"{reason} Which generation is active cannot be read: {problem}.", None, code, output)


def ended(generations: Generations, journal: ApplyJournal, output: Output | None) -> Result:
    """Return the result of a completed update: the new generation is active, or the previous one again."""
    facts: dict[str, Any] = {"previous": journal.previous, "diff": journal.diff}
    if journal.reason is None:
        message = f"The configuration is active as generation {journal.next}. {journal.note}".strip()
        return Result(message, _data(generations, "applied", **facts))
    again = f"Generation {journal.previous} is" if journal.previous else "No centralized configuration is"
    if journal.foreign is not None:
        again = f"{journal.foreign}, to which `current` had been changed by hand, is"
    message = f"The configuration was rolled back: {journal.reason} {again} active again. {journal.note}".strip()
    data = _data(generations, "rolled_back", reason=journal.reason, **facts)
    return Result(message, data, journal.code, output)


def not_rolled_back(generations: Generations, journal: ApplyJournal, reason: str) -> Result:
    """Return the result when the new generation is active, although it failed or was not checked."""
    message = (
        f"{reason} Generation {journal.next} is active: it was not checked, or could not be rolled back. Once that is "
        "repaired, send it again: it is then reloaded and checked."
    )
    data = _data(generations, "applied", previous=journal.previous, diff=journal.diff, reason=reason)
    return Result(message, data, ErrorCode.FAILED)


def _data(
    generations: Generations, action: Literal["applied", "unchanged", "rolled_back", "not_applied"], **facts: Any
) -> ApplyCentralizedConfigurationData:
    record = generations.record(generations.current)
    return ApplyCentralizedConfigurationData(action, record.summary() if record else None, **facts)
