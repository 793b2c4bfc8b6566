"""Building a package, and reading it as `acm package verify` and an agent do."""

import gzip
import io
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from broker.errors import BrokerError
from broker.release.builder import SigningFailed, make_manifest, sign_manifest, verify_package, write_package
from broker.release.manifest import Manifest, PackageError, parse_manifest, render_manifest, this_platform
from broker.release.minisign import PublicKey
from consumer.errors import ConsumerError, UpgradeError
from consumer.upgrade.packages import check_fits, open_package, unpack_package
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
    """Take the package as an agent does; return the release."""
    (tmp_path / "releases").mkdir()
    release = tmp_path / "releases" / "1.4.2"
    unpack_package(package, open_package(package, [key_text(tmp_path)]), release)
    return release


def change(package: Path, how: Callable[[list[Member]], None]) -> None:
    with tarfile.open(package) as archive:
        members = [(member, archive.extractfile(member).read()) for member in archive]  # type: ignore[union-attr]
    how(members)
    with tarfile.open(package, "w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_a_package_holds_the_files_and_says_what_it_is(package: Path, key: PublicKey, tmp_path: Path) -> None:
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


def test_the_same_directory_makes_the_same_bytes(release: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_package(release, manifest_of(release), "s", first)
    (release / "lib" / "a.py").touch()
    write_package(release, manifest_of(release), "s", second)
    assert first.read_bytes() == second.read_bytes()


def test_the_version_is_the_one_of_the_distribution_in_the_directory(release: Path) -> None:
    metadata = release / "lib" / "agent_command_manager-2.0rc1.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Name: agent-command-manager\n")
    assert make_manifest(release, "agent-command-manager", None, "any").version == "2.0rc1"
    with pytest.raises(PackageError, match="holds 0 distributions of other; say its --version"):
        make_manifest(release, "other", None, "any")


def test_a_release_of_links_or_without_its_program_is_no_package(release: Path) -> None:
    (release / "lib" / "b.py").symlink_to("a.py")
    with pytest.raises(PackageError, match=r"b\.py is no plain file"):
        manifest_of(release)
    (release / "lib" / "b.py").unlink()
    (release / "bin" / "acm-agent").chmod(0o644)
    with pytest.raises(PackageError, match="has no program bin/acm-agent; it must be there and be executable"):
        manifest_of(release)


def test_what_minisign_does_not_sign_is_not_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SigningFailed, match="minisign did not sign"):
        sign_manifest(b"x", tmp_path / "no-such-key")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SigningFailed, match=r"minisign cannot be run \(No such file or directory\); install it"):
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
    ("how", "says"),
    [
        (other_content, "The file lib/a.py of the package is not the one of its manifest; its SHA-256 is "),
        (other_mode, "The file lib/a.py of the package is not the one of its manifest"),
        (missing, "The file lib/a.py of the manifest is not in the package"),
        (extra, "which its manifest does not name|holds more than 4 members"),
        (twice, "comes twice|holds more than 4 members"),
        (outside, "is no plain file of files/|holds more than 4 members"),
        (link, "is no plain file of files/|holds more than 4 members"),
        (other_manifest, "not one by the key"),
        (no_signature, "This is no package: manifest.json.minisig is not where it belongs"),
    ],
)
def test_a_changed_package_is_refused_by_both_readers(
    package: Path, key: PublicKey, tmp_path: Path, how: Callable[[list[Member]], None], says: str
) -> None:
    change(package, how)
    with pytest.raises(BrokerError, match=says):
        verify_package(package, [key])
    with pytest.raises(ConsumerError, match=says):
        read(package, tmp_path)
    assert list((tmp_path / "releases").iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"", b"no archive", gzip.compress(b"no archive either")], ids=["empty", "text", "gzip"]
)
def test_what_is_no_archive_is_no_package(key: PublicKey, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "package.tar.gz"
    path.write_bytes(content)
    with pytest.raises(PackageError, match=r"package.tar.gz is no package|package.tar.gz cannot be read|no package"):
        verify_package(path, [key])
    with pytest.raises(UpgradeError, match="The package is refused"):
        open_package(path, [key_text(tmp_path)])


def test_a_package_cut_short_is_damaged(package: Path, key: PublicKey, tmp_path: Path) -> None:
    package.write_bytes(package.read_bytes()[:-40])
    with pytest.raises(PackageError, match="is no package that can be read"):
        verify_package(package, [key])
    with pytest.raises(ConsumerError, match="is not a readable archive"):
        read(package, tmp_path)


def test_a_release_that_is_there_is_replaced_only_by_a_whole_one(package: Path, tmp_path: Path) -> None:
    release = read(package, tmp_path)
    (release / "left-over").touch()
    manifest = open_package(package, [key_text(tmp_path)])
    unpack_package(package, manifest, release)
    assert not (release / "left-over").exists()
    change(package, other_content)
    with pytest.raises(UpgradeError):
        unpack_package(package, manifest, release)
    assert (release / "lib" / "a.py").read_text() == "a = 1\n"


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"platform": "linux-vax"}, f"The package is for linux-vax; this machine is {this_platform()}."),
        (
            {"name": "other"},
            "The package is of other; this agent accepts those of agent-command-manager",
        ),
    ],
)
def test_what_does_not_fit_this_machine_is_refused(
    release: Path, tmp_path: Path, members: dict[str, str], says: str
) -> None:
    manifest = manifest_of(release)
    check_fits(replace(manifest, platform=this_platform()), "agent-command-manager", tmp_path)
    with pytest.raises(UpgradeError, match=says):
        check_fits(replace(manifest, **members), "agent-command-manager", tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b'"1.4.2"', b'"../1"', "is not a version"),
        (b'"lib/a.py"', b'"../a.py"', "does not stay inside the package"),
        (b'"lib/a.py"', b'"/a.py"', "does not stay inside the package"),
        (b'"format": 1', b'"format": 2', "The package's manifest is wrong"),
        (b'"any"', b'"A/B"', "The package's manifest is wrong"),
        (b'"bin/acm-agent",', b'"bin/other",', "has no program bin/other"),
        (b"{", b"[", "The package's manifest is wrong"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_refused(release: Path, old: bytes, new: bytes, says: str) -> None:
    content = render_manifest(manifest_of(release))
    assert parse_manifest(content) == manifest_of(release)
    with pytest.raises(PackageError, match=says):
        parse_manifest(content.replace(old, new, 1))


def test_a_header_that_would_fill_the_memory_is_refused_before_the_signature_is_looked_at(tmp_path: Path) -> None:
    header = tarfile.TarInfo("bomb")
    header.type, header.size = tarfile.XHDTYPE, 4 << 30
    package = tmp_path / "package.tar.gz"
    package.write_bytes(gzip.compress(header.tobuf(tarfile.USTAR_FORMAT) + bytes(10_000)))
    with pytest.raises(PackageError, match="claims 4294967296 bytes"):
        verify_package(package, [])
    with pytest.raises(UpgradeError, match="claims 4294967296 bytes"):
        open_package(package, [])
