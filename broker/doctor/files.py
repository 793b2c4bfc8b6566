"""The files: that no other user can change them or read the keys, and that the signing keys are there."""

from collections.abc import Callable, Iterator
from pathlib import Path

from broker.app.config import ServerConfig
from broker.app.credentials import open_authority, signing_keys_path
from broker.doctor.places import configured_keys, is_there, ledger_file
from broker.errors import BrokerError, ExposedFileError
from broker.pki.authority_files import CA_CERTIFICATE
from broker.signing.key_store import SigningKeys
from broker.system.advice import advised_command
from broker.system.findings import NOT_CHECKED, Fault, Finding, Level, ok
from broker.system.permissions import refuse_changeable, refuse_readable

__all__ = [
    "check_files",
]


EXPOSED = Fault(
    "file_exposed",
    Level.FAIL,
    "Another user of the machine can change a file that is relied on, or read a key.",
    "Follow the sentence, then find out whether anybody did.",
)
KEYS_UNUSABLE = Fault(
    "keys_unusable",
    Level.FAIL,
    "The authority or the signing keys cannot be read.",
    "Restore the directory from a backup; without one, docs/security.md says what to do.",
)
_CHECK = "permissions"


def check_files(config: ServerConfig) -> Iterator[Finding]:
    """Check the ledger's file, the authority, the signing keys and the keys of certificates."""
    found = [finding for try_it in _trials(config) if (finding := _finding(try_it)) is not None]
    return iter(found or [ok(_CHECK, "No other user can change the ledger or the authority, or read a key.")])


def _trials(config: ServerConfig) -> Iterator[Callable[[], object]]:
    file = ledger_file(config)
    if file is not None and is_there(file):
        yield lambda: refuse_changeable(file, owners=[file.stat().st_uid])
    for path in configured_keys(config):
        yield _key_trial(path)
    if is_there(Path(config.ca) / CA_CERTIFICATE):
        yield lambda: open_authority(config)
    if is_there(signing_keys_path(config)):
        yield lambda: SigningKeys(signing_keys_path(config)).signing


def _key_trial(path: Path) -> Callable[[], object]:
    return lambda: refuse_readable(path, owners=[path.stat().st_uid])


def _finding(try_it: Callable[[], object]) -> Finding | None:
    try:
        try_it()
    except ExposedFileError as error:
        return EXPOSED.found(_CHECK, str(error), fix=advised_command(error))
    except BrokerError as error:
        if isinstance(error.__cause__, PermissionError):
            return NOT_CHECKED.found(_CHECK, f"Not checked: {error}")
        return KEYS_UNUSABLE.found(_CHECK, str(error))
    except OSError as error:
        return NOT_CHECKED.found(_CHECK, f"Not checked: {error.filename} cannot be read: {error.strerror}.")
    return None
