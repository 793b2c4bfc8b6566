"""Every part refuses files that others could change or secrets that they could read, with a named exit code."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.app.config import load_config as load_server_config
from broker.app.factories import open_database
from broker.contract.private_keys import private_key_to_pem
from broker.errors import ExposedFileError
from broker.pki.authority import CertificateAuthority, create_authority
from broker.system.files import write_durably
from consumer.cli.exit_codes import AgentExitCode
from consumer.config import read_sources
from consumer.enrolment.keys import new_key, read_key
from consumer.enrolment.store import Enrolment, EnrolmentDirectory
from consumer.store.opening import open_store
from consumer.upgrade.installation import Installation
from tests.support.acl import NAMED_USER, set_acl
from tests.support.errors import raises_code

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    directory = tmp_path / "state"
    open_store(directory, now=lambda: NOW).close()
    return directory


def acm_agent(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "consumer", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_state_directory_readable_by_others_is_made_private(state: Path) -> None:
    state.chmod(0o755)
    open_store(state, now=lambda: NOW).close()
    assert state.stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("place", ["state", "above"])
def test_state_directory_writable_by_others_is_refused_unchanged(state: Path, place: str) -> None:
    exposed = state if place == "state" else state.parent
    exposed.chmod(0o777)
    with raises_code(ExposedFileError, "writable_by_others"):
        open_store(state, now=lambda: NOW)
    assert exposed.stat().st_mode & 0o7777 == 0o777


RUN = ("run", "--agent", "web-01", "--broker", "mqtt://127.0.0.1:1")
ENROLL = ("enroll", "--agent", "web-01", "--server", "https://127.0.0.1:1")


@pytest.mark.parametrize(
    "words", [RUN, ENROLL, ("queue",), ("audit",), ("enrolment",), ("active-responses",)], ids=lambda it: it[0]
)
def test_every_command_refuses_an_exposed_state_directory(state: Path, words: tuple[str, ...]) -> None:
    state.chmod(0o770)
    done = acm_agent(*words, "--state", str(state))
    assert done.returncode == AgentExitCode.CONFIGURATION, done.stderr
    assert done.stderr.endswith(f"then run `chmod go-w {state}`.\n")
    assert done.stderr.count("\n") == 1


def test_root_may_read_the_state_of_an_agent_but_not_run_it(state: Path) -> None:
    os.chown(state, 65534, 65534)
    assert acm_agent("queue", "--state", str(state), "--json").stdout.strip() == "[]"
    done = acm_agent(*RUN, "--state", str(state))
    assert (done.returncode, "belongs to user nobody" in done.stderr) == (AgentExitCode.CONFIGURATION, True)


@pytest.mark.parametrize("mode", [0o640, 0o602])
def test_key_exposed_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    key = tmp_path / "key.pem"
    write_durably(key, private_key_to_pem(new_key()))
    assert key.stat().st_mode & 0o777 == 0o600
    read_key(key)
    key.chmod(mode | 0o004)
    for use in (lambda: read_key(key), lambda: Enrolment(tmp_path, None).tls):  # type: ignore[arg-type]
        with raises_code(ExposedFileError, "readable_by_others"):
            use()


def test_keys_are_made_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        EnrolmentDirectory(tmp_path).key_for("a" * 64)
    finally:
        os.umask(before)
    made = list((tmp_path / "enrolment").rglob("*"))
    assert {path.stat().st_mode & 0o777 for path in made} == {0o700, 0o600}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, int], Path]:
    def write(text: str, mode: int) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text)
        path.chmod(mode)
        return path

    return write


@pytest.mark.parametrize(
    ("text", "mode", "code"),
    [
        ("broker = 'mqtts://broker'", 0o644, None),
        ("broker = 'mqtts://broker'", 0o664, "writable_by_others"),
        ("broker = 'mqtts://me:hush@broker'", 0o600, None),
        ("broker = 'mqtts://me:hush@broker'", 0o644, "readable_by_others"),
    ],
)
def test_exposed_configuration_file_is_refused(
    write: Callable[[str, int], Path], text: str, mode: int, code: str | None
) -> None:
    path = write(text, mode)
    if code is None:
        read_sources(path, {}, {})
        load_server_config(path, {}, {})
        return
    for load in (read_sources, load_server_config):
        with raises_code(ExposedFileError, code) as caught:
            load(path, {}, {})
        assert str(caught.value).startswith(f"{path} ")
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "permissions", "code"),
    [
        ("broker = 'mqtts://broker'", 4, None),
        ("broker = 'mqtts://broker'", 6, "writable_by_acl"),
        ("broker = 'mqtts://me:hush@broker'", 4, "readable_by_acl"),
    ],
)
def test_configuration_exposed_by_an_access_control_list_is_refused(
    write: Callable[[str, int], Path], text: str, permissions: int, code: str | None
) -> None:
    path = write(text, 0o600)
    set_acl(path, NAMED_USER, 65534, permissions)
    for load in (read_sources, load_server_config):
        if code is None:
            load(path, {}, {})
            continue
        with raises_code(ExposedFileError, code) as caught:
            load(path, {}, {})
        assert "user:nobody" in str(caught.value)
        assert "hush" not in str(caught.value)


def test_installation_writable_by_others_is_refused(tmp_path: Path) -> None:
    installation = Installation(tmp_path / "root")
    installation.make()
    installation.refuse_exposed()
    program = installation.program("1.0")
    program.parent.mkdir(parents=True)
    program.touch()
    installation.switch_to("1.0")
    for exposed in (program, program.parent, installation.launcher, installation.root):
        before = exposed.stat().st_mode
        exposed.chmod(0o777)
        with raises_code(ExposedFileError, "writable_by_others") as caught:
            installation.refuse_exposed()
        assert f"/{exposed.name} " in str(caught.value)
        exposed.chmod(before)


def test_ledger_is_private_to_its_owner(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        database = open_database(f"sqlite:///{tmp_path}/ledger.db")
        files = list(tmp_path.glob("ledger.db*"))
        modes = {path.stat().st_mode & 0o777 for path in files}
        database.close()
    finally:
        os.umask(before)
    assert (len(files), modes) == (3, {0o600})
    (tmp_path / "ledger.db").chmod(0o644)
    open_database(f"sqlite:///{tmp_path}/ledger.db").close()
    assert (tmp_path / "ledger.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("exposed", ["ledger.db", "."])
def test_ledger_writable_by_others_is_refused(tmp_path: Path, exposed: str) -> None:
    open_database(f"sqlite:///{tmp_path}/ledger.db").close()
    (tmp_path / exposed).chmod(0o777)
    with raises_code(ExposedFileError, "writable_by_others"):
        open_database(f"sqlite:///{tmp_path}/ledger.db")


@pytest.mark.parametrize(
    ("exposed", "mode", "code"),
    [
        (".", 0o770, "writable_by_others"),
        ("ca.key", 0o644, "readable_by_others"),
        ("x/y.key", 0o644, "readable_by_others"),
    ],
)
def test_exposed_authority_is_refused(tmp_path: Path, exposed: str, mode: int, code: str) -> None:
    directory = tmp_path / "ca"
    create_authority(directory, "test", NOW)
    (directory / "x").mkdir()
    (directory / "x" / "y.key").touch(mode=0o600)
    CertificateAuthority(directory, now=lambda: NOW)
    (directory / exposed).chmod(mode)
    with raises_code(ExposedFileError, code):
        CertificateAuthority(directory, now=lambda: NOW)
