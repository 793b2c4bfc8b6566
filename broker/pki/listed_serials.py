"""The serial numbers on the revocation list in a file, for a program that does not have the authority."""

from pathlib import Path

from broker.pki.authority_files import AuthorityError
from broker.pki.revocation_list import serials_on_lists
from broker.system.files import state_of
from broker.system.permissions import refuse_changeable

__all__ = [
    "ListedSerials",
]


class ListedSerials:
    """The list in a file, which is read again when it was replaced; a file that does not exist has none.

    No signature is checked: instead, a file that others could change is refused. Used by any thread.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[tuple[int, int, int] | None, frozenset[int]] = (None, frozenset())

    def __contains__(self, serial: object) -> bool:
        """Whether the list has this number; raises AuthorityError and ExposedFileError if it cannot be relied on."""
        state, serials = self._seen
        try:
            now = state_of(self._path)
            if now != state:
                serials = self._read() if now is not None else frozenset()
                self._seen = now, serials
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not a list in PEM"
            raise AuthorityError(f"{self._path} cannot be used: {reason}.", code="unusable_authority_file") from error
        return serial in serials

    def _read(self) -> frozenset[int]:
        refuse_changeable(self._path, owners=[self._path.stat().st_uid])
        return serials_on_lists(self._path.read_bytes())
