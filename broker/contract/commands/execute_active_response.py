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
    """Run the script of this name in the agent's allow-list on an alert; take its effect back `timeout_s` later.

    A `timeout_s` of 0 leaves the effect for good; without one the time in the allow-list holds.
    """

    script: _Name
    alert: JsonObject = field(default_factory=dict)
    extra_args: tuple[str, ...] = ()
    timeout_s: _Timeout | None = None


@dataclass(frozen=True)
class ExecuteActiveResponseData:
    """What became of the script. `exit_status` is negative when a signal ended it.

    `active`: it did its work, which is taken back at `reverses_at`. `renewed`: it was active for these keys already,
    and its time begins anew. `done`: it did its work, and nothing will be taken back. `not_added`: it did not end well
    and was never told to continue. `uncertain`: it was told to continue and did not end well; what it may have done is
    taken back at `reverses_at`, if that is there. `offence` counts how often these keys were met.
    """

    script: str
    state: Literal["active", "renewed", "done", "not_added", "uncertain"]
    keys: tuple[str, ...] = ()
    exit_status: int | None = None
    reverses_at: datetime | None = None
    offence: int | None = None
