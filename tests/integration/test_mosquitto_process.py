"""Programs named mosquitto that do not start, or end: what `acm broker run` and its classes report."""

import socket
import sys
from pathlib import Path

import pytest

from broker.cli.broker import run
from broker.mosquitto.process import EmbeddedMosquitto, MosquittoError, SecuredMosquitto
from tests.support.errors import raises_code

FAILING = "print('Error: no luck', flush=True)\nsys.exit(3)\n"
SILENT = "signal.pause()\n"
ENDING = """
text = open(sys.argv[2]).read()
with socket.create_server(("127.0.0.1", int(re.search(r"^listener (\\d+)", text, re.M)[1]))) as listener:
    listener.accept()
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the file to write the program to."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin" / "mosquitto"


def install(program: Path, code: str) -> None:
    program.write_text(f"#!{sys.executable}\nimport re, signal, socket, sys\n{code}")
    program.chmod(0o755)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@pytest.mark.parametrize(("code", "reason"), [(FAILING, "Error: no luck"), (SILENT, "no output")])
def test_broker_that_does_not_start_is_reported_with_the_end_of_its_log(
    program: Path, tmp_path: Path, code: str, reason: str
) -> None:
    install(program, code)
    mosquitto = EmbeddedMosquitto(data_dir=tmp_path / "data", start_timeout_s=0.3 if code == SILENT else 10.0)
    with raises_code(MosquittoError, "mosquitto_not_started") as caught:
        mosquitto.start()
    assert str(caught.value).endswith(f" {reason}")
    assert not mosquitto.running


def test_broker_of_a_directory_that_does_not_start_is_reported_with_its_configuration(
    program: Path, tmp_path: Path
) -> None:
    install(program, FAILING)
    (tmp_path / "mosquitto.conf").write_text(f"listener {free_port()} 127.0.0.1\n")
    with raises_code(MosquittoError, "mosquitto_not_started") as caught, SecuredMosquitto(tmp_path):
        pass
    assert f"{tmp_path}/mosquitto.conf" in str(caught.value)


@pytest.mark.parametrize("secured", [False, True])
def test_run_reports_a_broker_that_ends_by_itself(program: Path, tmp_path: Path, secured: bool) -> None:
    install(program, ENDING)
    port = free_port()
    (tmp_path / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\n")
    with raises_code(MosquittoError, "mosquitto_error") as caught:
        run(tmp_path) if secured else run(None, port, tmp_path / "data")
    log = "above" if secured else f"{tmp_path}/data/mosquitto.log"
    assert str(caught.value).endswith(f"its log is {log}.")
