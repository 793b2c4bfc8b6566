"""acm-agent doctor: each fault is staged with real processes and files, and must be found and explained.

Everything it finds of a healthy agent is OK except what the short-lived authority of the tests causes.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.contract.private_keys import private_key_to_pem
from consumer.doctor import (
    broker,
    certificates,
    clock,
    configuration,
    disks,
    enrolment,
    permissions,
    process,
    store,
    versions,
)
from consumer.doctor.patient import Patient
from consumer.enrolment.store import CertifiedGrant, EnrolmentDirectory, Grant
from consumer.ports import TimeSample
from consumer.store.opening import open_store
from consumer.store.process_record import ProcessRecord, read_process_record, write_process_record
from tests.support.authority import TestAuthority, TlsBroker
from tests.support.brokers import free_port, tuned_mosquitto
from tests.support.fakes.enrolment_server import EnrolmentServer
from tests.support.unprivileged import as_nobody, directory_of_nobody
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
AGENT = "web-01"


class Found:
    """What the doctor printed, and its exit code."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        assert "Traceback" not in done.stderr, done.stderr
        self.code, self.said = done.returncode, done.stderr
        self.findings: list[dict[str, str]] = json.loads(done.stdout)

    def of(self, fault: Any) -> dict[str, str]:
        """Return the finding of this kind; there must be one."""
        (found,) = [it for it in self.findings if it["code"] == fault.code]
        assert found["level"] == fault.level
        assert found["fix"]
        return found

    def codes(self) -> set[str]:
        return {it["code"] for it in self.findings}


def doctor(*arguments: str, **environment: str) -> Found:
    argv = [sys.executable, "-m", "consumer", "doctor", *arguments, "--json"]
    done = subprocess.run(
        argv, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60, check=False
    )
    return Found(done)


def public_pem() -> str:
    """Return the public key of a server that signs."""
    key = Ed25519PrivateKey.generate().public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class Clinic:
    """A broker and an enrolment server on TLS, and the state directory of one enrolled agent."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.state = directory, directory / "state"
        self.authority = TestAuthority()
        self.broker = TlsBroker(self.authority, directory / "broker")
        self.server = EnrolmentServer(self.authority, self.broker.tls_url)
        self.running: dict[str, ExitStack] = {}

    def start(self) -> None:
        for name in ("broker", "server"):
            self.running[name] = ExitStack()
        self.running["broker"].enter_context(self.broker.running())
        self.running["server"].enter_context(self.server.running(self.directory / "server"))

    def stop(self) -> None:
        for stack in self.running.values():
            stack.close()

    def enroll(self, *, begins_s: float = -3600, life_s: float = 3600, name: str = AGENT, **members: Any) -> Path:
        """Make the state directory of an agent with this certificate; `members` replace those of the grant."""
        shutil.rmtree(self.state, ignore_errors=True)
        self.state.mkdir(mode=0o700)
        key, now = Ed25519PrivateKey.generate(), datetime.now(UTC)
        grant = Grant(
            agent=AGENT,
            enrolment_id="e-1",
            server=self.server.url,
            broker=self.broker.tls_url,
            topic_prefix="acm",
            signing_keys=(public_pem(),),
            granted_at=now + timedelta(seconds=begins_s),
            not_after=now + timedelta(seconds=max(life_s, 3600)),
            token="t",
        )
        certificate = self.authority.issue(name, key.public_key(), begins_s=begins_s, life_s=life_s)
        enrolments = EnrolmentDirectory(self.state)
        enrolments.add(CertifiedGrant(replace(grant, **members), "e-1", certificate, self.authority.pem), key)
        enrolments.make_current("e-1")
        return self.state

    @property
    def enrolled(self) -> Path:
        return self.state / "enrolment" / "current"

    @contextmanager
    def agent(self) -> Iterator["subprocess.Popen[bytes]"]:
        """Run the agent until it has written that it is connected, then for the block."""
        argv = [sys.executable, "-m", "consumer", "run", "--state", str(self.state)]
        agent = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: (record := self.record()) and record.pid == agent.pid and record.connected, "the agent")
            yield agent
        finally:
            agent.send_signal(signal.SIGCONT)
            agent.terminate()
            agent.wait(20)

    def record(self) -> ProcessRecord | None:
        return read_process_record(self.state) if self.state.exists() else None


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    clinic = Clinic(tmp_path_factory.mktemp("clinic"))
    clinic.start()
    yield clinic
    clinic.stop()


@pytest.fixture
def state(clinic: Clinic) -> Path:
    """The state directory of an agent that is enrolled, and does not run."""
    return clinic.enroll()


def examined(state: Path, *arguments: str, **environment: str) -> Found:
    return doctor("--state", str(state), *arguments, **environment)


def test_healthy_agent_is_ok_and_the_exit_code_0(clinic: Clinic, state: Path) -> None:
    with clinic.agent():
        found = examined(state)
    wrong = {it["check"]: it["code"] for it in found.findings if it["level"] != "ok"}
    assert wrong == {"tls": "agents_broker_certificate_ends_soon", "certificates": "trusted_authority_ends_soon"}
    assert (found.code, found.said) == (0, "")
    checks = [it["check"] for it in found.findings]
    assert checks == [
        *("configuration", "versions", "permissions", "disk", "store", "enrolment", "certificates", "certificates"),
        *("clock", "broker", "tls", "enrolment server", "process"),
    ]
    (own, _) = [it["found"] for it in found.findings if it["check"] == "certificates"]
    assert "is valid for 59 min, until " in own


def test_findings_are_for_people_without_json(state: Path) -> None:
    argv = [sys.executable, "-m", "consumer", "doctor", "--state", str(state)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 10
    assert f"FAIL  process           No agent runs on {state}." in done.stdout
    assert f"Fix: systemctl start acm-agent (or: acm-agent run --state {state});" in done.stdout
    assert done.stderr == "acm-agent: 1 check failed: process.\n"


def test_running_agent_keeps_its_connection(clinic: Clinic, state: Path) -> None:
    with clinic.agent():
        before = clinic.record()
        examined(state)
        after = clinic.record()
    assert before is not None
    assert after is not None
    assert (after.connected, after.connection_since, after.incidents) == (True, before.connection_since, ())


# -- the process


def test_agent_that_does_not_run(clinic: Clinic, state: Path) -> None:
    assert f"No agent runs on {state}." in examined(state).of(process.NOT_RUNNING)["found"]
    with clinic.agent():
        pass
    assert "it was stopped" in examined(state).of(process.NOT_RUNNING)["found"]
    with clinic.agent() as agent:
        agent.kill()
        agent.wait(10)
        assert f"process {agent.pid} was killed after" in examined(state).of(process.NOT_RUNNING)["found"]


def test_agent_that_an_error_has_ended(clinic: Clinic, state: Path) -> None:
    with clinic.agent():
        pass
    record = clinic.record()
    assert record is not None
    write_process_record(state, msgspec.structs.replace(record, end="The command store failed: disk I/O error."))
    assert "The command store failed: disk I/O error." in examined(state).of(process.NOT_RUNNING)["found"]


def test_agent_that_hangs(clinic: Clinic, state: Path) -> None:
    with clinic.agent() as agent:
        agent.send_signal(signal.SIGSTOP)
        record = clinic.record()
        assert record is not None
        write_process_record(state, msgspec.structs.replace(record, written_at=record.written_at - timedelta(hours=1)))
        found = examined(state).of(process.HANGS)
    assert found["found"] == f"Process {agent.pid} has written nothing for 60 min."


def test_agent_that_reports_a_problem(clinic: Clinic, state: Path, tmp_path: Path) -> None:
    package(tmp_path, "import nowhere_to_be_found")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(tmp_path)
    try:
        with clinic.agent():
            found = examined(state)
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before
    assert "The plug-in bad of broken 1.0 is not used" in found.of(process.REPORTS)["found"]
    found.of(configuration.PLUG_IN)


def test_process_that_has_written_nothing_is_not_judged(state: Path) -> None:
    code = "import sys; from pathlib import Path; from consumer.store.state_directory import take_lock\n"
    code += "take_lock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    argv = [sys.executable, "-c", code, str(state / "lock")]
    with subprocess.Popen(argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        (found,) = [it for it in examined(state).findings if it["check"] == "process"]
    assert (found["code"], found["level"]) == ("not_checked", "warn")
    assert f"Process {holder.pid} holds {state}" in found["found"]


# -- the broker and TLS


def test_broker_that_is_away(clinic: Clinic) -> None:
    state = clinic.enroll(broker=f"mqtts://127.0.0.1:{free_port()}")
    found = examined(state).of(broker.UNREACHABLE)
    assert "connection refused" in found["found"]
    assert "nc -vz 127.0.0.1 " in found["fix"]


def test_agent_that_has_lost_its_broker(clinic: Clinic, state: Path) -> None:
    with clinic.agent():
        clinic.running["broker"].close()
        try:
            wait_for(lambda: (record := clinic.record()) and not record.connected, "the loss")
            found = examined(state)
        finally:
            clinic.running["broker"].enter_context(clinic.broker.running())
    assert "has not been connected since" in found.of(process.NOT_CONNECTED)["found"]
    found.of(broker.UNREACHABLE)
    assert found.code == 10


def test_host_that_has_no_address(clinic: Clinic) -> None:
    state = clinic.enroll(broker="mqtts://no-such-host.invalid:8883")
    assert "the host name cannot be resolved" in examined(state).of(broker.UNREACHABLE)["found"]


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Listen on a port, and answer each connection so, on a thread."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                answer(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def read_all(connection: socket.socket) -> None:
    connection.settimeout(20)
    while connection.recv(4096):
        pass


def http(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"<p>Bad Request</p>\n" * 20)


def mqtt_3(connection: socket.socket) -> None:
    connection.recv(4096)
    connection.sendall(b"\x20\x02\x00\x01")


@pytest.mark.parametrize(
    ("scheme", "answer", "said"),
    [
        ("mqtt", http, "its answer is not the one of MQTT 5"),
        ("mqtt", mqtt_3, "it speaks an older MQTT"),
        ("mqtt", read_all, "it answers nothing: "),
        ("mqtts", read_all, "there was no TLS handshake in time"),
        ("mqtts", http, "it does not answer in TLS"),
    ],
)
def test_other_service_on_the_brokers_port(
    tmp_path: Path, scheme: str, answer: Callable[[socket.socket], None], said: str
) -> None:
    with answering(answer) as port:
        url = f"{scheme}://127.0.0.1:{port}"
        found = examined(tmp_path / "state", "--agent", AGENT, "--broker", url, "--accept-unsigned")
    assert said in found.of(broker.NOT_MQTT5)["found"]


def test_port_for_tls_that_is_reached_without(clinic: Clinic, tmp_path: Path) -> None:
    url = f"mqtt://127.0.0.1:{clinic.broker.tls_port}"
    found = examined(tmp_path / "state", "--agent", AGENT, "--broker", url, "--accept-unsigned")
    assert "No connection to " in found.of(broker.NOT_MQTT5)["found"]


def test_broker_without_tls_is_a_warning(tmp_path: Path) -> None:
    with tuned_mosquitto(tmp_path) as url:
        found = examined(tmp_path / "state", "--agent", AGENT, "--broker", url, "--accept-unsigned")
    assert "has no TLS" in found.of(broker.WITHOUT_TLS)["found"]
    found.of(enrolment.UNSIGNED)


def test_broker_with_a_certificate_for_another_host(clinic: Clinic) -> None:
    state = clinic.enroll(broker=clinic.broker.tls_url.replace("127.0.0.1", "localhost"))
    found = examined(state).of(broker.NOT_TRUSTED)
    assert "the broker's certificate is for another host name" in found["found"]
    assert "--host localhost" in found["fix"]


def test_broker_of_another_authority(clinic: Clinic, state: Path) -> None:
    (clinic.enrolled / "ca.pem").write_text(TestAuthority("Another").pem)
    found = examined(state)
    assert "from an authority that is not trusted" in found.of(broker.NOT_TRUSTED)["found"]
    found.of(enrolment.SERVER_AWAY)


def test_certificate_that_the_broker_refuses(clinic: Clinic, state: Path) -> None:
    other, key = TestAuthority("Another"), Ed25519PrivateKey.generate()
    (clinic.enrolled / "certificate.pem").write_text(other.issue(AGENT, key.public_key()))
    write_key(clinic.enrolled / "key.pem", key)
    found = examined(state).of(broker.REFUSED)
    assert "the broker does not trust the authority of this client's certificate" in found["found"]
    assert f"acm enrolment list --agent {AGENT}" in found["fix"]


def write_key(path: Path, key: Ed25519PrivateKey) -> None:
    path.write_bytes(private_key_to_pem(key))


def test_key_of_another_certificate(clinic: Clinic, state: Path) -> None:
    write_key(clinic.enrolled / "key.pem", Ed25519PrivateKey.generate())
    assert "does not belong to the certificate" in examined(state).of(broker.FILES)["found"]


# -- the enrolment and its certificates


def test_agent_that_is_not_enrolled(tmp_path: Path) -> None:
    found = examined(tmp_path)
    assert found.of(enrolment.NOT_ENROLLED)["fix"].endswith(f"--agent NAME --state {tmp_path} < TOKEN")
    assert "agent_configuration_refused" not in found.codes()


def test_enrolment_that_is_damaged(clinic: Clinic, state: Path) -> None:
    (clinic.enrolled / "enrolment.json").write_text("{")
    assert "cannot be read" in examined(state).of(enrolment.UNREADABLE)["found"]


def test_enrolment_server_that_is_away(clinic: Clinic) -> None:
    state = clinic.enroll(server=f"https://127.0.0.1:{free_port()}")
    assert "cannot be reached" in examined(state).of(enrolment.SERVER_AWAY)["found"]


def test_certificate_that_has_expired(clinic: Clinic) -> None:
    state = clinic.enroll(begins_s=-7200, life_s=-3600)
    found = examined(state)
    assert "has expired 60 min ago" in found.of(certificates.EXPIRED)["found"]
    assert "has ended" in found.of(broker.REFUSED)["found"]


def test_certificate_that_is_not_valid_yet(clinic: Clinic) -> None:
    state = clinic.enroll(begins_s=1800)
    assert "but the clock of this machine is at" in examined(state).of(certificates.NOT_YET)["found"]


def test_certificate_that_was_not_renewed(clinic: Clinic) -> None:
    state = clinic.enroll(begins_s=-3 * 86400, life_s=7200)
    found = examined(state).of(certificates.NOT_RENEWED)
    assert "it was to be renewed at" in found["found"]
    assert f"acm-agent status --state {state}" in found["fix"]


@pytest.mark.parametrize("fault", ["missing", "no certificate", "another name"])
def test_certificate_that_cannot_be_used(clinic: Clinic, fault: str) -> None:
    state = clinic.enroll(name="web-02" if fault == "another name" else AGENT)
    if fault == "missing":
        (clinic.enrolled / "certificate.pem").unlink()
    elif fault == "no certificate":
        (clinic.enrolled / "ca.pem").write_text("x")
    found = examined(state).of(certificates.UNREADABLE)["found"]
    assert {"missing": "cannot be read", "no certificate": "in PEM", "another name": "web-02"}[fault] in found


# -- the store, the clock, the disk


def made_store(state: Path) -> None:
    open_store(state, now=lambda: datetime.now(UTC)).close()


def test_store_that_is_damaged(state: Path) -> None:
    made_store(state)
    (state / "commands" / "cache.db").write_bytes(b"no database" * 1000)
    assert "not a database" in examined(state).of(store.DAMAGED)["found"]


def test_store_with_a_damaged_page(state: Path) -> None:
    made_store(state)
    database = state / "commands" / "cache.db"
    content = bytearray(database.read_bytes())
    content[4096 * 2 : 4096 * 3] = b"\xff" * 4096
    database.write_bytes(content)
    examined(state).of(store.DAMAGED)


def test_store_that_is_gone(state: Path) -> None:
    made_store(state)
    shutil.rmtree(state / "commands")
    assert examined(state).of(store.VANISHED)["found"] == f"{state}/commands is gone."


def test_store_that_cannot_be_read(state: Path) -> None:
    (state / "commands" / "cache.db").mkdir(parents=True)
    found = examined(state).of(store.UNREADABLE)
    assert f"The command store in {state} cannot be read: " in found["found"]
    assert found["fix"].endswith(f"fuser {state}/commands/cache.db")


def test_store_that_was_set_aside(state: Path) -> None:
    made_store(state)
    (state / "commands" / "cache.db").write_bytes(b"no database" * 1000)
    made_store(state)
    (aside,) = state.glob("commands.damaged-*")
    found = examined(state).of(store.SET_ASIDE)
    assert found["found"] == f"{aside} was damaged."
    assert found["fix"].endswith(f"rm -r {aside}")


def test_clock_that_is_behind_what_the_server_has_signed(clinic: Clinic) -> None:
    state = clinic.enroll(server=f"https://127.0.0.1:{free_port()}")
    opened, now = open_store(state, now=lambda: datetime.now(UTC), enrolment_id="e-1"), datetime.now(UTC)
    opened.save_time_sample(TimeSample(now + timedelta(hours=5), now))
    opened.close()
    assert "h behind the server's clock." in examined(state).of(clock.DIFFERS)["found"]


def test_clock_is_that_of_the_enrolment_server(clinic: Clinic, state: Path) -> None:
    (found,) = [it for it in examined(state).findings if it["check"] == "clock"]
    assert found["found"].endswith("and the server agrees.")


ON_A_SMALL_DISK = """
mount -t tmpfs -o size=2m,nr_inodes=64 none "$1"
cp -a "$2" "$1/state"
case "$3" in
    bytes) dd if=/dev/zero of="$1/filler" bs=4k 2>/dev/null || true ;;
    names) n=0; while { touch "$1/$n"; } 2>/dev/null; do n=$((n + 1)); done ;;
    read-only) mount -o remount,ro "$1" ;;
esac
exec "$4" -m consumer doctor --state "$1/state" --json
"""


@pytest.mark.parametrize(
    ("fault", "found", "said"),
    [
        ("bytes", disks.FULL, "has 0 of 2 MiB left"),
        ("names", disks.FULL, "no inodes"),
        ("read-only", disks.READ_ONLY, "is read only"),
    ],
)
def test_disk_without_room(state: Path, tmp_path: Path, fault: str, found: Any, said: str) -> None:
    """Needs root, for the mount."""
    words = [str(tmp_path / "disk"), str(state), fault, sys.executable]
    (tmp_path / "disk").mkdir()
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-euc", ON_A_SMALL_DISK, "sh", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said in Found(done).of(found)["found"]


def test_disk_that_fills(state: Path, tmp_path: Path) -> None:
    """Needs root, for the mount."""
    script = ON_A_SMALL_DISK.replace("size=2m", "size=100m").replace("bs=4k", "bs=1M count=94")
    words = [str(tmp_path / "disk"), str(state), "bytes", sys.executable]
    (tmp_path / "disk").mkdir()
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-euc", script, "sh", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "of 100 MiB left" in Found(done).of(disks.FILLS)["found"]


# -- permissions, configuration, versions


def test_state_directory_that_others_can_write_to(state: Path) -> None:
    state.chmod(0o777)
    found = examined(state)
    assert found.of(permissions.EXPOSED)["fix"] == f"chmod go-w {state}"
    assert state.stat().st_mode & 0o777 == 0o777, "it changes nothing"


def test_key_that_others_can_read(clinic: Clinic, state: Path) -> None:
    (clinic.enrolled / "key.pem").chmod(0o644)
    found = examined(state).of(permissions.EXPOSED)
    assert "holds a secret and can be read by others" in found["found"]
    assert found["fix"].startswith("chmod 0600 ")


def test_configuration_file_that_others_can_write_to(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("")
    file.chmod(0o666)
    assert examined(state, "--config", str(file)).of(permissions.EXPOSED)["fix"] == f"chmod go-w {file}"


def test_state_directory_of_another_user(state: Path) -> None:
    """Needs root, to give it away."""
    os.chown(state, 65534, -1)
    found = examined(state).of(permissions.OTHER_USER)
    assert found["fix"].endswith(f"runuser -u nobody -- acm-agent doctor --state {state}")


def test_state_directory_that_the_agent_cannot_write_to() -> None:
    """Needs root, to become another user."""
    with directory_of_nobody() as directory:
        directory.chmod(0o500)
        patient = Patient(directory, None, None, None, None)
        with as_nobody():
            refused, unexposed = permissions.check_agents_permissions(patient)
    assert (refused.code, refused.fix) == (permissions.NOT_WRITABLE.code, f"chmod -R u+rwX {directory}")
    assert unexposed.code == "ok"


def test_configuration_that_is_refused(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("log_levle = 'info'")
    found = examined(state, "--config", str(file))
    assert "did you mean 'log_level'?" in found.of(configuration.REFUSED)["found"]
    assert len(found.codes()) > 2, "it hides no other check"


def test_configuration_without_a_state_directory() -> None:
    found = doctor()
    assert "`state` is not configured" in found.of(configuration.REFUSED)["found"]
    assert {it["check"] for it in found.findings} == {"configuration", "versions"}


def test_configuration_that_lacks_a_program(state: Path, tmp_path: Path) -> None:
    file = tmp_path / "agent.toml"
    file.write_text("[service]\nkind = 'child'\nargv = ['/no/such/program']")
    found = examined(state, "--config", str(file)).of(configuration.LACKS)
    assert found["found"] == "service.argv: /no/such/program is not a program that can be run here."


def package(directory: Path, source: str) -> None:
    """Make a package with a plug-in, to be found by PYTHONPATH."""
    (directory / "broken_plug_in.py").write_text(source)
    about = directory / "broken-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[agent_command_manager.handlers]\nbad = broken_plug_in:HANDLER\n")


def test_plug_in_that_is_broken(state: Path, tmp_path: Path) -> None:
    package(tmp_path, "import nowhere_to_be_found")
    found = examined(state, PYTHONPATH=str(tmp_path)).of(configuration.PLUG_IN)
    assert "The plug-in bad of broken 1.0 is not used" in found["found"]


def test_installation_that_lacks_a_library(state: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['yaml'] = None\n")
    found = examined(state, PYTHONPATH=str(tmp_path)).of(versions.BROKEN)
    assert "yaml" in found["found"]


def test_agent_of_another_version(clinic: Clinic, state: Path) -> None:
    with clinic.agent() as agent:
        agent.send_signal(signal.SIGSTOP)
        record = clinic.record()
        assert record is not None
        write_process_record(state, msgspec.structs.replace(record, version="9.9.9"))
        found = examined(state).of(versions.OTHER_RUNS)
    assert "The running agent has version 9.9.9" in found["found"]


def test_authority_that_has_expired(clinic: Clinic, state: Path) -> None:
    key = Ed25519PrivateKey.generate()
    (clinic.enrolled / "ca.pem").write_text(clinic.authority.issue("Test CA", key.public_key(), life_s=-60))
    assert "has expired" in examined(state).of(certificates.AUTHORITY_EXPIRED)["found"]
