"""A certificate and its key always fit, also with several renewers, and after kill -9."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.mqtt.address import TlsFiles
from broker.mqtt.tls import client_context
from broker.pki.authority import CertificateAuthority, create_authority
from broker.web.server import ServerFiles, WebLimits, WebServer
from tests.support.certificates import pair_fits

ROOT = Path(__file__).resolve().parents[4]
RENEW = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from broker.pki.authority import CertificateAuthority
directory, times, killed_at = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
authority = CertificateAuthority(directory / "ca", now=lambda: datetime.now(UTC))
renames = 0
def count(event, arguments):
    global renames
    renames += event == "os.rename"
    if killed_at and renames == killed_at:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
for _ in range(times):
    authority.write_server_certificate(["localhost"], directory)
"""


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    create_authority(tmp_path / "ca", "test", datetime.now(UTC))
    authority = CertificateAuthority(tmp_path / "ca", now=lambda: datetime.now(UTC))
    authority.write_server_certificate(["localhost"], tmp_path)
    return TlsFiles(tmp_path / "ca" / "ca.crt", tmp_path / "server.crt", tmp_path / "server.key")


def renewing(files: TlsFiles, *, times: int = 1, killed_at: int = 0) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-c", RENEW, str(files.certificate.parent), str(times), str(killed_at)]
    return subprocess.Popen(argv, cwd=ROOT)


def test_pair_fits_after_kill_9_between_its_files(files: TlsFiles) -> None:
    for step in range(1, 10):
        if renewing(files, killed_at=step).wait(60) == 0:
            break
        client_context(files)
        WebServer(None, ServerFiles(files.certificate, files.key), WebLimits())
        assert renewing(files).wait(60) == 0
        assert pair_fits(files.certificate, files.key)
        left = {path.name for path in files.certificate.parent.iterdir()}
        assert left == {"ca", "server.crt", "server.key"}
    assert step > 2


def test_pair_fits_while_several_processes_renew_it(files: TlsFiles) -> None:
    renewers = [renewing(files, times=30) for _ in range(3)]
    loaded = 0
    while any(it.poll() is None for it in renewers):
        client_context(files)
        loaded += 1
    assert [it.returncode for it in renewers] == [0, 0, 0]
    assert loaded > 10
    assert pair_fits(files.certificate, files.key)
