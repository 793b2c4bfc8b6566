"""The examples and limits in docs/protocol.md are those of the codec."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from broker.contract.codec import (
    decode_acks,
    decode_blob_chunks,
    decode_blob_requests,
    decode_commands,
    decode_controls,
    decode_feedbacks,
    decode_status,
)
from broker.contract.limits import LIMITS, LISTS, MAX_REVERSALS, TEXTS, FrameLimits

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
EXAMPLES = [
    text for block in re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL) for text in re.split(r"\n(?=\{)", block)
]


def decoder(example: dict[str, Any]) -> Callable[[bytes], Any]:
    if "length" in example:
        return decode_blob_requests
    if "offset" in example:
        return decode_blob_chunks
    if "kind" in example:
        return decode_feedbacks
    if "action" in example:
        return decode_controls
    if "online" in example:
        return decode_status
    if "digest" in example:
        return decode_acks
    return lambda frame: decode_commands(frame, received_at=datetime.now(UTC), new_id=lambda: "new")


@pytest.mark.parametrize("text", EXAMPLES)
def test_example_in_the_protocol_document_is_a_valid_frame(text: str) -> None:
    assert decoder(json.loads(text))(text.encode())


def test_each_kind_of_message_has_an_example() -> None:
    kinds = [json.loads(text).get("kind") for text in EXAMPLES]
    assert len(EXAMPLES) == 12
    assert {"accepted", "progress", "gap", "result"} <= set(kinds)


def test_documented_limits_of_frames_are_those_of_the_codec() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| (\d+) \| (\d+) \|$", DOCUMENT, re.MULTILINE)
    said = {name: FrameLimits(*map(int, numbers)) for name, *numbers in rows}
    assert said == {str(channel): limits for channel, limits in LIMITS.items()}


def test_documented_limits_of_texts_and_lists_are_those_of_the_codec() -> None:
    table = DOCUMENT.partition("| message | texts |")[2].partition("\n\n")[0]
    for texts in TEXTS.values():
        for name, most in texts.items():
            assert re.search(rf"{name}`(, `[a-z.]+`)? {most}\b", table), name
    for lists in LISTS.values():
        for name, most in lists.items():
            assert f"`{name}` {most.items}, {most.characters}" in table, name
    assert f"`pending_reversals` {MAX_REVERSALS}," in table
