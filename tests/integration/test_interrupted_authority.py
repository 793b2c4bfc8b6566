"""kill -9 at each step of the authority's creation and rollover: run again, the command completes what is left."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from broker.app.factories import open_database, open_ledger
from broker.cli.main import app
from broker.enrolment.store import EnrolmentStore
from broker.pki.authority import CertificateAuthority
from broker.pki.authority_files import AuthorityError
from broker.signing.key_store import SigningKeys
from tests.support.certificates import pair_fits
from tests.support.enrolled import Registrar, now
from tests.support.errors import raises_code

ROOT = Path(__file__).resolve().parents[2]
# Ends itself as kill -9 does before the call of that number that replaces a file or opens the ledger.
KILLED = """
import os, signal, sys
left = int(sys.argv.pop(1))
def count(event, arguments):
    global left
    if event in ("os.rename", "sqlite3.connect"):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
from broker.cli.main import app
sys.argv[0] = "acm"
app(standalone_mode=True)
"""


class Site:
    """An authority with a moved agent, its ledger, and the files of a broker and a server, all in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            "ACM_CA": str(directory / "ca"),
            "ACM_LEDGER": f"sqlite:///{directory}/ledger.db",
            "ACM_BROKER": "mqtts://localhost",
            "ACM_BROKER_CA": str(directory / "broker/ca.crt"),
            "ACM_BROKER_CERTIFICATE": str(directory / "broker/server.crt"),
            "ACM_BROKER_KEY": str(directory / "broker/server.key"),
        }

    @property
    def authority(self) -> CertificateAuthority:
        return CertificateAuthority(self.directory / "ca", now=now)

    def acm(self, *words: str) -> None:
        CliRunner().invoke(app, ["ca", *words], env=self.environment, catch_exceptions=False)

    def ends_before(self, step: int, *words: str) -> bool:
        """Kill the command at a step; return whether it ended before."""
        argv = [sys.executable, "-c", KILLED, str(step), "ca", *words]
        environment = {**os.environ, **self.environment}
        done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode in (0, -9), done.stderr
        return done.returncode == 0

    def trusted_by_broker(self) -> str:
        return (self.directory / "broker/ca.crt").read_text()

    def told(self) -> list[str]:
        """What the newest command tells the agent to trust, all together."""
        with open_ledger(self.environment["ACM_LEDGER"]) as ledger:
            newest = ledger.commands("web-01", limit=1)
        return ["".join(row.command.parameters["certificates"]) for row in newest]

    def move_agent(self) -> None:
        """Renew the agent's certificate by the successor."""
        key, authority = Ed25519PrivateKey.generate().public_key(), self.authority
        with open_database(self.environment["ACM_LEDGER"]) as database:
            store = EnrolmentStore(database, now=now)
            (held,) = store.newest_certificates(now())
            serial = x509.load_pem_x509_certificate(held.pem.encode()).serial_number
            store.renew(serial, key, lambda: authority.issue("web-01", key, timedelta(days=60), by_successor=True))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("template")
    registrar = Registrar(directory / "ca", f"sqlite:///{directory}/ledger.db")
    registrar.enroll("web-01", directory / "web-01", "mqtts://localhost")
    (directory / "broker").mkdir(mode=0o700)
    registrar.authority.write_client_certificate("acm-server", directory / "broker", "server")
    (directory / "broker/ca.crt").write_text(registrar.authority.certificate)
    return directory


def killed_at_each_step(template: Path, tmp_path: Path, *words: str) -> Iterator[Site]:
    """A copy of the template for each step at which the command was killed, until it ended by itself."""
    for step in range(1, 100):
        shutil.copytree(template, tmp_path / str(step))
        site = Site(tmp_path / str(step))
        if site.ends_before(step, *words):
            assert step > 5
            return
        yield site


def test_creation_that_was_killed_is_repeated_to_its_end(tmp_path: Path) -> None:
    for step in range(1, 100):
        site = Site(tmp_path / str(step))
        site.directory.mkdir(mode=0o700)
        if site.ends_before(step, "init"):
            break
        site.acm("init")
        assert site.authority.successor is None
        assert len(SigningKeys(site.directory / "ca/signing").signing) == 1
        with raises_code(AuthorityError, "directory_not_empty"):
            site.acm("init")
    assert step > 4


def test_begin_that_was_killed_is_repeated_to_its_end(template: Path, tmp_path: Path) -> None:
    for site in killed_at_each_step(template, tmp_path, "rollover", "begin"):
        site.acm("rollover", "begin")
        authority = site.authority
        assert authority.successor is not None
        assert site.trusted_by_broker() == authority.trusted
        assert site.told() == [authority.trusted]


def test_finish_that_was_killed_is_repeated_to_its_end(template: Path, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    shutil.copytree(template, begun)
    Site(begun).acm("rollover", "begin")
    Site(begun).move_agent()
    former, successor = Site(begun).authority.certificate, Site(begun).authority.successor
    for site in killed_at_each_step(begun, tmp_path, "rollover", "finish"):
        site.acm("rollover", "finish")
        authority = site.authority
        assert (authority.certificate, authority.successor, authority.is_half_promoted) == (successor, None, False)
        assert site.trusted_by_broker() == successor
        assert site.told() == [successor]
        assert former not in authority.trusted
        assert not (site.directory / "ca/next.key").exists()
        assert pair_fits(site.directory / "broker/server.crt", site.directory / "broker/server.key")
