"""What must be so before a command may start or stop something: its delay is over, and no upgrade is on trial."""

from collections.abc import Callable

from broker.contract.states import ErrorCode
from consumer.handler import Context, Result

__all__ = [
    "wait_until_allowed",
]


def wait_until_allowed(delay_s: float, context: Context, upgrade_on_trial: Callable[[], bool]) -> Result | None:
    """Wait, on the lane, until the command may act: then None. Else its result; nothing was done."""
    left = context.deadline - context.clock.monotonic()
    if delay_s and delay_s >= left:
        has = f"the command has only {round(left, 1):g} s in all"
        return Result(f"delay_s is {delay_s:g}, but {has}; give it a longer timeout.", code=ErrorCode.INVALID)
    if context.cancelled.wait(delay_s):
        return Result("The command was cancelled during its delay; nothing was done.", code=ErrorCode.CANCELLED)
    if upgrade_on_trial():
        said = "A new version of the agent is on trial; send the command again when that is over."
        return Result(said, code=ErrorCode.FAILED)
    return None
