"""Trace contexts in the environment of programs (https://opentelemetry.io/docs/specs/otel/context/env-carriers/)."""

from collections.abc import Mapping

from broker.contract.trace_context import TRACEPARENT, TRACESTATE, TraceContext

__all__ = [
    "context_in",
    "variables_of",
]


_NAMES = {name: name.upper() for name in (TRACEPARENT, TRACESTATE)}


def context_in(environment: Mapping[str, str]) -> TraceContext | None:
    """Return the context that the environment names, if it is recorded."""
    pairs = [(name, environment[variable]) for name, variable in _NAMES.items() if variable in environment]
    found = TraceContext.read(pairs)
    return found if found is not None and found.is_sampled else None


def variables_of(context: TraceContext | None) -> dict[str, str]:
    """Return the variables that name a context; none without one."""
    return {} if context is None else {_NAMES[name]: value for name, value in context.pairs()}
