"""When a client connects again: growing waits with jitter, and minutes where another client has the same name."""

import pytest

from broker.mqtt.reconnect_policy import End, ReconnectPolicy
from tests.support.fakes.clock import TurnedClock


@pytest.fixture
def policy(clock: TurnedClock) -> ReconnectPolicy:
    return ReconnectPolicy(clock.monotonic)


def connected_for(policy: ReconnectPolicy, clock: TurnedClock, seconds: float, end: End = End.CLOSED) -> float:
    policy.connected()
    clock.turn(seconds)
    return policy.wait_after(end)


def test_waits_grow_while_the_broker_is_away(policy: ReconnectPolicy) -> None:
    waits = [policy.wait_after(End.UNREACHED) for _ in range(8)]
    for wait, longest in zip(waits, (1, 2, 4, 8, 16, 30, 30, 30), strict=True):
        assert longest / 2 <= wait <= longest


def test_waits_of_two_clients_differ(clock: TurnedClock) -> None:
    first, second = (ReconnectPolicy(clock.monotonic) for _ in range(2))
    waits = [(first.wait_after(End.UNREACHED), second.wait_after(End.UNREACHED)) for _ in range(10)]
    assert all(one != other for one, other in waits)


def test_waits_begin_anew_only_after_a_connection_that_lasted(policy: ReconnectPolicy, clock: TurnedClock) -> None:
    for _ in range(5):
        policy.wait_after(End.UNREACHED)
    assert connected_for(policy, clock, 1, End.EXPLAINED) >= 16
    assert connected_for(policy, clock, 1, End.EXPLAINED) >= 32
    assert connected_for(policy, clock, 60, End.EXPLAINED) <= 1


def test_client_whose_session_was_taken_over_yields_for_minutes(policy: ReconnectPolicy, clock: TurnedClock) -> None:
    assert 120 <= connected_for(policy, clock, 3600, End.TAKEN_OVER) <= 240
    assert 240 <= connected_for(policy, clock, 300, End.TAKEN_OVER) <= 480
    assert connected_for(policy, clock, 3600, End.CLOSED) <= 1
    assert 120 <= connected_for(policy, clock, 1, End.TAKEN_OVER) <= 240


def test_another_client_is_suspected_after_several_connections_that_ended_at_once(
    policy: ReconnectPolicy, clock: TurnedClock
) -> None:
    for _ in range(4):
        assert connected_for(policy, clock, 1) <= 16
        assert not policy.suspects_another_client
    assert connected_for(policy, clock, 1) >= 60
    assert policy.suspects_another_client
    connected_for(policy, clock, 60)
    assert not policy.suspects_another_client


def test_broker_that_is_restarted_is_not_taken_for_another_client(policy: ReconnectPolicy, clock: TurnedClock) -> None:
    for _ in range(10):
        connected_for(policy, clock, 1)
        policy.wait_after(End.UNREACHED)
        assert not policy.suspects_another_client


def test_waits_grow_while_connections_are_abandoned_again_and_again(
    policy: ReconnectPolicy, clock: TurnedClock
) -> None:
    waits = [connected_for(policy, clock, 61, End.ABANDONED) for _ in range(10)]
    for wait, longest in zip(waits, (1, 2, 4, 8, 16, 32, 64, 128, 256, 300), strict=True):
        assert longest / 2 <= wait <= longest
    assert not policy.suspects_another_client
    assert connected_for(policy, clock, 3600, End.ABANDONED) <= 1
