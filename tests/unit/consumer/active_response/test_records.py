"""The records of active responses, and the places in which they and the scripts' files are kept."""

import json
import threading
from pathlib import Path

import pytest

from consumer.active_response.records import ResponseRecords, read_pending
from consumer.active_response.script_runner import ScriptRunner
from consumer.active_response.wazuh_protocol import read_keys
from consumer.errors import ActiveResponseError, StoreError
from consumer.settings import ActiveResponseConfig, Confinement
from consumer.system.programs import Bounds
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock


def runner_in(directory: Path, clock: TurnedClock) -> ScriptRunner:
    return ScriptRunner(ActiveResponseConfig(), directory, clock, Confinement())


def test_records_in_a_file_are_an_error(tmp_path: Path) -> None:
    place = tmp_path / "records"
    place.write_bytes(b"")
    with raises_code(StoreError, "store_error"):
        ResponseRecords(place)


def test_damaged_record_is_an_error_of_the_list_of_reversals(tmp_path: Path) -> None:
    (tmp_path / "damaged.json").write_bytes(b"{")
    with raises_code(StoreError, "store_error"):
        read_pending(tmp_path)


def test_unprintable_characters_of_a_key_are_escaped() -> None:
    line = rb'{"version": 1, "command": "check_keys", "parameters": {"keys": ["a\u001b[2J"]}}'
    assert read_keys(line) == (r"a\x1b[2J",)


@pytest.mark.parametrize("keys", [["k"] * 17, ["x" * 1025]])
def test_too_many_or_too_long_keys_become_their_hash(keys: list[str]) -> None:
    line = json.dumps({"command": "check_keys", "parameters": {"keys": keys}}).encode()
    found = read_keys(line)
    assert found is not None
    assert found[0].startswith(f"{len(keys)} keys with the SHA-256 ")


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_second_script_waits_no_longer_than_its_bounds(tmp_path: Path, is_cancelled: bool) -> None:
    clock, cancelled = TurnedClock(), threading.Event()
    if is_cancelled:
        cancelled.set()
    runner = runner_in(tmp_path, clock)
    bounds = Bounds(clock, clock.monotonic() + is_cancelled, cancelled)
    with runner.exclusive(), raises_code(ActiveResponseError, "script_running"), runner.exclusive(bounds):
        pytest.fail("two scripts run at once")
    with runner.exclusive(bounds):
        pass


def test_working_directory_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "home").write_bytes(b"")
    with raises_code(ActiveResponseError, "active_response_error"):
        runner_in(tmp_path, TurnedClock()).prepare()
