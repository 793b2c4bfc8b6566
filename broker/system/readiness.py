"""The answers to /healthz and /readyz. They need no credential, so they have names and codes and nothing else."""

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec

__all__ = [
    "HEALTHY",
    "HealthReport",
    "ReadinessCheck",
    "ReadinessReport",
]


class HealthReport(msgspec.Struct, frozen=True):
    """That the process answers: the loop that serves it turns."""

    status: Annotated[Literal["healthy"], msgspec.Meta(description="It answers.")] = "healthy"


HEALTHY = HealthReport()


class ReadinessCheck(msgspec.Struct, frozen=True):
    """One thing that must work."""

    name: Annotated[str, msgspec.Meta(description="What was looked at.", examples=["broker"])]
    ok: Annotated[bool, msgspec.Meta(description="Whether it works.")]
    code: Annotated[str, msgspec.Meta(description="The state that was found.", examples=["not_connected"])]


class ReadinessReport(msgspec.Struct, frozen=True):
    """Whether requests would have their effect now."""

    ready: Annotated[bool, msgspec.Meta(description="Whether all checks are ok.")]
    checks: Annotated[tuple[ReadinessCheck, ...], msgspec.Meta(description="Each thing that must work.")]

    @classmethod
    def of(cls, checks: Iterable[ReadinessCheck]) -> "ReadinessReport":
        """Return what these checks mean together."""
        found = tuple(checks)
        return cls(all(it.ok for it in found), found)
