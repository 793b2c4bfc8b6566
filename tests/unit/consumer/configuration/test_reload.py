"""Making a service read its configuration, and the files beside it."""

from pathlib import Path
from typing import Any, Literal

import pytest

from consumer.configuration.apply_journal import JournalFile
from consumer.configuration.effects import Effects
from consumer.configuration.generations import Generations
from consumer.configuration.reload import Reloader
from consumer.errors import CentralizedConfigurationError
from consumer.ports import ServiceState
from consumer.settings import CentralizedConfig
from consumer.system.leftovers import Leftovers
from consumer.system.programs import Bounds
from tests.support.errors import raises_code
from tests.support.fakes.clock import TurnedClock


class Restarted:
    """A service in one state, which is down after a restart."""

    def __init__(self, **detail: Any) -> None:
        self._state = ServiceState("child", running=True, incarnation="1", detail=detail)

    def state(self) -> ServiceState:
        return self._state

    def start(self, deadline: float) -> ServiceState:
        raise AssertionError("a reload starts nothing")

    stop = start

    def restart(self, deadline: float) -> ServiceState:
        return ServiceState("child", running=False)


def signal_nothing(pid: int, number: int) -> None:
    """The process has ended just before."""
    raise ProcessLookupError(3, "No such process")


def reloader(service: Restarted, reload: Literal["restart", "signal"]) -> Reloader:
    bounds = Bounds(TurnedClock(), 2000.0)
    settings = CentralizedConfig(reload=reload)
    return Reloader(settings, service, Path("/nowhere"), "agent.conf", bounds, Effects(send_signal=signal_nothing))


@pytest.mark.parametrize(
    ("service", "reload", "code"),
    [
        (Restarted(), "restart", "service_died_on_reload"),
        (Restarted(), "signal", "service_pid_unknown"),
        (Restarted(pid=1 << 30), "signal", "signal_not_sent"),
    ],
)
def test_reload_that_does_not_reach_the_service_is_an_error(
    service: Restarted, reload: Literal["restart", "signal"], code: str
) -> None:
    with raises_code(CentralizedConfigurationError, code):
        reloader(service, reload).reload("1")


def test_command_without_a_journal_has_applied_nothing(tmp_path: Path) -> None:
    assert JournalFile(tmp_path / "journal.json").read("a") is None


def test_incomplete_generation_has_no_record(tmp_path: Path) -> None:
    generations = Generations(tmp_path)
    generations.make_directories()
    generations.directory("000001-9f86d081884c").mkdir()
    assert generations.record("000001-9f86d081884c") is None


def test_first_generation_has_the_number_one(tmp_path: Path) -> None:
    assert Generations(tmp_path / "missing").next_name("9f86d081884c" + "0" * 52) == "000001-9f86d081884c"


def test_leftovers_of_a_crash_are_pruned(tmp_path: Path) -> None:
    generations = Generations(tmp_path)
    generations.make_directories()
    left = tmp_path / "generations" / ".000001-9f86d081884c.json.part"
    left.write_bytes(b"")
    generations.prune(1, Leftovers())
    assert not left.exists()
