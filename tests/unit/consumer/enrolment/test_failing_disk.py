"""What becomes of an enrolment when its files cannot be read or written."""

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from broker.contract.enrolment_token import EnrolmentToken
from consumer.enrolment.enroll import enroll_by_hand
from consumer.enrolment.keys import new_key, read_key
from consumer.enrolment.store import (
    AttemptState,
    CertifiedGrant,
    Enrolment,
    EnrolmentAttempt,
    EnrolmentDirectory,
    StoredSigningKeys,
)
from consumer.enrolment.trial import EnrolmentTrial
from consumer.errors import EnrolmentError, StoreError
from consumer.store.state_directory import claim
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock
from tests.unit.consumer.enrolment.test_enrolment_directory import GRANT

GRANTED = CertifiedGrant(GRANT, "1", "certificate", "ca")


@pytest.mark.parametrize(
    "write",
    [
        lambda enrolments: enrolments.key_for("b" * 64),
        lambda enrolments: enrolments.add(GRANTED, new_key()),
        lambda enrolments: enrolments.record(EnrolmentAttempt("a", "1", GRANT, AttemptState.STAGED)),
        lambda enrolments: enrolments.store_signing_keys(StoredSigningKeys("e-1", 1, ("key",))),
        lambda enrolments: enrolments.keep_only("1"),
    ],
)
def test_file_in_place_of_the_directory_is_an_error_of_each_write(
    tmp_path: Path, write: Callable[[EnrolmentDirectory], object]
) -> None:
    (tmp_path / "enrolment").write_bytes(b"")
    with raises_code(EnrolmentError, "directory_unusable"):
        write(EnrolmentDirectory(tmp_path))


def test_current_enrolment_that_cannot_be_looked_up_is_an_error(tmp_path: Path) -> None:
    with raises_code(EnrolmentError, "directory_unusable"):
        EnrolmentDirectory(tmp_path / ("long" * 100)).current()


def test_key_that_cannot_be_looked_up_is_an_error(tmp_path: Path) -> None:
    with raises_code(EnrolmentError, "directory_unusable"):
        _ = Enrolment(tmp_path / ("long" * 100), GRANT).tls


def test_directory_in_place_of_the_current_link_is_not_replaced(tmp_path: Path) -> None:
    enrolments = EnrolmentDirectory(tmp_path)
    enrolments.add(GRANTED, new_key())
    (tmp_path / "enrolment" / "current").mkdir()
    with raises_code(EnrolmentError, "directory_unusable"):
        enrolments.make_current("1")
    assert enrolments.current() is None


def test_enrolment_that_is_a_file_is_removed(tmp_path: Path) -> None:
    place = tmp_path / "enrolment" / "enrolments" / "1"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"")
    EnrolmentDirectory(tmp_path).remove("1")
    assert not place.exists()


def test_files_of_a_connection_are_named_although_the_key_is_missing(tmp_path: Path) -> None:
    tls = Enrolment(tmp_path, GRANT).tls
    assert (tls.key, tls.key and Path(tls.key).exists()) == (tmp_path / "key.pem", False)


def test_key_that_is_none_is_an_error(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_bytes(b"no key")
    key.chmod(0o600)
    with raises_code(EnrolmentError, "invalid_key"):
        read_key(key)


def test_state_directory_that_is_a_file_is_not_enrolled(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_bytes(b"")
    token, clock = EnrolmentToken("s" * 22, "0" * 64), TurnedClock()
    with raises_code(StoreError, "state_directory_unusable"):
        enroll_by_hand(state, "https://127.0.0.1:1", token, "web-01", clock, clock.monotonic())


def test_state_directory_of_another_agent_is_not_enrolled(tmp_path: Path) -> None:
    claim(tmp_path, "web-02")
    token, clock = EnrolmentToken("s" * 22, "0" * 64), TurnedClock()
    with raises_code(StoreError, "state_directory_of_another_agent"):
        enroll_by_hand(tmp_path, "https://127.0.0.1:1", token, "web-01", clock, clock.monotonic())


def test_enrolment_whose_broker_has_no_valid_url_is_not_tried(tmp_path: Path) -> None:
    clock = TurnedClock()
    enrolment = Enrolment(tmp_path, replace(GRANT, broker="http://127.0.0.1"))
    trial = EnrolmentTrial(enrolment, "g1", "i1", clock, accept_unsigned=True)
    with raises_code(EnrolmentError, "invalid_broker"):
        trial.run(clock.monotonic() + 10, threading.Event())
