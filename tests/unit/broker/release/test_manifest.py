"""Building packages, and reading them like `acm package verify` and like an agent."""

import gzip
import io
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from broker.errors import BrokerError
from broker.release.builder import SigningFailed, make_manifest, sign_manifest, verify_package, write_package
from broker.release.manifest import Manifest, PackageError, parse_manifest, render_manifest, this_platform
from broker.release.minisign import PublicKey
from consumer.errors import ArchiveError, ConsumerError, UpgradeError
from consumer.system.leftovers import Leftovers
from consumer.upgrade.install import install
from consumer.upgrade.packages import check_fits, open_package, unpack_package
from tests.support.errors import raises_code
from tests.unit.broker.release.test_minisign import make_key

Member = tuple[tarfile.TarInfo, bytes]


@pytest.fixture
def release(tmp_path: Path) -> Path:
    directory = tmp_path / "release"
    (directory / "bin").mkdir(parents=True)
    (directory / "lib" / "__pycache__").mkdir(parents=True)
    (directory / "bin" / "acm-agent").write_text("#!/bin/sh\n")
    (directory / "bin" / "acm-agent").chmod(0o755)
    (directory / "lib" / "a.py").write_text("a = 1\n")
    (directory / "lib" / "__pycache__" / "a.pyc").write_bytes(b"x")
    return directory


@pytest.fixture
def key(tmp_path: Path) -> PublicKey:
    return make_key(tmp_path / "ours")


def manifest_of(release: Path) -> Manifest:
    return make_manifest(release, "agent-command-manager", "1.4.2", "any")


@pytest.fixture
def package(release: Path, key: PublicKey, tmp_path: Path) -> Path:
    manifest, package = manifest_of(release), tmp_path / "package.tar.gz"
    write_package(release, manifest, sign_manifest(render_manifest(manifest), tmp_path / "ours.key"), package)
    return package


def key_text(tmp_path: Path) -> str:
    return (tmp_path / "ours.pub").read_text().splitlines()[-1]


def read(package: Path, tmp_path: Path) -> Path:
    """Unpack the package as an agent does; return the release."""
    (tmp_path / "releases").mkdir()
    release = tmp_path / "releases" / "1.4.2"
    unpack_package(package, open_package(package, [key_text(tmp_path)]), release, Leftovers())
    return release


def change(package: Path, how: Callable[[list[Member]], None]) -> None:
    with tarfile.open(package) as archive:
        members = [(member, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]
    how(members)
    with tarfile.open(package, "w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_package_has_the_files_and_the_manifest_of_its_release(package: Path, key: PublicKey, tmp_path: Path) -> None:
    verified = verify_package(package, [key])
    assert (verified.manifest.version, sorted(verified.manifest.files)) == ("1.4.2", ["bin/acm-agent", "lib/a.py"])
    assert (verified.signature.key_id, verified.file.size) == (key.id, package.stat().st_size)
    release = read(package, tmp_path)
    assert (release / "lib" / "a.py").read_text() == "a = 1\n"
    assert [path.stat().st_mode & 0o777 for path in (release / "bin" / "acm-agent", release / "lib" / "a.py")] == [
        0o755,
        0o644,
    ]
    assert [path.name for path in (tmp_path / "releases").iterdir()] == ["1.4.2"]


def test_same_directory_gives_the_same_package(release: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_package(release, manifest_of(release), "s", first)
    (release / "lib" / "a.py").touch()
    write_package(release, manifest_of(release), "s", second)
    assert first.read_bytes() == second.read_bytes()


def test_version_defaults_to_that_of_the_distribution(release: Path) -> None:
    metadata = release / "lib" / "agent_command_manager-2.0rc1.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Name: agent-command-manager\n")
    assert make_manifest(release, "agent-command-manager", None, "any").version == "2.0rc1"
    with raises_code(PackageError, "no_distribution"):
        make_manifest(release, "other", None, "any")


def test_release_with_links_or_without_program_is_refused(release: Path) -> None:
    (release / "lib" / "b.py").symlink_to("a.py")
    with raises_code(PackageError, "not_a_plain_file") as caught:
        manifest_of(release)
    assert "lib/b.py" in str(caught.value)
    (release / "lib" / "b.py").unlink()
    (release / "bin" / "acm-agent").chmod(0o644)
    with raises_code(PackageError, "program_missing") as caught:
        manifest_of(release)
    assert "bin/acm-agent" in str(caught.value)


@pytest.mark.parametrize("name", [b"\xff", b"new\nline", b"d/" * 31 + b"file"], ids=["not UTF-8", "line feed", "deep"])
def test_name_that_agents_refuse_is_refused_by_the_builder(release: Path, name: bytes) -> None:
    path = release / os.fsdecode(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with raises_code(PackageError, "unusable_name") as caught:
        make_manifest(release, "agent-command-manager", "1.0.0", "any")
    assert str(caught.value).isprintable()


def test_failure_of_the_minisign_tool_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with raises_code(SigningFailed, "not_signed"):
        sign_manifest(b"x", tmp_path / "no-such-key")
    monkeypatch.setenv("PATH", str(tmp_path))
    with raises_code(SigningFailed, "minisign_missing"):
        sign_manifest(b"x", None)


def other_content(members: list[Member]) -> None:
    members[3] = (members[3][0], b"a = 2\n")


def other_mode(members: list[Member]) -> None:
    members[3][0].mode = 0o755


def missing(members: list[Member]) -> None:
    del members[3]


def extra(members: list[Member]) -> None:
    members.append((tarfile.TarInfo("files/lib/more.py"), b"x"))


def twice(members: list[Member]) -> None:
    members.append(members[3])


def outside(members: list[Member]) -> None:
    members.append((tarfile.TarInfo("../more.py"), b"x"))


def link(members: list[Member]) -> None:
    member = tarfile.TarInfo("files/lib/link")
    member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    members.append((member, b""))


def other_manifest(members: list[Member]) -> None:
    members[0] = (members[0][0], members[0][1].replace(b"1.4.2", b"1.4.3"))


def no_signature(members: list[Member]) -> None:
    del members[1]


@pytest.mark.parametrize(
    ("how", "code", "name", "agent_error"),
    [
        (other_content, "file_differs", "lib/a.py", UpgradeError),
        (other_mode, "file_differs", "lib/a.py", UpgradeError),
        (missing, "file_missing", "lib/a.py", UpgradeError),
        (extra, "file_unlisted", "lib/more.py", ArchiveError),
        (twice, "unexpected_member", "files/lib/a.py", ArchiveError),
        (outside, "unexpected_member", "../more.py", ArchiveError),
        (link, "unexpected_member", "files/lib/link", ArchiveError),
        (other_manifest, "bad_signature", "", UpgradeError),
        (no_signature, "not_a_package", "manifest.json.minisig", UpgradeError),
    ],
)
def test_changed_package_is_refused_by_server_and_agent(
    package: Path,
    key: PublicKey,
    tmp_path: Path,
    how: Callable[[list[Member]], None],
    code: str,
    name: str,
    agent_error: type[ConsumerError],
) -> None:
    change(package, how)
    with raises_code(BrokerError, code) as caught:
        verify_package(package, [key])
    assert name in str(caught.value)
    with pytest.raises(agent_error) as refused:
        read(package, tmp_path)
    cause = refused.value.__cause__
    assert agent_error is ArchiveError or (isinstance(cause, BrokerError) and cause.code == code)
    assert list((tmp_path / "releases").iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"", b"no archive", gzip.compress(b"no archive either")], ids=["empty", "text", "gzip"]
)
def test_file_that_is_not_an_archive_is_refused(key: PublicKey, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "package.tar.gz"
    path.write_bytes(content)
    with pytest.raises(PackageError) as caught:
        verify_package(path, [key])
    assert caught.value.code in ("not_a_package", "unreadable")
    with pytest.raises(UpgradeError):
        open_package(path, [key_text(tmp_path)])


def test_truncated_package_is_refused(package: Path, key: PublicKey, tmp_path: Path) -> None:
    package.write_bytes(package.read_bytes()[:-40])
    with raises_code(PackageError, "not_a_package"):
        verify_package(package, [key])
    with pytest.raises(ConsumerError):
        read(package, tmp_path)


def test_package_is_not_installed_in_a_file(package: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.write_bytes(b"")
    with raises_code(UpgradeError, "upgrade_error"):
        install(package, root, [key_text(tmp_path)])
    assert root.read_bytes() == b""


def test_existing_release_is_replaced_only_by_a_complete_one(package: Path, tmp_path: Path) -> None:
    release = read(package, tmp_path)
    (release / "left-over").touch()
    manifest = open_package(package, [key_text(tmp_path)])
    unpack_package(package, manifest, release, Leftovers())
    assert not (release / "left-over").exists()
    change(package, other_content)
    with pytest.raises(UpgradeError):
        unpack_package(package, manifest, release, Leftovers())
    assert (release / "lib" / "a.py").read_text() == "a = 1\n"


@pytest.mark.parametrize(
    ("members", "code", "names"),
    [
        ({"platform": "linux-vax"}, "wrong_platform", ("linux-vax", this_platform())),
        ({"name": "other"}, "wrong_product", ("other", "agent-command-manager")),
    ],
)
def test_package_for_another_machine_or_product_is_refused(
    release: Path, tmp_path: Path, members: dict[str, str], code: str, names: tuple[str, str]
) -> None:
    manifest = manifest_of(release)
    check_fits(replace(manifest, platform=this_platform()), "agent-command-manager", tmp_path)
    with raises_code(UpgradeError, code) as caught:
        check_fits(replace(manifest, **members), "agent-command-manager", tmp_path)
    assert all(name in str(caught.value) for name in names)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b'"1.4.2"', b'"../1"', "invalid_manifest"),
        (b'"lib/a.py"', b'"../a.py"', "unsafe_path"),
        (b'"lib/a.py"', b'"/a.py"', "unsafe_path"),
        (b'"format": 1', b'"format": 2', "invalid_manifest"),
        (b'"any"', b'"A/B"', "invalid_manifest"),
        (b'"bin/acm-agent",', b'"bin/other",', "program_missing"),
        (b"{", b"[", "invalid_manifest"),
    ],
)
def test_invalid_manifest_is_refused(release: Path, old: bytes, new: bytes, code: str) -> None:
    content = render_manifest(manifest_of(release))
    assert parse_manifest(content) == manifest_of(release)
    with raises_code(PackageError, code):
        parse_manifest(content.replace(old, new, 1))


def test_oversized_header_is_refused_before_the_signature_is_verified(tmp_path: Path) -> None:
    header = tarfile.TarInfo("bomb")
    header.type, header.size = tarfile.XHDTYPE, 4 << 30
    package = tmp_path / "package.tar.gz"
    package.write_bytes(gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + bytes(10_000)))
    with raises_code(PackageError, "not_a_package") as caught:
        verify_package(package, [])
    assert "4294967296 bytes" in str(caught.value)
    with raises_code(UpgradeError, "package_refused") as refused:
        open_package(package, [])
    assert "4294967296 bytes" in str(refused.value)
