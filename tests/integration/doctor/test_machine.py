"""The doctor's findings on disks, permissions and versions, with real mounts, files and programs."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pytest

from broker.app.config import ServerConfig
from broker.app.factories import open_database, open_ledger
from broker.contract.messages import Status
from broker.doctor import disks, files, versions
from broker.doctor.disks import check_disks
from broker.doctor.files import check_files
from broker.doctor.places import configured_directories
from broker.doctor.versions import check_agents_versions, check_versions
from broker.pki.authority import create_authority
from broker.signing.key_store import create_signing_keys
from tests.support.findings import codes, only
from tests.support.recorded import record_status
from tests.support.unprivileged import as_nobody, let_others_pass

# -- disks: these tests need root, to mount


@contextmanager
def disk(directory: Path, options: str) -> Iterator[Path]:
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def test_disk_with_room(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "size=64m") as directory:
        findings = list(check_disks([directory, directory]))
    assert codes(findings) == []
    assert "64 MiB of 64 MiB" in findings[0].found
    assert len(findings) == 1


def test_disk_that_fills(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "size=300m") as directory:
        subprocess.run(["fallocate", "-l", "280M", directory / "filler"], check=True)
        only(check_disks([directory]), disks.FILLS, "20 MiB of 300 MiB", "acm prune")


def test_disk_without_room(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "size=64m") as directory:
        subprocess.run(["fallocate", "-l", "60M", directory / "filler"], check=True)
        only(check_disks([directory]), disks.FULL, "4 MiB of 64 MiB", "df -h")


def test_disk_without_inodes(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "size=64m,nr_inodes=2") as directory:
        only(check_disks([directory]), disks.FULL, "no inodes", "df -i")


def test_disk_that_is_read_only(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", "size=64m,ro") as directory:
        only(check_disks([directory]), disks.NOT_WRITABLE, "read only", "remount")


def test_all_directories_of_a_configuration_are_looked_at(tmp_path: Path) -> None:
    for name in ("ca", "ca/signing", "broker", "ledger"):
        (tmp_path / name).mkdir()
    config = ServerConfig(
        ca=f"{tmp_path}/ca", crl=f"{tmp_path}/broker/crl.pem", ledger=f"sqlite:///{tmp_path}/ledger/ledger.db"
    )
    assert configured_directories(config) == [tmp_path / it for it in ("ca", "ca/signing", "ledger", "broker")]


# -- permissions


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    """An authority with signing keys, a ledger, and keys of the enrolment server and the API."""
    ca = tmp_path / "ca"
    create_authority(ca, "test", datetime.now(UTC))
    create_signing_keys(ca / "signing", datetime.now(UTC))
    open_database(f"sqlite:///{tmp_path}/ledger.db").close()
    keys = {"enroll_key": tmp_path / "enroll.key", "api_key": tmp_path / "api.key"}
    for key in keys.values():
        key.write_text("a key")
        key.chmod(0o600)
    paths = {name: str(path) for name, path in keys.items()} | {"api_certificate": str(tmp_path / "api.crt")}
    return ServerConfig(ca=str(ca), ledger=f"sqlite:///{tmp_path}/ledger.db", **paths)


def test_files_of_one_user_alone(config: ServerConfig) -> None:
    assert codes(check_files(config)) == []


@pytest.mark.parametrize(
    ("name", "mode", "fix"),
    [
        ("ledger.db", 0o666, "chmod go-w"),
        ("enroll.key", 0o644, "chmod 0600"),
        ("api.key", 0o644, "chmod 0600"),
        ("ca/signing", 0o777, "chmod go-w"),
        ("ca", 0o777, "chmod go-w"),
    ],
)
def test_file_that_others_could_use(config: ServerConfig, tmp_path: Path, name: str, mode: int, fix: str) -> None:
    (tmp_path / name).chmod(mode)
    found = next(it for it in check_files(config) if it.code != "ok")
    only([found], files.EXPOSED, f"{tmp_path}/{name}", fix)


def lose_the_authority(ca: Path) -> None:
    (ca / "ca.key").write_text("no key")


def lose_a_signing_key(ca: Path) -> None:
    next((ca / "signing").glob("*.key")).unlink()


@pytest.mark.parametrize("lose", [lose_the_authority, lose_a_signing_key])
def test_keys_that_cannot_be_read(config: ServerConfig, lose: Callable[[Path], None]) -> None:
    lose(Path(config.ca))
    only(check_files(config), files.KEYS_UNUSABLE, str(Path(config.ca)), "backup")


def test_files_that_this_user_may_not_look_at(config: ServerConfig, tmp_path: Path) -> None:
    """Needs root, to become another user."""
    let_others_pass(tmp_path)
    with as_nobody():
        found = list(check_files(config))
        assert {it.code for it in found} == {"not_checked"}
        assert config.ca in found[0].found
        assert set(codes(check_disks(configured_directories(config)))) <= {"not_checked"}


# -- versions


def test_versions_are_shown() -> None:
    (found,) = check_versions()
    assert (found.code, f"acm {version('agent-command-manager')}, Python 3." in found.found) == ("ok", True)


def test_mosquitto_that_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "mosquitto"
    program.write_text("#!/bin/sh\necho 'mosquitto version 1.6.12'\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    only(check_versions(), versions.OLD_MOSQUITTO, "Mosquitto 1.6.12", "2.0")


def test_agents_that_are_newer(ledger_url: str) -> None:
    with open_ledger(ledger_url) as ledger:
        for agent, release in (("web-01", "99.1"), ("web-02", "0.0.1"), ("web-03", "strange")):
            record_status(ledger, Status(agent, True, release, "i1", "b1", "g1"))
    only(check_agents_versions(ledger_url), versions.AGENTS_NEWER, "1 agent runs a newer version", "web-01")
