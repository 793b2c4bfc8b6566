"""Preconditions of commands that start or stop a service: the delay has passed, and no upgrade is on trial."""

from collections.abc import Callable

from broker.contract.states import ErrorCode
from consumer.handler import Context, Result

__all__ = [
    "wait_until_allowed",
]


def wait_until_allowed(delay_s: float, context: Context, upgrade_on_trial: Callable[[], bool]) -> Result | None:
    """Wait for the delay and return None; return a result instead if the command must not run."""
    left = context.deadline - context.clock.monotonic()
    if delay_s and delay_s >= left:
        message = (
            f"delay_s is {delay_s:g}, but the command's timeout leaves only {round(left, 1):g} s; give it a longer one."
        )
        return Result(message, code=ErrorCode.INVALID)
    if context.cancelled.wait(delay_s):
        return Result("The command was cancelled during its delay; nothing was done.", code=ErrorCode.CANCELLED)
    if upgrade_on_trial():
        return Result(
            "A new version of the agent is on trial; send the command again once the trial has ended.",
            code=ErrorCode.FAILED,
        )
    return None
