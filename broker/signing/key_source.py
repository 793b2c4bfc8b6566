"""The signing keys of a running server, which may be created after it has started."""

from collections.abc import Sequence
from pathlib import Path

from broker.contract.dsse import SigningKey
from broker.signing.key_list import SigningKeyError
from broker.signing.key_store import SigningKeys

__all__ = [
    "SigningKeySource",
]


class SigningKeySource:
    """Returns the current private keys. Looks for the directory at each call until it exists."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys: SigningKeys | None = None

    def __call__(self) -> Sequence[SigningKey]:
        """Return the keys that sign, none if the directory does not exist; raises SigningKeyError, ExposedFileError."""
        if self._keys is None and self._exists():
            self._keys = SigningKeys(self.path)
        return self._keys.signing if self._keys else ()

    def _exists(self) -> bool:
        try:
            self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise SigningKeyError(
                f"{self.path} cannot be accessed: {error.strerror}; run this as the user that owns the signing keys.",
                code="inaccessible_signing_keys",
            ) from error
        return True
