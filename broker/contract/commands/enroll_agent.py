"""`enroll-agent`: its parameters and the data of its result."""

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from broker.contract.secrets import SECRET

__all__ = [
    "EnrollAgent",
    "EnrollAgentData",
]


@dataclass(frozen=True)
class EnrollAgent:
    """Enroll with the server at this https URL, the current or a new one, using a one-time token of its authority."""

    server: Annotated[str, msgspec.Meta(min_length=1, max_length=2048)]
    token: Annotated[str, msgspec.Meta(min_length=1, max_length=512), SECRET]


@dataclass(frozen=True)
class EnrollAgentData:
    """The new enrolment. `carried`: the agent uses it now; `rolled_back`: the agent uses the old one."""

    enrolment_id: str
    server: str
    broker: str
    state: Literal["carried", "rolled_back"]
