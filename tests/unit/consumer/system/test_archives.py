"""What is unpacked, and what is refused: archives come from outside."""

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consumer.errors import ArchiveError
from consumer.system.archives import Limits, is_archive, unpack
from tests.support.errors import raises_code

MakeArchive = Callable[..., Path]


def member(name: str, content: bytes = b"x", **members: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in members.items():
        setattr(info, key, value)
    return info, content


def link(name: str, kind: bytes, target: str = "elsewhere") -> tuple[tarfile.TarInfo, bytes]:
    return member(name, b"", type=kind, linkname=target)


@pytest.fixture
def make(tmp_path: Path) -> MakeArchive:
    def make(*members: tuple[tarfile.TarInfo, bytes], name: str = "a.tar", **options: Any) -> Path:
        path = tmp_path / name
        with tarfile.open(path, "w:gz" if name.endswith("gz") else "w", **options) as archive:
            for info, content in members:
                archive.addfile(info, io.BytesIO(content))
        return path

    return make


@pytest.fixture
def into(tmp_path: Path) -> Path:
    directory = tmp_path / "into"
    directory.mkdir()
    return directory


def files_in(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_files_and_directories_are_never_more_open_than_packed(
    make: MakeArchive, into: Path, name: str, form: int
) -> None:
    archive = make(
        member("./conf.d", b"", type=tarfile.DIRTYPE, mode=0o700),
        member("conf.d/one.toml", b"a = 1\n", mode=0o4600, uid=12345, uname="nobody"),
        member("deep/er/run.sh", b"#!/bin/sh\n", mode=0o6711),
        member("odd", b"x", mode=0o076),
        name=name,
        format=form,
    )
    assert is_archive(archive)
    made = unpack(archive, into)
    assert [path.relative_to(into).as_posix() for path in made] == ["conf.d/one.toml", "deep/er/run.sh", "odd"]
    assert files_in(into) == {"conf.d/one.toml": b"a = 1\n", "deep/er/run.sh": b"#!/bin/sh\n", "odd": b"x"}
    modes = {path.name: path.stat().st_mode & 0o7777 for path in into.rglob("*")}
    assert modes == {"conf.d": 0o700, "one.toml": 0o600, "deep": 0o755, "er": 0o755, "run.sh": 0o711, "odd": 0o454}


def test_long_and_foreign_names_are_kept(make: MakeArchive, into: Path) -> None:
    name = "/".join(["größe" * 20] * 3)
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        directory = into / str(form)
        directory.mkdir()
        (path,) = unpack(make(member(name), format=form), directory)
        assert path.relative_to(directory).as_posix() == name


@pytest.mark.parametrize(
    ("refused", "code"),
    [
        (member("/etc/passwd"), "unsafe_path"),
        (member("../outside"), "unsafe_path"),
        (member("a/../../outside"), "unsafe_path"),
        (member("..", b"", type=tarfile.DIRTYPE), "unsafe_path"),
        (member("a\\..\\b"), "unsafe_path"),
        (member("a\nb"), "unsafe_path"),
        (member("."), "member_refused"),
        (link("l", tarfile.SYMTYPE), "member_refused"),
        (link("l", tarfile.LNKTYPE, "good"), "member_refused"),
        (link("pipe", tarfile.FIFOTYPE), "member_refused"),
        (link("null", tarfile.CHRTYPE), "member_refused"),
        (link("sda", tarfile.BLKTYPE), "member_refused"),
        (link("sparse", tarfile.GNUTYPE_SPARSE), "member_refused"),
        (member("strange", b"", type=b"Z"), "member_refused"),
        (member("good"), "duplicate_member"),
        (member("./good"), "duplicate_member"),
        (member("good/below"), "file_and_directory"),
        (member("good", b"", type=tarfile.DIRTYPE), "file_and_directory"),
        (member("n" * 300), "not_unpacked"),
    ],
)
def test_refused_member_is_named_and_leaves_nothing_outside(
    make: MakeArchive, into: Path, refused: tuple[tarfile.TarInfo, bytes], code: str
) -> None:
    archive = make(member("good"), refused)
    with raises_code(ArchiveError, code):
        unpack(archive, into)
    assert files_in(into) == {"good": b"x"}
    assert sorted(path.name for path in into.parent.iterdir()) == ["a.tar", "into"]


def test_a_directory_cannot_become_a_file(make: MakeArchive, into: Path) -> None:
    with raises_code(ArchiveError, "duplicate_member"):
        unpack(make(member("d/a"), member("d")), into)


def test_existing_link_is_not_followed(make: MakeArchive, into: Path) -> None:
    victim = into.parent / "victim"
    victim.write_text("whole")
    (into / "a").symlink_to(victim)
    with raises_code(ArchiveError, "duplicate_member"):
        unpack(make(member("a")), into)
    assert victim.read_text() == "whole"


def test_the_limits_hold_before_anything_is_written(make: MakeArchive, into: Path) -> None:
    bomb = make(member("zeros", bytes(4 << 20)), name="bomb.tar.gz")
    assert bomb.stat().st_size < 10_000
    with raises_code(ArchiveError, "too_large"):
        unpack(bomb, into, Limits(bytes=1 << 20))
    assert files_in(into) == {}
    with raises_code(ArchiveError, "too_many_members"):
        unpack(make(member("a"), member("b"), member("c")), into, Limits(members=2))


def header(**members: Any) -> bytes:
    info, _ = member("n", b"", **members)
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("beginning", "said"),
    [
        (header(type=tarfile.GNUTYPE_LONGNAME, size=1 << 30), "size of 1073741824 bytes"),
        (header(type=tarfile.XHDTYPE, size=1 << 20), "size of 1048576 bytes"),
        (header(type=tarfile.XGLTYPE, size=1 << 20), "size of 1048576 bytes"),
        (header(size=-512), "size of -512 bytes"),
        (header(type=tarfile.XHDTYPE, size=0) * 3000, "is not a readable archive"),
    ],
    ids=["long name", "extended", "global", "backwards", "a chain"],
)
def test_malicious_header_is_refused(tmp_path: Path, into: Path, beginning: bytes, said: str) -> None:
    for name, content in (("a.tar", beginning), ("a.tar.gz", gzip.compress(beginning))):
        archive = tmp_path / name
        archive.write_bytes(content + bytes(2048))
        with pytest.raises(ArchiveError, match=said):
            unpack(archive, into)


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_truncated_archive_is_refused(make: MakeArchive, tmp_path: Path, name: str) -> None:
    whole = make(member("a", b"a" * 600), member("b", b"b" * 600), name=name, format=tarfile.USTAR_FORMAT).read_bytes()
    lengths = range(1, len(whole), 7) if name.endswith("gz") else range(1, 3072 + 512, 97)  # to the end mark
    for number, length in enumerate(lengths):
        into = tmp_path / f"into-{number}"
        into.mkdir()
        short = tmp_path / name
        short.write_bytes(whole[:length])
        with pytest.raises(ArchiveError):
            unpack(short, into)


def test_a_damaged_header_is_not_taken_for_the_end(make: MakeArchive, into: Path) -> None:
    archive = make(member("a"), member("b"), format=tarfile.USTAR_FORMAT)
    damaged = bytearray(archive.read_bytes())
    damaged[1024 + 148] ^= 1  # in the checksum of the second header
    archive.write_bytes(damaged)
    with pytest.raises(ArchiveError, match="damaged or cut short"):
        unpack(archive, into)


@pytest.mark.parametrize(
    "content",
    [b"", b"a = 1\n", b"\x1f\x8b", b"\x1f\x8bnot gzip at all", gzip.compress(b"a = 1\n"), bytes(4096) + b"image"],
    ids=["empty", "text", "two bytes", "no gzip", "gzip", "zeros"],
)
def test_other_files_are_no_archives(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert not is_archive(path)


def test_a_full_disk_is_an_error_for_the_user(make: MakeArchive, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with raises_code(ArchiveError, "not_unpacked"):
        unpack(make(member("a")), nowhere)


def test_data_hidden_after_the_end_of_an_archive_is_bounded(make: MakeArchive, into: Path) -> None:
    archive = make(member("good"))
    with archive.open("ab") as file:
        file.write(bytes(1 << 16))
    with raises_code(ArchiveError, "too_much_after_end"):
        unpack(archive, into, Limits(bytes=1 << 15))
