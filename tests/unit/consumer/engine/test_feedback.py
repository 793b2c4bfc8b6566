"""What the agent says of a command."""

import hashlib
from dataclasses import replace

import pytest

from broker.contract.codec import MAX_FRAME_BYTES, decode_feedbacks, encode
from broker.contract.messages import Output
from broker.contract.states import ErrorCode, Outcome
from consumer.engine.feedback import FeedbackFactory
from consumer.engine.sealing import shortened
from consumer.handler import Result
from tests.support.makers import NOW, command


def nested(depth: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for _ in range(depth - 1):
        value = {"in": value}
    return value


REPORTS = FeedbackFactory("web-01", "i1", "g1")


def test_result_echoes_the_command_and_has_the_outcome() -> None:
    said = REPORTS.result(command("a"), Result("Done.", {"x": 1}), NOW).feedback
    assert (said.status, said.outcome, said.code, said.data) == ("completed", Outcome.SUCCESS, None, {"x": 1})
    assert said.command is not None
    assert (said.command["id"], said.command["status"]) == ("a", "processing")


def test_digest_differs_between_results() -> None:
    one, other = (REPORTS.result(command("a"), Result(text), NOW).feedback.digest for text in ("Done.", "Undone."))
    assert one != other
    assert one == REPORTS.result(command("a"), Result("Done."), NOW).feedback.digest


def test_digest_is_the_hash_of_the_encoded_result_without_its_last_member() -> None:
    sealed = REPORTS.result(command("a"), Result("Done.", {"x": 1}), NOW)
    end = f',"digest":"{sealed.feedback.digest}"}}'.encode()
    assert sealed.encoded.endswith(end)
    assert hashlib.sha256(sealed.encoded.removesuffix(end) + b"}").hexdigest() == sealed.feedback.digest
    assert decode_feedbacks(sealed.encoded) == [sealed.feedback]


@pytest.mark.parametrize(
    ("echoed", "output", "data", "left_out"),
    [
        (1000, 1000, 1000, []),
        (262_000, 1000, 1000, ["command"]),
        (200_000, 300_000, 1000, ["command", "output"]),
        (200_000, 300_000, 300_000, ["command", "output", "data"]),
    ],
)
def test_result_too_long_for_a_frame_drops_parts_and_notes_them(
    echoed: int, output: int, data: int, left_out: list[str]
) -> None:
    long = replace(command("a"), parameters={"text": "x" * echoed})
    sealed = REPORTS.result(long, Result("Done.", {"d": "x" * data}, output=Output("\x01" * output)), NOW)
    said = sealed.feedback
    assert len(sealed.encoded) <= MAX_FRAME_BYTES
    assert decode_feedbacks(sealed.encoded) == [said]
    assert [part for part in ("command", "output", "data") if getattr(said, part) is None] == left_out
    assert [note.split()[0] for note in said.notes] == left_out


def test_result_with_long_texts_is_cut_to_what_the_server_accepts() -> None:
    said = REPORTS.result(command("a"), Result("x" * 5000, output=Output("o" * 70_000, "e")), NOW).feedback
    assert said.message == "x" * 4095 + "…"
    assert said.output == Output("o" * 65_535 + "…", "e", truncated=True)
    assert decode_feedbacks(encode([said])) == [said]


@pytest.mark.parametrize("data", [{"k" * 1025: 1}, {str(key): 0 for key in range(1025)}, nested(40)])
def test_data_that_the_server_would_refuse_is_dropped(data: dict[str, object]) -> None:
    said = REPORTS.result(command("a"), Result("Done.", data), NOW).feedback
    assert (said.data, said.notes[-1].split()[0]) == (None, "data")
    assert decode_feedbacks(encode([said])) == [said]


def test_an_error_has_a_code() -> None:
    said = REPORTS.result(command("a"), Result("It broke.", code=ErrorCode.FAILED), NOW).feedback
    assert (said.outcome, said.code) == (Outcome.ERROR, ErrorCode.FAILED)


@pytest.mark.parametrize("max_bytes", [50_000, 3000, 700])
def test_shortened_result_fits_and_keeps_its_digest(max_bytes: int) -> None:
    noted = replace(command("a"), notes=("n" * 1000,) * 5, parameters={"text": "p" * 10_000})
    sealed = REPORTS.result(noted, Result("m" * 4096, {"d": "x" * 60_000}, output=Output("o" * 60_000)), NOW)
    (said,) = decode_feedbacks(shortened(sealed.encoded, max_bytes))
    assert len(shortened(sealed.encoded, max_bytes)) <= max_bytes
    assert (said.digest, said.outcome, said.data) == (sealed.feedback.digest, Outcome.SUCCESS, None)
    assert shortened(sealed.encoded, len(sealed.encoded)) == sealed.encoded
