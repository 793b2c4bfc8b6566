"""The directory of `acm up`, before anything is started: what is made, completed, renewed and refused."""

import os
import socket
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from broker.app.config import ServerConfig
from broker.app.machine_directory import MachineDirectory, MachineDirectoryError, RequestedPlace
from broker.app.occupancy import AlreadyRuns, OccupancyError
from broker.errors import ExposedFileError, LedgerError
from broker.ledger.migrations import SCHEMA_VERSION
from broker.pki.authority import CertificateAuthority
from broker.system.lock import locked
from tests.support.brokers import free_port
from tests.support.errors import raises_code
from tests.support.waiting import wait_for
from tests.unit.broker.ledger.test_migrations import FIRST_TABLES


@pytest.fixture
def place() -> RequestedPlace:
    return RequestedPlace((), free_port(), free_port(), free_port())


@pytest.fixture
def machine(tmp_path: Path) -> MachineDirectory:
    return MachineDirectory(tmp_path / "acm")


def prepared(machine: MachineDirectory, place: RequestedPlace) -> ServerConfig:
    with machine.taken():
        return machine.prepare(place)


def files_of(machine: MachineDirectory) -> dict[Path, bytes]:
    return {path: path.read_bytes() for name in ("ca", "broker") for path in (machine.path / name).rglob("*.*")}


def test_first_call_makes_private_files_and_the_second_changes_none(
    machine: MachineDirectory, place: RequestedPlace
) -> None:
    config = prepared(machine, place)
    assert config.broker == f"mqtts://localhost:{place.broker_port}"
    assert config.enroll_listen == f"127.0.0.1:{place.enroll_port}"
    assert config.api_listen == f"127.0.0.1:{place.api_port}"
    assert stat.S_IMODE(machine.path.stat().st_mode) == 0o700
    secrets = [machine.settings, *machine.path.rglob("*.key"), machine.broker / "broker.pem"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    before = files_of(machine)
    assert prepared(machine, RequestedPlace()) == config
    assert files_of(machine) == before


def test_hosts_are_served_on_all_addresses(machine: MachineDirectory, place: RequestedPlace) -> None:
    config = prepared(machine, replace(place, hosts=("mqtt.example.org",)))
    assert config.enroll_listen == f"0.0.0.0:{place.enroll_port}"
    assert config.enroll_broker == f"mqtts://mqtt.example.org:{place.broker_port}"


PREPARE = """
import sys
from pathlib import Path
from broker.app.machine_directory import MachineDirectory, RequestedPlace
machine = MachineDirectory(Path(sys.argv[1]))
with machine.taken():
    machine.prepare(RequestedPlace((), *map(int, sys.argv[2:])))
"""


@pytest.mark.parametrize("last", ["ca/ca.key", "ca/ca.crt", "ca/signing", "broker/enroll.crt", "broker/server.toml"])
def test_call_that_was_killed_is_completed_by_the_next(
    machine: MachineDirectory, place: RequestedPlace, last: str
) -> None:
    ports = map(str, (place.broker_port, place.enroll_port, place.api_port))
    argv = [sys.executable, "-c", PREPARE, str(machine.path), *ports]
    with subprocess.Popen(argv) as preparing:
        wait_for((machine.path / last).exists, last, 60)
        preparing.kill()
    config = prepared(machine, place)
    assert config.enroll_listen == f"127.0.0.1:{place.enroll_port}"
    assert f"listener {place.broker_port} 127.0.0.1" in (machine.broker / "mosquitto.conf").read_text()


@pytest.mark.parametrize("name", ["mosquitto.conf", "acl", "crl.pem", "enroll.crt", "api.crt"])
def test_missing_file_is_made_for_the_place_that_agents_know(
    machine: MachineDirectory, place: RequestedPlace, name: str
) -> None:
    prepared(machine, place)
    before = {path: content for path, content in files_of(machine).items() if path.name != name}
    (machine.broker / name).unlink()
    prepared(machine, RequestedPlace())
    assert (machine.broker / name).exists()
    assert f"listener {place.broker_port} 127.0.0.1" in (machine.broker / "mosquitto.conf").read_text()
    kept = {path: content for path, content in files_of(machine).items() if path.name != name}
    assert {path.name for path in kept if kept[path] != before[path]} <= {
        *("broker.pem", "crl.pem", "api.crt", "api.key", "enroll.crt", "enroll.key", "server.crt", "server.key")
    }


@pytest.mark.parametrize(
    ("changed", "option"),
    [
        (RequestedPlace(("mqtt.example.org",)), "--host"),
        (RequestedPlace((), 1), "--port"),
        (RequestedPlace((), None, 1), "--enroll-port"),
        (RequestedPlace((), None, None, 1), "--api-port"),
    ],
)
def test_place_that_agents_know_is_not_changed_by_an_option(
    machine: MachineDirectory, place: RequestedPlace, changed: RequestedPlace, option: str
) -> None:
    prepared(machine, place)
    with raises_code(MachineDirectoryError, "other_place") as caught:
        prepared(machine, changed)
    assert f"another value of {option}," in str(caught.value)


@pytest.mark.parametrize("which", ["broker_port", "enroll_port", "api_port"])
def test_port_in_use_is_refused_before_anything_is_made(
    machine: MachineDirectory, place: RequestedPlace, which: str
) -> None:
    with socket.create_server(("127.0.0.1", getattr(place, which))), raises_code(MachineDirectoryError, "port_in_use"):
        prepared(machine, place)
    assert not (machine.path / "ca").exists()
    prepared(machine, place)
    with socket.create_server(("127.0.0.1", getattr(place, which))), raises_code(MachineDirectoryError, "port_in_use"):
        prepared(machine, place)


def test_address_of_another_machine_is_refused(machine: MachineDirectory, place: RequestedPlace) -> None:
    prepared(machine, place)
    text = machine.settings.read_text().replace("127.0.0.1:", "192.0.2.1:")
    machine.settings.write_text(text)
    with raises_code(MachineDirectoryError, "cannot_listen"):
        prepared(machine, place)


@pytest.mark.parametrize("exposed", ["", "run", "log", "broker", "ca", "ledger.db", "broker/acl", "broker/crl.pem"])
def test_what_others_can_write_is_refused(machine: MachineDirectory, place: RequestedPlace, exposed: str) -> None:
    prepared(machine, place)
    (machine.path / exposed).chmod(0o777)
    with raises_code(ExposedFileError, "writable_by_others"):
        prepared(machine, place)


@pytest.mark.parametrize("name", ["broker.pem", "server.key", "enroll.key", "api.key"])
def test_key_that_others_can_read_is_refused(machine: MachineDirectory, place: RequestedPlace, name: str) -> None:
    prepared(machine, place)
    (machine.broker / name).chmod(0o644)
    with raises_code(ExposedFileError, "readable_by_others"):
        prepared(machine, place)


def test_ledger_of_an_earlier_version_is_migrated(machine: MachineDirectory, place: RequestedPlace) -> None:
    prepared(machine, place)
    ledger = machine.path / "ledger.db"
    ledger.unlink()
    with closing(sqlite3.connect(ledger)) as connection:
        connection.executescript(FIRST_TABLES)
    said: list[str] = []
    with machine.taken():
        machine.prepare(RequestedPlace(), said.append)
    assert said
    with closing(sqlite3.connect(ledger)) as connection:
        assert connection.execute("SELECT version FROM schema_version").fetchall() == [(SCHEMA_VERSION,)]
        connection.execute("UPDATE schema_version SET version = 99")
        connection.commit()
    with raises_code(LedgerError, "newer_schema"):
        prepared(machine, RequestedPlace())


@pytest.mark.parametrize("name", ["a b", "100%", "ü#1"])
def test_directory_may_have_any_name_that_a_url_can_have(tmp_path: Path, place: RequestedPlace, name: str) -> None:
    prepared(MachineDirectory(tmp_path / name), place)
    assert (tmp_path / name / "ledger.db").exists()


@pytest.mark.parametrize("name", ["a?b", "x%41"])
def test_directory_that_no_url_can_have_is_refused(tmp_path: Path, place: RequestedPlace, name: str) -> None:
    with raises_code(MachineDirectoryError, "path_not_in_url"):
        prepared(MachineDirectory(tmp_path / name), place)


def test_directory_of_another_user_is_refused(machine: MachineDirectory, place: RequestedPlace) -> None:
    assert os.geteuid() == 0, "run this test as root: it gives a directory away"
    machine.path.mkdir()
    os.chown(machine.path, 65534, 65534)
    with raises_code(MachineDirectoryError, "directory_of_another_user"):
        prepared(machine, place)
    assert list(machine.path.iterdir()) == []


def test_file_in_the_place_of_the_directory_is_refused(machine: MachineDirectory, place: RequestedPlace) -> None:
    machine.path.write_text("")
    with raises_code(MachineDirectoryError, "unusable_directory"):
        prepared(machine, place)


def test_what_expired_while_nothing_ran_is_renewed(machine: MachineDirectory, place: RequestedPlace) -> None:
    prepared(machine, place)
    then = datetime.now(UTC) - timedelta(days=360)
    authority = CertificateAuthority(machine.path / "ca", now=lambda: then)
    crl = machine.broker / "crl.pem"
    crl.unlink()
    authority.write_revocation_list(lambda: [], crl)
    authority.write_client_certificate("acm-server", machine.broker, "server")
    prepared(machine, RequestedPlace())
    now = datetime.now(UTC)
    assert (x509.load_pem_x509_crl(crl.read_bytes()).next_update_utc or then) > now
    certificate = x509.load_pem_x509_certificate((machine.broker / "server.crt").read_bytes())
    assert certificate.not_valid_after_utc > now + timedelta(days=300)


def test_second_one_in_a_directory_is_refused_with_the_process_of_the_first(machine: MachineDirectory) -> None:
    with machine.taken(), raises_code(AlreadyRuns, "already_runs") as caught, MachineDirectory(machine.path).taken():
        pass
    assert f"(process {os.getpid()})" in str(caught.value)
    assert (machine.occupancy.process, machine.occupancy.end(1.0)) == (None, False)


def test_programs_that_were_left_and_do_not_end_are_reported(
    machine: MachineDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.app.occupancy._LEFTOVERS_TIMEOUT_S", 0.1)
    with machine.taken():
        pass
    with locked(machine.run / "programs.lock"):
        with raises_code(OccupancyError, "leftovers_do_not_end"), machine.taken():
            pass
        with raises_code(OccupancyError, "leftovers_do_not_end"):
            machine.occupancy.end(1.0)
