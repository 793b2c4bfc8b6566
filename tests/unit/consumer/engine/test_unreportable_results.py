"""Results that have no place on the wire: whatever a handler returns becomes feedback that its server accepts."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.contract.codec import decode_feedbacks, to_json
from broker.contract.messages import Output
from broker.contract.states import ErrorCode, Outcome
from consumer.engine.feedback import FeedbackFactory
from consumer.handler import Result
from consumer.ports import CommandStore
from tests.simulation.world import World
from tests.support.fakes.memory_store import MemoryCommandStore
from tests.support.makers import NOW, command

REPORTS = FeedbackFactory("web-01", "i1", "g1")


@dataclass(frozen=True)
class Found:
    path: Any
    nothing: None = None


def endless() -> dict[str, Any]:
    data: dict[str, Any] = {}
    data["self"] = data
    return data


UNREPORTABLE = {
    "no result": None,
    "text": "Done.",
    "file name that is not UTF-8": Result("Done.", {"files": ["log-\udcff.gz"]}),
    "key that is not UTF-8": Result("Done.", {"log-\udcff.gz": 1}),
    "object": Result("Done.", {"path": Path("/x")}),
    "object in a dataclass": Result("Done.", Found(object())),
    "integer over 64 bits": Result("Done.", {"n": 2**70}),
    "huge integer": Result("Done.", {"n": 10**5000}),
    "NaN": Result("Done.", {"x": [1.0, {"y": float("nan")}]}),
    "infinity": Result("Done.", Found(float("inf"))),
    "data that are a list": Result("Done.", [1]),
    "data that hold themselves": Result("Done.", endless()),
    "name that is a number": Result("Done.", {"x": {1: 2}}),
    "the same key twice": Result("Done.", {"1": 1, 1: 2}),
    "message of bytes": Result(b"Done."),  # type: ignore[arg-type]
    "unknown code": Result("Done.", code="broken"),  # type: ignore[arg-type]
    "output that is a text": Result("Done.", output="all of it"),  # type: ignore[arg-type]
    "output of bytes": Result("Done.", output=Output(b"x")),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("returned", UNREPORTABLE.values(), ids=UNREPORTABLE)
def test_result_that_cannot_be_reported_is_failed_with_a_reason(returned: Any) -> None:
    sealed = REPORTS.result(command("a"), returned, NOW)
    assert decode_feedbacks(sealed.encoded) == [sealed.feedback]
    said = sealed.feedback
    assert (said.outcome, said.code, said.data) == (Outcome.ERROR, ErrorCode.FAILED, None)
    assert said.message.startswith("The command ended, but its result cannot be reported: ")


@pytest.mark.parametrize(
    ("data", "reported"),
    [
        ({"at": datetime(2026, 3, 1, tzinfo=UTC)}, {"at": "2026-03-01T00:00:00Z"}),
        ({"names": ("a", "b"), "no": None}, {"names": ["a", "b"], "no": None}),
        ({"one": {3}}, {"one": [3]}),
        (Found({"deep": Found(1)}), {"path": {"deep": {"path": 1, "nothing": None}}}),
    ],
)
def test_data_that_have_a_form_in_json_are_reported(data: Any, reported: dict[str, Any]) -> None:
    said = REPORTS.result(command("a"), Result("Done.", data), NOW).feedback
    assert (said.code, said.data) == (None, reported)


def test_lone_surrogates_in_texts_for_people_are_escaped() -> None:
    said = REPORTS.result(command("a"), Result("\udcff", output=Output("a\udcff", "b\ud800")), NOW).feedback
    assert (said.message, said.output) == ("\\udcff", Output("a\\udcff", "b\\ud800"))


ANYTHING = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(st.characters(), max_size=20),
        st.binary(max_size=8),
        st.datetimes(),
        st.builds(object),
        st.builds(Path, st.text("abc", max_size=3)),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.text(st.characters(), max_size=5), st.integers(), st.binary()), inner, max_size=4),
        st.builds(Found, inner),
    ),
    max_leaves=12,
)
TEXT = st.one_of(st.text(st.characters(), max_size=30), st.none(), st.binary(max_size=3))
RETURNED = st.one_of(
    ANYTHING,
    st.builds(
        Result,
        TEXT,
        ANYTHING,
        st.one_of(st.none(), st.sampled_from([*ErrorCode]), st.text(max_size=3)),
        st.one_of(st.none(), st.builds(Output, TEXT, TEXT), st.integers()),
    ),
)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(RETURNED)
def test_whatever_a_handler_returns_becomes_a_result_that_the_server_accepts(returned: Any) -> None:
    sealed = REPORTS.result(command("a"), returned, NOW)
    assert [to_json(accepted) for accepted in decode_feedbacks(sealed.encoded)] == [to_json(sealed.feedback)]
    assert sealed.feedback.digest


class CarelessWorld(World):
    """Its handlers return `returned`."""

    returned: Any

    def _take_effect(self, *arguments: Any) -> Any:
        super()._take_effect(*arguments)
        return self.returned


@pytest.mark.parametrize("returned", [None, Result("Done.", {"n": 2**70}), Result("Done.", {"file": "\udcff"})])
def test_unreportable_result_ends_its_command_once_and_the_next_one_runs(returned: Any) -> None:
    def keep(store: CommandStore) -> CommandStore:
        return store

    world = CarelessWorld(MemoryCommandStore(), keep)
    world.returned = returned
    world.send("again")
    world.settle()
    world.returned = Result("Done.")
    world.kill_agent()
    world.send("again")
    world.settle()
    results = [row.result or {} for row in world.ledger.commands()]
    assert sorted(str(result.get("code")) for result in results) == ["None", "failed"]
    assert len(world.effects) == 2
    world.ledger.database.close()
