"""What `acm up` says when everything works."""

import sys
from pathlib import Path

import pytest

from broker.app.config import ServerConfig
from broker.app.machine_directory import MachineDirectory
from broker.cli.next_steps import what_is_next


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    return ServerConfig(
        broker="mqtts://localhost:8883",
        broker_ca=str(tmp_path / "a b" / "ca.crt"),
        api_listen="127.0.0.1:9444",
        api_certificate=str(tmp_path / "api.crt"),
        api_key=str(tmp_path / "api.key"),
    )


def test_api_is_reached_with_the_authority_that_has_certified_it(tmp_path: Path, config: ServerConfig) -> None:
    (line,) = [it for it in what_is_next(MachineDirectory(tmp_path), config, None).splitlines() if "context add" in it]
    assert line.endswith(f" --server https://localhost:9444 --ca '{tmp_path}/a b/ca.crt'")


def test_api_that_is_not_installed_is_named_with_what_installs_it(
    tmp_path: Path, config: ServerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    assert "make install EXTRA=api" in what_is_next(MachineDirectory(tmp_path), config, None)


def test_api_that_is_off_is_not_named(tmp_path: Path) -> None:
    assert "API" not in what_is_next(MachineDirectory(tmp_path), ServerConfig(api_listen="off"), None)
