"""The golden frames: these files are what both sides have agreed on."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.contract.codec import (
    Message,
    decode_acks,
    decode_blob_chunks,
    decode_blob_requests,
    decode_commands,
    decode_controls,
    decode_feedbacks,
    decode_status,
    encode,
    to_json,
)
from broker.contract.commands import COMMAND_TYPES, parse_parameters
from broker.contract.messages import Command, Feedback, Origin
from broker.contract.schema import json_schema, render
from broker.contract.states import ErrorCode, FeedbackKind, Outcome
from scripts import schema

ROOT = Path(__file__).parents[2]
FRAMES = Path(__file__).parent / "frames"
RECEIVED_AT = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)
OUR_FRAMES = sorted(path.name for path in FRAMES.glob("*.json") if not path.name.startswith("foreign-"))

ID = "id was missing and was filled in"
CREATED_AT = "created_at was missing and was filled in"
WRAPPED = {"data": "restart agent", "error": 0, "extra_args": [], "status": ""}
FOREIGN_FORMS = {
    "a": ("upgrade_update_status", {}, Origin("node01", "upgrade_module"), (ID, CREATED_AT)),
    "b": (
        "001",
        {"extra_args": [], "error": 0, "data": "Upgrade Successful", "status": "Done"},
        Origin("node01", "upgradeModule"),
        (ID, CREATED_AT),
    ),
    "c": ("restart-agent", WRAPPED, Origin("node01", "restart"), (ID, CREATED_AT)),
    "d": ("restart-agent", WRAPPED, Origin("node01", "restart"), (ID, CREATED_AT)),
    "e": ("execute-active-response", WRAPPED, Origin("node01", "restart"), (ID, CREATED_AT)),
    "f": (
        "restart-agent",
        {},
        Origin("admin", "Users/Services"),
        (CREATED_AT, "action.version was ignored", "target was ignored: the topic names the agent"),
    ),
}


def commands(frame: bytes) -> list[Command]:
    return decode_commands(frame, received_at=RECEIVED_AT, new_id=lambda: "new-id")


def decode(name: str) -> list[Message]:
    frame = (FRAMES / name).read_bytes()
    match name.removesuffix(".json").split("-")[0]:
        case "blob" if "request" in name:
            return list(decode_blob_requests(frame))
        case "blob":
            return list(decode_blob_chunks(frame))
        case "command":
            return list(commands(frame))
        case "control":
            return list(decode_controls(frame))
        case "ack":
            return list(decode_acks(frame))
        case "feedback":
            return list(decode_feedbacks(frame))
        case _:
            return [decode_status(frame)]


@pytest.mark.parametrize("name", OUR_FRAMES)
def test_golden_frame_is_decoded_and_encoded_without_loss(name: str) -> None:
    frame = json.loads((FRAMES / name).read_bytes())
    assert json.loads(encode(decode(name))) == frame


def test_result_is_decoded_into_typed_members() -> None:
    (result,) = decode("feedback-result-error.json")
    assert isinstance(result, Feedback)
    assert (result.kind, result.outcome, result.code) == (
        FeedbackKind.RESULT,
        Outcome.ERROR,
        ErrorCode.UNSUPPORTED,
    )


@pytest.mark.parametrize("name", OUR_FRAMES)
def test_codec_and_dataclasses_json_give_the_same_json(name: str) -> None:
    for message in decode(name):
        assert json.loads(encode([message])) == to_json(message) == json.loads(message.to_json())


def test_each_kind_of_feedback_has_a_frame() -> None:
    kinds = {
        json.loads((FRAMES / name).read_bytes())["kind"]
        for name in OUR_FRAMES
        if "feedback" in name and "batch" not in name
    }
    assert kinds == set(FeedbackKind)


@pytest.mark.parametrize("command_type", COMMAND_TYPES)
def test_each_command_type_has_a_frame_with_valid_parameters(command_type: str) -> None:
    (command,) = decode(f"command-{command_type}.json")
    assert isinstance(command, Command)
    assert command.type == command_type
    shape = COMMAND_TYPES[command_type].parameters
    assert isinstance(parse_parameters(command_type, shape, command.parameters), shape)


@pytest.mark.parametrize("form", FOREIGN_FORMS)
def test_foreign_forms_are_decoded_with_notes_on_filled_in_members(form: str) -> None:
    frame = (FRAMES / f"foreign-{form}.json").read_bytes()
    command_type, parameters, origin, notes = FOREIGN_FORMS[form]
    assert commands(frame) == [
        Command(
            id="doc-1" if form == "f" else "new-id",
            type=command_type,
            parameters=parameters,
            origin=origin,
            created_at=RECEIVED_AT,
            original=json.loads(frame),
            notes=notes,
        )
    ]


@pytest.mark.parametrize("form", FOREIGN_FORMS)
def test_command_in_a_foreign_form_survives_the_store(form: str) -> None:
    first = commands((FRAMES / f"foreign-{form}.json").read_bytes())
    assert commands(encode(first)) == first


def test_schema_file_is_up_to_date() -> None:
    assert (ROOT / "docs" / "schema.json").read_text(encoding="utf-8") == render()


def test_schema_is_written_to_the_given_path(tmp_path: Path) -> None:
    assert schema.main([str(tmp_path / "schema.json")]) == 0
    assert (tmp_path / "schema.json").read_text(encoding="utf-8") == render()
    assert schema.main([]) == 2


def test_schema_has_every_message_and_every_types_parameters() -> None:
    definitions = json_schema()["$defs"]
    assert {"Command", "Control", "Ack", "Feedback", "Status", "BlobRequest", "BlobChunk"} <= definitions.keys()
    shapes = [shape for kind in COMMAND_TYPES.values() for shape in (kind.parameters, kind.data)]
    assert {shape.__name__ for shape in shapes} <= definitions.keys()
