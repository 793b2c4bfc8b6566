"""`execute-active-response`: its parameters and the data of its result."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from broker.contract.messages import JsonObject

__all__ = [
    "ExecuteActiveResponse",
    "ExecuteActiveResponseData",
]


_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Timeout = Annotated[float, msgspec.Meta(ge=0, le=10 * 365 * 86400)]


@dataclass(frozen=True)
class ExecuteActiveResponse:
    """Run an allow-listed script on an alert, and reverse its effect after `timeout_s`.

    `timeout_s` of 0: never reverse it; None: the timeout of the allow-list.
    """

    script: _Name
    alert: JsonObject = field(default_factory=dict)
    extra_args: tuple[str, ...] = ()
    timeout_s: _Timeout | None = None


@dataclass(frozen=True)
class ExecuteActiveResponseData:
    """The outcome of the script. `exit_status` is negative if a signal ended it.

    `active`: it succeeded and is reversed at `reverses_at`. `renewed`: it was active for these keys already, and its
    timeout starts again. `done`: it succeeded and is not reversed. `not_added`: it failed before it was sent
    `continue`. `uncertain`: it failed after that; its possible effect is reversed at `reverses_at`, if set. `offence`
    is how often these keys were reported so far. `protected`: its address or account is protected; nothing was done.
    """

    script: str
    state: Literal["active", "renewed", "done", "not_added", "uncertain", "protected"]
    keys: tuple[str, ...] = ()
    exit_status: int | None = None
    reverses_at: datetime | None = None
    offence: int | None = None
