"""What the user is told of an application: always which generation is active, as the disk says."""

from typing import Any

from broker.contract.commands.apply_centralized_configuration import ApplyCentralizedConfigurationData
from broker.contract.messages import Output
from broker.contract.states import ErrorCode
from consumer.configuration.apply_journal import ApplyJournal
from consumer.configuration.generations import Generations
from consumer.handler import Result

__all__ = [
    "Results",
]


class Results:
    """Makes the results of one directory of generations."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations

    def unchanged(self, name: str) -> Result:
        """Nothing was to be done."""
        message = f"This configuration is active already, as generation {name}; nothing was done."
        return Result(message, self._data("unchanged", previous=name))

    def not_applied(self, reason: str, code: ErrorCode, output: Output | None = None) -> Result:
        """What was active before still is."""
        active = self._generations.current
        stays = f"Generation {active} stays active." if active else "No centralized configuration is active, as before."
        return Result(f"{reason} {stays}", self._data("not_applied", previous=active, reason=reason), code, output)

    def ended(self, journal: ApplyJournal, output: Output | None) -> Result:
        """The new generation is active, or the one before it is again."""
        told: dict[str, Any] = {"previous": journal.previous, "diff": journal.diff}
        if journal.reason is None:
            message = f"The configuration is active as generation {journal.next}. {journal.note}".strip()
            return Result(message, self._data("applied", **told))
        again = f"Generation {journal.previous} is" if journal.previous else "No centralized configuration is"
        message = f"The configuration was rolled back: {journal.reason} {again} active again. {journal.note}".strip()
        return Result(message, self._data("rolled_back", reason=journal.reason, **told), journal.code, output)

    def stuck(self, journal: ApplyJournal, reason: str) -> Result:
        """The new generation is active, though it ought not to be."""
        message = f"{reason} Generation {journal.next} is active: it was not judged, or could not be rolled back."
        data = self._data("applied", previous=journal.previous, diff=journal.diff, reason=reason)
        return Result(message, data, ErrorCode.FAILED)

    def _data(self, action: Any, **told: Any) -> ApplyCentralizedConfigurationData:
        record = self._generations.record(self._generations.current)
        return ApplyCentralizedConfigurationData(action, record.in_short() if record else None, **told)
