"""The API that `acm server` serves: a real process, which the first connection begins."""

import os
import signal
import socket
import sys
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from broker.api.address import ApiAddressError
from broker.app.config import ServerConfig
from broker.app.factories import open_ledger
from broker.app.hosted_api import hosted_api
from broker.web.addresses import listen_at
from tests.support.brokers import free_port
from tests.support.errors import raises_code
from tests.support.machine import command_lines
from tests.support.waiting import wait_for


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    ledger = f"sqlite:///{tmp_path}/ledger.db"
    with open_ledger(ledger):
        pass
    return ServerConfig(ledger=ledger, api_listen=f"127.0.0.1:{free_port()}")


def processes() -> list[int]:
    """Return the processes that serve an API of this one."""
    found = [pid for pid, words in command_lines() if "hosted_api_process" in words]
    return [pid for pid in found if parent_of(pid) == os.getpid()]


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


def code_of_answer(config: ServerConfig) -> str:
    """Return the code of the problem that a request without a credential gets."""
    answer = httpx.get(f"http://{config.api_listen}/v1/me", timeout=60, trust_env=False)
    return str(answer.json()["code"])


def test_first_connection_begins_it_and_the_end_of_the_server_ends_it(config: ServerConfig) -> None:
    with hosted_api(config) as api:
        assert api is not None
        assert processes() == []
        assert code_of_answer(config) == "missing_credential"
        (begun,) = processes()
        api.reload()
        assert code_of_answer(config) == "missing_credential"
        assert processes() == [begun]
    assert processes() == []


def test_killed_one_is_begun_again_by_the_next_connection(config: ServerConfig) -> None:
    with hosted_api(config):
        assert code_of_answer(config) == "missing_credential"
        (begun,) = processes()
        os.kill(begun, signal.SIGKILL)
        assert code_of_answer(config) == "missing_credential"
        (again,) = processes()
    assert again != begun


def test_one_that_cannot_start_is_logged_and_harms_nobody(config: ServerConfig, tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("none")
    host, _, port = config.api_listen.rpartition(":")
    with capture_logs() as logs, hosted_api(config), socket.create_connection((host, int(port))):
        ended = wait_for(lambda: [it for it in logs if it["event"] == "api_ended"], "its end")
    assert ended[0]["exit_code"] == 1


def test_address_in_use_is_one_line_in_the_log(config: ServerConfig) -> None:
    host, _, port = config.api_listen.rpartition(":")
    with listen_at((host, int(port))), capture_logs() as logs, hosted_api(config) as api:
        assert api is None
    assert [(it["event"], it["log_level"]) for it in logs] == [("api_not_served", "warning")]


def test_installation_without_it_is_one_line_in_the_log(config: ServerConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with capture_logs() as logs, hosted_api(config) as api:
        assert api is None
    assert [(it["event"], it["log_level"]) for it in logs] == [("api_not_served", "info")]


def test_one_that_is_off_listens_nowhere() -> None:
    with capture_logs() as logs, hosted_api(ServerConfig(api_listen="off")) as api:
        assert api is None
    assert logs == []


def test_address_that_it_must_not_use_ends_the_start() -> None:
    config = ServerConfig(api_listen="0.0.0.0:8444")
    with raises_code(ApiAddressError, "not_loopback"), hosted_api(config):
        pass
