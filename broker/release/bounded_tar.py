"""Tar headers of untrusted archives, bounded: tarfile reads the content of extended headers into memory as a whole."""

import tarfile
from tarfile import EOFHeaderError, HeaderError  # type: ignore[attr-defined] # typeshed does not know the first
from typing import Self

__all__ = [
    "MAX_DEPTH",
    "BoundedHeader",
    "MemberRefused",
    "not_a_plain_file",
]


MAX_DEPTH = 32
"""Of the parts of a member's path: many programs walk directories recursively."""

_MAX_EXTENDED_HEADER_BYTES = 8192  # of a header with a long name or other metadata
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class MemberRefused(tarfile.TarError):
    """A header is damaged, or its member is not allowed; the text is one sentence."""


def not_a_plain_file(name: str) -> MemberRefused:
    """Return the error for a member that is neither a file nor a directory."""
    return MemberRefused(
        f"The member {name[:200]!r} is refused: only plain files and directories are allowed, no links and no devices."
    )


class BoundedHeader(tarfile.TarInfo):
    """A header with bounded sizes; pass the class to tarfile.open as `tarinfo`."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Read a header; raises MemberRefused for a negative size, or one that would be read into memory."""
        header = super().frombuf(buf, encoding, errors)
        if header.type == tarfile.GNUTYPE_SPARSE:
            raise not_a_plain_file(header.name)
        if header.size < 0 or (header.type in _EXTENDED and header.size > _MAX_EXTENDED_HEADER_BYTES):
            raise MemberRefused(f"The archive has a header with a size of {header.size} bytes; that is refused.")
        return header

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        """Read the next header; raises MemberRefused for a damaged one, which tarfile would treat as the end."""
        try:
            return super().fromtarfile(tarfile)
        except EOFHeaderError:
            raise
        except HeaderError as error:
            raise MemberRefused(f"The archive is damaged or cut short: {error}.") from error
