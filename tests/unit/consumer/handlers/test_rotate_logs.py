"""The example's handler: logs that are set aside once, whatever dies on the way."""

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from rotate_logs.contract import COMMAND_TYPE, RotateLogs, RotateLogsData
from rotate_logs.handler import HANDLER, RotationError

from broker.contract.commands import InvalidParameters, parse_parameters
from consumer.handler import Context, Result
from consumer.services import NoService
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import NOW, command


class Died(BaseException):
    pass


class DiesAt:
    def reached(self, step: str) -> None:
        raise Died(step)


CONTEXT = Context(TurnedClock(), NoService(), Path("/nowhere"))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "sensor.log"
    path.write_text("first\n")
    path.chmod(0o640)
    return path


def rotate(log: Path, keep: int = 7, hour: int = 0, context: Context = CONTEXT) -> RotateLogsData:
    told = replace(command("0190f5b2-07398f"), created_at=NOW + timedelta(hours=hour))
    result = HANDLER.execute(told, RotateLogs(str(log), keep), context)
    assert isinstance(result, Result)
    assert isinstance(result.data, RotateLogsData)
    return result.data


def test_log_is_rotated(log: Path) -> None:
    data = rotate(log)
    target = log.with_name("sensor.log.20260102T000000Z-07398f")
    assert data == RotateLogsData(str(target), len("first\n"), ())
    assert target.read_text() == "first\n"
    assert (log.read_text(), log.stat().st_mode & 0o777) == ("", 0o640)
    assert sorted(os.listdir(log.parent)) == ["sensor.log", target.name]


def test_second_run_of_the_same_rotation_changes_nothing(log: Path) -> None:
    first = rotate(log)
    log.write_text("second\n")
    assert rotate(log) == first
    assert log.read_text() == "second\n"


def test_interrupted_rotation_is_finished_by_the_next_run(log: Path) -> None:
    with pytest.raises(Died, match=r"rotate-logs\.linked"):
        rotate(log, context=replace(CONTEXT, observer=DiesAt()))
    assert log.read_text() == "first\n"
    rotated = rotate(log).rotated
    assert rotated is not None
    assert Path(rotated).read_text() == "first\n"
    assert log.read_text() == ""


def test_only_the_oldest_rotated_logs_are_deleted(log: Path) -> None:
    beside = log.with_name("sensor.log.mine")
    beside.touch()
    rotated = []
    for hour in range(3):
        log.write_text(f"{hour}\n")
        data = rotate(log, keep=2, hour=hour)
        rotated.append(data.rotated)
    assert data.removed == (rotated[0],)
    assert sorted(map(str, log.parent.iterdir())) == sorted(filter(None, [str(log), str(beside), *rotated[1:]]))


def test_empty_log_is_not_rotated(log: Path) -> None:
    log.write_text("")
    assert rotate(log) == RotateLogsData(None, None, ())
    assert os.listdir(log.parent) == [log.name]


def test_rotation_of_a_path_that_is_not_a_file_is_refused(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = log.with_name("link.log")
    link.symlink_to(log)
    monkeypatch.chdir(log.parent)
    for path in (link, log.parent, Path("/"), Path(log.name)):
        with pytest.raises(RotationError, match="not the absolute path of a regular file"):
            rotate(path)
    with pytest.raises(RotationError, match=r"nowhere\.log cannot be rotated: No such file or directory"):
        rotate(log.with_name("nowhere.log"))
    assert log.read_text() == "first\n"


@pytest.mark.parametrize("parameters", [{}, {"path": ""}, {"path": "/x", "keep": 0}, {"path": "/x", "size": 1}])
def test_parameters_that_do_not_fit(parameters: dict[str, object]) -> None:
    with pytest.raises(InvalidParameters):
        parse_parameters("rotate-logs", COMMAND_TYPE.parameters, parameters)
