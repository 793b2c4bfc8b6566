"""Whether a command may start: asked before it is marked as processing, and again when its turn comes."""

from collections.abc import Callable

from broker.contract.commands import COMMAND_TYPES
from broker.contract.messages import Command
from broker.contract.states import ErrorCode
from consumer.handler import Result, check_expiry
from consumer.ports import Clock, StoredCommand
from consumer.trust.refusal import Refusal

__all__ = [
    "StartCheck",
    "not_run_again",
]


class StartCheck:
    """Any thread may ask it. `check_signers` returns why a command with this `signed_by` must not begin, or None."""

    def __init__(self, clock: Clock, check_signers: Callable[[tuple[str, ...] | None], Refusal | None]) -> None:
        self._clock = clock
        self._check_signers = check_signers

    def unfit(self, stored: StoredCommand, *, was_cancelled: bool) -> Result | None:
        """Return the result of a command that must not begin; None if it may, or if it took effect on arrival.

        An update of the keys took effect on arrival, and may have replaced the very keys that signed it.
        """
        if _takes_effect_on_arrival(stored.command):
            return None
        if was_cancelled:
            return Result("The command was cancelled before it began.", code=ErrorCode.CANCELLED)
        if stored.command.expires_at is not None:
            expired = check_expiry(stored.command, self._clock.now())
            if expired is not None:
                return expired
        refusal = self._check_signers(stored.signed_by)
        return Result(refusal.message, code=ErrorCode.REJECTED) if refusal else None


def not_run_again(reason: Result) -> Result:
    """Return the result of a command that a crash interrupted, and that must not run a second time."""
    return Result(
        f"The agent died while the command may have run, and it was not run again: {reason.message}",
        code=ErrorCode.INTERRUPTED,
    )


def _takes_effect_on_arrival(command: Command) -> bool:
    kind = COMMAND_TYPES.get(command.type)
    return kind is not None and kind.on_arrival
