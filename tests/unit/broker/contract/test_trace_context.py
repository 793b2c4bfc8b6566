"""Trace contexts from anyone: the valid ones are continued, the others ignored."""

import pytest

from broker.contract.trace_context import TraceContext

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


def read(parent: str, *states: str) -> TraceContext | None:
    return TraceContext.read([("traceparent", parent), *(("tracestate", it) for it in states), ("other", "x")])


def test_valid_context_is_read_and_written() -> None:
    context = read(PARENT, "vendor=a:b, other@system=1", "last=")
    assert context == TraceContext(PARENT, "vendor=a:b,other@system=1,last=")
    assert (context.trace_id, context.span_id, context.flags, context.is_sampled) == (TRACE, SPAN, 1, True)
    assert list(context.pairs()) == [("traceparent", PARENT), ("tracestate", context.tracestate)]
    assert TraceContext.of_text(context.text) == context
    assert TraceContext.of_text(TraceContext(PARENT).text) == TraceContext(PARENT)


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        (f"00-{TRACE}-{SPAN}-ff", f"00-{TRACE}-{SPAN}-03"),
        (f"01-{TRACE}-{SPAN}-01", PARENT),
        (f"cc-{TRACE}-{SPAN}-01-what comes later", PARENT),
    ],
)
def test_traceparent_is_written_in_the_present_version(given: str, normal: str) -> None:
    assert read(given) == TraceContext(normal)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "00",
        PARENT.upper(),
        PARENT + " ",
        PARENT + "\n",
        f"{PARENT}-more",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01x",
        f"01-{TRACE}-{SPAN}-01-{'x' * 300}",
        f"00-{TRACE}-{SPAN}-0\u0661",
        "x" * 100_000,
    ],
)
def test_invalid_traceparent_is_ignored(given: str) -> None:
    assert read(given, "vendor=1") is None


def test_two_traceparents_are_none() -> None:
    assert TraceContext.read([("traceparent", PARENT), ("traceparent", PARENT)]) is None


TOO_MANY = ",".join(f"a{it}=1" for it in range(33))


@pytest.mark.parametrize("given", ["x" * 600, "novalue", "UPPER=1", "a=\u00e9", TOO_MANY])
def test_invalid_tracestate_is_left_out(given: str) -> None:
    assert read(PARENT, given) == TraceContext(PARENT)


@pytest.mark.parametrize("stored", [None, 7, b"x", "", "altered", f"{PARENT}\0"])
def test_altered_text_is_no_context(stored: object) -> None:
    assert TraceContext.of_text(stored) is None
