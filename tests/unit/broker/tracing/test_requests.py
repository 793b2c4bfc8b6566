"""Which requests are spans, and what these say."""

import asyncio
from typing import Any

import pytest

from broker.tracing.requests import TracedRequests
from tests.support.traced import CALLER, CALLER_SPAN, KeptSpans


def served(kept: KeptSpans, method: str, *, status: int | None = 200, **headers: str) -> None:
    """Serve one request by an application that answers with this status, or fails."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if status is None:
            raise ValueError("a fault")
        await send({"type": "http.response.start", "status": status, "headers": []})

    async def answered(_: Any) -> None:
        pass

    given = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "scheme": "https", "path": "/v1/commands/7", "headers": given}
    traced = TracedRequests(app, kept.tracer(), lambda _: "/v1/commands/{command_id}")
    asyncio.run(traced(scope, None, answered))  # type: ignore[arg-type]


def test_request_that_changes_something_begins_a_trace_and_one_that_reads_does_not() -> None:
    kept = KeptSpans()
    served(kept, "GET")
    assert kept.spans == []
    served(kept, "POST")
    (span,) = kept.spans
    assert (span["name"], span["kind"], span["parent"]) == ("POST /v1/commands/{command_id}", "SERVER", None)
    assert span["attributes"] == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/v1/commands/{command_id}",
        "url.path": "/v1/commands/7",
        "url.scheme": "https",
    }


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_request_continues_the_trace_of_its_caller(method: str) -> None:
    kept = KeptSpans()
    served(kept, method, traceparent=CALLER)
    assert [span["parent"] for span in kept.spans] == [CALLER_SPAN]


def test_request_of_a_caller_that_records_nothing_is_no_span() -> None:
    kept = KeptSpans()
    served(kept, "POST", traceparent=CALLER[:-1] + "0")
    assert kept.spans == []


@pytest.mark.parametrize(("status", "is_error"), [(201, False), (404, False), (503, True)])
def test_failure_of_the_api_is_an_error_and_one_of_the_caller_is_none(status: int, is_error: bool) -> None:
    kept = KeptSpans()
    served(kept, "POST", status=status)
    (span,) = kept.spans
    assert (span["is_error"], span["attributes"].get("error.type")) == (is_error, str(status) if is_error else None)


def test_fault_is_an_error() -> None:
    kept = KeptSpans()
    with pytest.raises(ValueError, match="a fault"):
        served(kept, "POST", status=None)
    (span,) = kept.spans
    assert (span["is_error"], span["attributes"]["http.response.status_code"]) == (True, 500)


def test_word_of_a_caller_that_is_no_method_names_no_span() -> None:
    kept = KeptSpans()
    served(kept, "M" * 5000)
    (span,) = kept.spans
    assert (span["name"], span["attributes"]["http.request.method"]) == ("HTTP /v1/commands/{command_id}", "_OTHER")
