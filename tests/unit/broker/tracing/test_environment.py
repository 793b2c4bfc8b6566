"""The context of a program that runs acm, or that a handler runs."""

import pytest

from broker.contract.trace_context import TraceContext
from broker.tracing.environment import context_in, variables_of
from tests.support.traced import CALLER


@pytest.mark.parametrize("context", [TraceContext(CALLER), TraceContext(CALLER, "a=1")])
def test_variables_name_a_context(context: TraceContext) -> None:
    assert context_in({"PATH": "/bin", **variables_of(context)}) == context


@pytest.mark.parametrize(
    "given", [{}, {"TRACEPARENT": "x"}, {"traceparent": CALLER}, {"TRACEPARENT": CALLER[:-1] + "0"}]
)
def test_other_variables_name_none(given: dict[str, str]) -> None:
    assert context_in(given) is None
    assert variables_of(None) == {}
