"""acm package and acm-agent install, as their users run them."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.release import write_program
from tests.acceptance.conftest import ROOT
from tests.unit.broker.release.test_minisign import make_key

pytestmark = pytest.mark.own_ledger

Done = subprocess.CompletedProcess[str]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a release, a pair of keys, and the default key of minisign."""
    write_program(tmp_path / "release", '#!/bin/sh\necho "$0 $*"\n')
    make_key(tmp_path / "minisign")
    (tmp_path / ".minisign").mkdir()
    (tmp_path / "minisign.key").rename(tmp_path / ".minisign" / "minisign.key")
    return tmp_path


def run(place: Path, program: str, *words: str) -> Done:
    return subprocess.run(
        [sys.executable, "-m", program, *words],
        cwd=place,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(place), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def build(place: Path) -> Path:
    done = run(place, "broker", "package", "build", "release", "--version", "1.4.2", "--platform", "any")
    assert done.returncode == 0, done.stderr
    return place / "agent-command-manager-1.4.2-any.tar.gz"


def test_package_is_built_and_verified_with_default_minisign_keys(place: Path) -> None:
    package = build(place)
    done = run(place, "broker", "package", "verify", package.name, "--json")
    facts = json.loads(done.stdout)
    content = package.read_bytes()
    assert (facts["version"], facts["files"]) == ("1.4.2", 1)
    assert (facts["sha256"], facts["size"]) == (hashlib.sha256(content).hexdigest(), len(content))
    assert facts["signed_by"] in (place / "minisign.pub").read_text()
    package.write_bytes(content[:-40])
    done = run(place, "broker", "package", "verify", package.name)
    assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (1, "", False)
    assert package.name in done.stderr


def test_manifest_can_be_signed_elsewhere(place: Path) -> None:
    words = ["release", "--version", "1.4.2", "--platform", "any"]
    (place / "manifest.json").write_text(run(place, "broker", "package", "manifest", *words).stdout)
    key = str(place / ".minisign" / "minisign.key")
    subprocess.run(["minisign", "-S", "-s", key, "-m", "manifest.json"], cwd=place, check=True, capture_output=True)
    done = run(place, "broker", "package", "build", *words, "--signature", "manifest.json.minisig", "--out", "p")
    assert done.returncode == 0, done.stderr
    facts = json.loads(run(place, "broker", "package", "verify", "p", "--public-key", "minisign.pub", "--json").stdout)
    assert (facts["version"], facts["platform"]) == ("1.4.2", "any")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["build", "nowhere", "--version", "1"], ["nowhere", "bin/acm-agent"]),
        (["build", "release"], ["release", "agent-command-manager", "--version"]),
        (["build", "release", "--version", "1", "--secret-key", "none"], ["minisign"]),
        (["verify", "none"], ["none", "No such file or directory"]),
        (["verify", "release", "--public-key", "RWX"], ["RWX", "--public-key"]),
    ],
)
def test_error_of_package_command_is_one_sentence(place: Path, words: list[str], named: list[str]) -> None:
    done = run(place, "broker", "package", *words)
    assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (1, "", False)
    assert done.stderr.splitlines()[-1].startswith("acm: ")
    assert [word for word in named if word not in done.stderr] == []


def test_install_creates_the_release_and_prints_its_configuration(place: Path) -> None:
    key = (place / "minisign.pub").read_text().splitlines()[1]
    words = ["install", build(place).name, "--root", "root", "--public-key", key]
    done = run(place, "consumer", *words)
    assert done.returncode == 0, done.stderr
    assert f'root = "{place}/root"\npublic_keys = ["{key}"]' in done.stdout
    said = subprocess.run([place / "root" / "acm-agent", "run", "--fast"], capture_output=True, text=True, check=True)
    assert said.stdout == f"{place}/root/releases/1.4.2/bin/acm-agent run --fast\n"
    again = run(place, "consumer", *words)
    assert (again.returncode, "root already holds version 1.4.2; send the command upgrade-agent" in again.stderr) == (
        1,
        True,
    )


def test_install_rejects_a_package_signed_by_another_key(place: Path) -> None:
    stranger = make_key(place / "stranger")
    key = (place / "stranger.pub").read_text().splitlines()[1]
    done = run(place, "consumer", "install", build(place).name, "--root", "root", "--public-key", key)
    assert (done.returncode, (place / "root").exists()) == (1, False)
    assert "The package is refused: The signature is by the key" in done.stderr
    assert stranger.id not in done.stderr


def test_self_test_of_a_release_succeeds(place: Path) -> None:
    done = run(place, "consumer", "self-test")
    assert (done.returncode, "works here; it supports" in done.stdout) == (0, True)
