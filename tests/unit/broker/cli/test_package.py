"""acm package: a directory is built, signed by the real minisign, and verified."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from broker.cli.main import app
from broker.release.builder import sign_manifest
from broker.release.manifest import PackageError
from broker.release.minisign import MinisignError
from tests.support.errors import raises_code
from tests.unit.broker.release.test_minisign import make_key

VALUES = ("--version", "1.4.2", "--platform", "any")


@pytest.fixture
def release(tmp_path: Path) -> Path:
    program = tmp_path / "release" / "bin" / "acm-agent"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    make_key(tmp_path / "ours")
    return tmp_path / "release"


def acm(*words: object) -> Any:
    return CliRunner().invoke(app, ["package", *map(str, words)], catch_exceptions=False)


def build(release: Path, signature: Path, *words: object) -> Any:
    output = release.parent / "package.tar.gz"
    return acm("build", release, *VALUES, "--out", output, "--signature", signature, *words)


def signature_of(release: Path) -> Path:
    """Sign the printed manifest; return the file of the signature."""
    path = release.parent / "manifest.minisig"
    path.write_text(sign_manifest(acm("manifest", release, *VALUES).stdout_bytes, release.parent / "ours.key"))
    return path


@pytest.mark.parametrize("key_is_a_file", [True, False])
def test_package_with_the_signature_of_the_printed_manifest_is_verified(release: Path, key_is_a_file: bool) -> None:
    built = json.loads(build(release, signature_of(release), "--json").stdout)
    public = release.parent / "ours.pub"
    key = public if key_is_a_file else public.read_text().splitlines()[-1]
    verified = json.loads(acm("verify", built["package"], "--public-key", key, "--json").stdout)
    assert (verified["version"], verified["platform"], verified["files"]) == ("1.4.2", "any", 1)
    assert verified["size"] == Path(built["package"]).stat().st_size


def test_text_that_is_no_public_key_is_refused(release: Path) -> None:
    build(release, signature_of(release))
    with raises_code(MinisignError, "not_a_public_key"):
        acm("verify", release.parent / "package.tar.gz", "--public-key", "no key")


def test_missing_signature_file_is_refused_and_nothing_is_built(release: Path) -> None:
    with raises_code(PackageError, "unreadable_file"):
        build(release, release.parent / "missing.minisig")
    assert not (release.parent / "package.tar.gz").exists()


def test_missing_package_and_missing_directory_are_refused(release: Path) -> None:
    public = release.parent / "ours.pub"
    with raises_code(PackageError, "unreadable"):
        acm("verify", release.parent / "missing.tar.gz", "--public-key", public)
    with raises_code(PackageError, "no_directory"):
        acm("manifest", release.parent / "missing", "--version", "1.4.2")
