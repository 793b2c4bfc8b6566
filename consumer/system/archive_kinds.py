"""The kinds of archives and compressed files that are not unpacked, by the bytes with which they begin."""

from dataclasses import dataclass

__all__ = ["BEGINNING_BYTES", "kind_of"]


BEGINNING_BYTES = 16


@dataclass(frozen=True)
class _Kind:
    """`magics` are at the offset `at`; a file whose name has one of the `endings` is meant to be of this kind."""

    name: str
    magics: tuple[bytes, ...]
    endings: tuple[str, ...]
    at: int = 0


_SKIPPABLE = tuple(bytes([number, 0x2A, 0x4D, 0x18]) for number in range(0x50, 0x60))  # as pzstd begins (RFC 8878)
_KINDS = (
    _Kind(
        "a zip archive",
        (b"PK\3\4", b"PK\5\6", b"PK\7\10"),
        (".zip", ".jar", ".war", ".whl", ".xlsx", ".docx", ".odt"),
    ),
    _Kind("an xz file", (b"\xfd7zXZ\0",), (".xz", ".txz")),
    _Kind("a bzip2 file", tuple(b"BZh%d" % level for level in range(1, 10)), (".bz2", ".tbz2")),
    _Kind("a zstd file", tuple(bytes([first, 0xB5, 0x2F, 0xFD]) for first in range(0x22, 0x29)), (".zst", ".tzst")),
    _Kind("a zstd or lz4 file", _SKIPPABLE, (".zst", ".tzst", ".lz4")),
    _Kind("a 7z archive", (b"7z\xbc\xaf\x27\x1c",), (".7z",)),
    _Kind("a rar archive", (b"Rar!\x1a\7",), (".rar",)),
    _Kind("an lz4 file", (b"\4\x22M\x18", b"\2\x21L\x18", b"\3\x21L\x18"), (".lz4",)),
    _Kind("an lzip file", (b"LZIP",), (".lz",)),
    _Kind("an lzma file", (b"\x5d\0\0",), (".lzma", ".tlz")),
    _Kind("an lzop file", (b"\x89LZO\0\r\n\x1a\n",), (".lzo",)),
    _Kind("an lrzip file", (b"LRZI",), (".lrz",)),
    _Kind("a bzip3 file", (b"BZ3v1",), (".bz3",)),
    _Kind("a snappy file", (b"\xff\6\0\0sNaPpY",), (".sz", ".snappy")),
    _Kind("a compress file", (b"\x1f\x9d",), (".z",)),
    _Kind("a pack file", (b"\x1f\x1e",), (".z",)),
    _Kind("an lzh file", (b"\x1f\xa0",), (".z",)),
    _Kind("a cpio archive", (b"070701", b"070702", b"070707", b"\xc7\x71", b"\x71\xc7"), (".cpio",)),
    _Kind("an ar archive", (b"!<arch>\n", b"!<thin>\n"), (".a", ".deb")),
    _Kind("an rpm package", (b"\xed\xab\xee\xdb",), (".rpm",)),
    _Kind("a cab archive", (b"MSCF\0\0\0\0",), (".cab",)),
    _Kind("an arj archive", (b"\x60\xea",), (".arj",)),
    _Kind("an lha archive", (b"-lh", b"-lz"), (".lha", ".lzh"), at=2),
    _Kind("a xar archive", (b"xar!\0",), (".xar", ".pkg")),
    _Kind("a wim archive", (b"MSWIM\0\0\0",), (".wim", ".esd")),
    _Kind("a squashfs image", (b"hsqs", b"sqsh"), (".squashfs", ".sqfs", ".snap")),
    _Kind("a gzip file that contains no tar archive, or a damaged one", (b"\x1f\x8b",), (".gz",)),
)


def kind_of(beginning: bytes, name: str) -> str | None:
    """Return the kind of a file by its first BEGINNING_BYTES; None if it is none, or if its `name` says that it is."""
    for kind in _KINDS:
        if beginning.startswith(kind.magics, kind.at):
            return None if name.lower().endswith(kind.endings) else kind.name
    return None
