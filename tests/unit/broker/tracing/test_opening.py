"""Which tracer a program gets, and what it is called."""

import sys

import pytest
from structlog.testing import capture_logs

from broker.tracing.opening import opened_tracer
from broker.tracing.otel import OtelTracer, otlp_provider
from broker.tracing.port import SpanKind
from tests.support.traced import KeptSpans


@pytest.fixture(autouse=True)
def _no_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")


def test_without_the_setting_there_is_none() -> None:
    assert opened_tracer("off", "acm-test") is None


def test_without_opentelemetry_there_is_none_and_a_line_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "broker.tracing.otel")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with capture_logs() as logs:
        assert opened_tracer("otlp", "acm-test") is None
    assert [(it["event"], it["log_level"]) for it in logs] == [("traces_not_exported", "error")]
    assert "EXTRA=traces" in logs[0]["reason"]


def test_value_that_cannot_be_used_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "-1")
    with capture_logs() as logs:
        assert opened_tracer("otlp", "acm-test") is None
    assert [it["event"] for it in logs] == ["traces_not_exported"]


def test_environment_names_the_program_if_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = otlp_provider("acm-agent", "web-01", "1.0")
    assert dict(provider.resource.attributes) | {
        "service.name": "acm-agent",
        "service.instance.id": "web-01",
        "service.version": "1.0",
    } == dict(provider.resource.attributes)
    provider.shutdown()
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=rack-7,deployment.environment.name=test")
    named = otlp_provider("acm-agent", "web-01", "1.0")
    found = [named.resource.attributes[f"service.{it}"] for it in ("name", "instance.id", "version")]
    named.shutdown()
    assert found == ["mine", "rack-7", "1.0"]


def test_sampler_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    tracer = OtelTracer(otlp_provider("acm-agent", None, "1.0"), "1.0")
    assert tracer.begin("x", SpanKind.SERVER, None).context is None
    tracer.close()


def test_second_end_of_a_span_changes_nothing() -> None:
    kept = KeptSpans()
    span = kept.tracer().begin("run", SpanKind.CONSUMER, None, at=1000.0)
    span.end(error="timed_out", at=1002.0)
    span.end({"acm.outcome": "success"})
    span.rename("other")
    (ended,) = kept.spans
    assert (ended["name"], ended["is_error"], ended["end"] - ended["start"]) == ("run", True, 2_000_000_000)
    assert ended["attributes"] == {"error.type": "timed_out"}
