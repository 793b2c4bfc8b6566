"""Opens the tracer that a program is configured to use."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import structlog

from broker.tracing.port import Tracer, Traces

__all__ = [
    "opened_tracer",
    "tracing",
]


_log = structlog.get_logger("acm.traces")


def opened_tracer(traces: Traces, service: str, instance: str | None = None) -> Tracer | None:
    """Return the tracer of a program, which the caller closes; None if it exports no traces.

    `service` and `instance` are its names, unless the environment has others. A missing OpenTelemetry, and values of
    the environment that it refuses, are logged, since nothing else depends on traces.
    """
    if traces == "off":
        return None
    own = version("agent-command-manager")
    try:
        from broker.tracing.otel import OtelTracer, otlp_provider  # and OpenTelemetry, which others do without

        tracer = OtelTracer(otlp_provider(service, instance, own), own)
    except ModuleNotFoundError:
        _log.error(
            "traces_not_exported", reason="OpenTelemetry is not installed: `make install EXTRA=traces` installs it."
        )
    except ValueError as error:
        _log.error("traces_not_exported", reason=f"A variable OTEL_* of the environment cannot be used: {error}.")
    else:
        return tracer
    return None


@contextmanager
def tracing(tracer: Tracer | None) -> Iterator[None]:
    """Close a tracer, if there is one, after a block."""
    try:
        yield
    finally:
        if tracer is not None:
            tracer.close()
