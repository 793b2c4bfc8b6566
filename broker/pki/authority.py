"""The certificate authority: a directory of mode 0700 with its key, and the certificates and lists that it signs."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from broker.contract.enrolment_token import fingerprint_of
from broker.contract.private_keys import private_key_to_pem
from broker.pki.authority_files import (
    CA_CERTIFICATE,
    CA_KEY,
    SUCCESSOR_CERTIFICATE,
    AuthorityError,
    complete_promotion,
    is_half_promoted,
    promote,
    read_issuers,
    write_successor,
)
from broker.pki.certificates import (
    Issuer,
    agent_certificate,
    authority_certificate,
    canary_certificate,
    doctor_certificate,
    host_certificate,
    like_certificate,
    operator_certificate,
    server_account_certificate,
)
from broker.pki.revocation_list import RevocationList, RevokedCertificate, read_revocation_lists, revocation_list
from broker.pki.verification import Identity, is_issued_by, verify_certificate
from broker.system.files import state_of, write_durably
from broker.system.key_pairs import write_pair
from broker.system.lock import locked_directory
from broker.system.permissions import refuse_changeable, refuse_readable
from broker.system.trees import paths_below

__all__ = [
    "CRL_LIFETIME",
    "SERVER_CERTIFICATE",
    "SERVER_KEY",
    "CertificateAuthority",
    "create_authority",
    "crl_path",
    "has_authority",
    "is_unused_authority",
]


CRL_LIFETIME = timedelta(days=7)
SERVER_CERTIFICATE = "server.crt"
SERVER_KEY = "server.key"
_SERVER_LIFETIME = timedelta(days=365)
_CRL = "crl.pem"
_SECRET, _PUBLIC = 0o600, 0o644


def create_authority(directory: Path, name: str, now: datetime) -> None:
    """Create an authority: key, certificate, empty revocation list.

    The certificate is written last: a directory without it is not an authority, and what an interrupted call has left
    there is replaced. Raises AuthorityError, also for a directory with anything else, so that no authority is ever
    overwritten; ExposedFileError and CertificateError.
    """
    key = Ed25519PrivateKey.generate()
    issuer = Issuer(authority_certificate(name, key, now), key)
    with _file_errors(directory):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _names_in(directory) - {CA_KEY, _CRL, f".{CA_KEY}.part", f".{_CRL}.part", f".{CA_CERTIFICATE}.part"}:
            raise AuthorityError(
                f"{directory} is not empty: choose a new directory for the authority.", code="directory_not_empty"
            )
        directory.chmod(0o700)
        _refuse_exposed(directory)
        write_durably(directory / CA_KEY, private_key_to_pem(key), _SECRET)
        write_durably(crl_path(directory), revocation_list(issuer, [], _crl_number(now), now, CRL_LIFETIME), _PUBLIC)
        write_durably(directory / CA_CERTIFICATE, issuer.certificate.public_bytes(Encoding.PEM), _PUBLIC)


def has_authority(directory: Path) -> bool:
    """Whether a directory has an authority: one that was created to the end."""
    return (directory / CA_CERTIFICATE).exists()


def is_unused_authority(directory: Path, keys: Path) -> bool:
    """Whether a directory has nothing but a new authority, and perhaps `keys`; raises AuthorityError."""
    with _file_errors(directory):
        own = {CA_CERTIFICATE, CA_KEY, _CRL}
        return directory.is_dir() and own <= _names_in(directory) <= {*own, keys.name}


def _names_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def crl_path(directory: Path) -> Path:
    """Return the default path of the revocation list."""
    return directory / _CRL


class CertificateAuthority:
    """The authority in a directory that create_authority made.

    Raises AuthorityError when it cannot be read, ExposedFileError when others than its owner could change it or read
    its keys.
    """

    def __init__(self, directory: Path, *, now: Callable[[], datetime]) -> None:
        self._directory = directory
        self._now = now
        with _file_errors(directory):
            if not has_authority(directory):
                raise AuthorityError(
                    f"{directory} has no authority: create one with `acm ca init --dir {directory}`.",
                    code="no_authority",
                )
            _refuse_exposed(directory)
            self._seen = _state(directory)
            self._read = read_issuers(directory)

    @property
    def _issuers(self) -> tuple[Issuer, Issuer | None]:
        """The authority and its successor; read again when another process has begun or finished a rollover."""
        with suppress(OSError):  # what was read before is right until then
            state = _state(self._directory)
            if state != self._seen:
                self._read, self._seen = read_issuers(self._directory), state
        return self._read

    @property
    def _issuer(self) -> Issuer:
        return self._issuers[0]

    @property
    def _trusted(self) -> list[Issuer]:
        return [issuer for issuer in self._issuers if issuer is not None]

    @property
    def certificate(self) -> str:
        """The authority's own certificate in PEM."""
        return _pem(self._issuer)

    @property
    def successor(self) -> str | None:
        """The certificate (PEM) of the authority that replaces this one; None if no rollover is in progress."""
        _, successor = self._issuers
        return _pem(successor) if successor is not None else None

    @property
    def trusted(self) -> str:
        """The certificates (PEM) to trust: the authority's, and during a rollover its successor's after it."""
        return "".join(map(_pem, self._trusted))

    def trusted_by_holder(self, certificate: str) -> str:
        """Return `trusted` for the holder of a certificate (PEM), with that of its issuer first."""
        held = x509.load_pem_x509_certificate(certificate.encode())
        return "".join(map(_pem, sorted(self._trusted, key=lambda issuer: not is_issued_by(held, issuer))))

    def begin_rollover(self) -> bool:
        """Create the successor, which is trusted from now on; False if there is one. Raises as `issue` does."""
        with _file_errors(self._directory), locked_directory(self._directory):
            is_new = self.successor is None
            if is_new:
                write_successor(self._directory, self._now())
        return is_new

    def promote_successor(self) -> None:
        """Let the successor take this authority's place; `finish_rollover` completes that. Raises AuthorityError."""
        with _file_errors(self._directory), locked_directory(self._directory):
            promote(self._directory)

    def finish_rollover(self) -> None:
        """Let the successor take this authority's place, whose key is deleted; raises AuthorityError."""
        with _file_errors(self._directory), locked_directory(self._directory):
            if self.successor is not None:
                promote(self._directory)
            complete_promotion(self._directory)

    @property
    def is_half_promoted(self) -> bool:
        """Whether the successor took the authority's place, but the former key was not deleted yet."""
        with _file_errors(self._directory):
            return is_half_promoted(self._directory)

    @property
    def fingerprint(self) -> str:
        """The fingerprint of its certificate, as in enrolment tokens."""
        return fingerprint_of(self._issuer.certificate.public_bytes(Encoding.DER))

    def issue(
        self, agent: str, key: Ed25519PublicKey, lifetime: timedelta, *, by_successor: bool = False
    ) -> x509.Certificate:
        """Return a new certificate for an agent's key; raises CertificateError."""
        return agent_certificate(self._issuer_of(by_successor), agent, key, self._now(), lifetime)

    def issue_canary(
        self, key: Ed25519PublicKey, lifetime: timedelta, *, by_successor: bool = False
    ) -> x509.Certificate:
        """Return a new canary certificate (see `canary_certificate`); raises CertificateError."""
        return canary_certificate(self._issuer_of(by_successor), key, self._now(), lifetime)

    def issue_for_doctor(
        self, key: Ed25519PublicKey, lifetime: timedelta, serial: int | None = None
    ) -> x509.Certificate:
        """Return a new certificate of `acm doctor` (see `doctor_certificate`); raises CertificateError."""
        return doctor_certificate(self._issuer, key, self._now(), lifetime, serial)

    def _issuer_of(self, by_successor: bool) -> Issuer:
        current, successor = self._issuers
        return successor if by_successor and successor is not None else current

    def identify(self, certificate: str, grace: timedelta = timedelta()) -> Identity:
        """Return the identity in a certificate (PEM) of this authority; raises IdentityError.

        It must be valid now, or have expired within `grace`.
        """
        current, successor = self._issuers
        if successor is not None and self.is_of_successor(certificate):
            return verify_certificate(certificate, successor, self._now(), grace)
        return verify_certificate(certificate, current, self._now(), grace)

    def is_of_successor(self, certificate: str) -> bool:
        """Return whether the successor has issued this certificate (PEM)."""
        _, successor = self._issuers
        try:
            read = x509.load_pem_x509_certificate(certificate.encode())
        except ValueError:
            return False
        return successor is not None and is_issued_by(read, successor)

    def write_server_certificate(self, hosts: Iterable[str], out: Path, name: str = "server") -> x509.Certificate:
        """Write a new key and certificate of a TLS server to `out`/`name`.key and .crt, replacing earlier ones.

        Raises AuthorityError and CertificateError.
        """
        key, certificate = self._server_pair(hosts)
        _write_named_pair(out / name, key, certificate)
        return certificate

    def write_server_pem(self, hosts: Iterable[str], path: Path) -> x509.Certificate:
        """Write a new key and certificate of a TLS server to one file, replacing an earlier one; raises as above."""
        key, certificate = self._server_pair(hosts)
        with _file_errors(path):
            _write_joint(path, key, certificate)
        return certificate

    def write_client_certificate(self, client_id: str, out: Path, name: str) -> x509.Certificate:
        """Write a new key and certificate of a server's account at the broker to `out`/`name`.key and .crt.

        It cannot be revoked, so it is not for agents. Raises AuthorityError, CertificateError and InvalidName.
        """
        key = Ed25519PrivateKey.generate()
        certificate = server_account_certificate(
            self._issuer, client_id, key.public_key(), self._now(), _SERVER_LIFETIME
        )
        _write_named_pair(out / name, key, certificate)
        return certificate

    def write_operator_certificate(self, operator: str, out: Path, lifetime: timedelta) -> x509.Certificate:
        """Write a new key and certificate of an operator of the API to `out`/`operator`.key and .crt.

        Raises AuthorityError, CertificateError and InvalidName.
        """
        key = Ed25519PrivateKey.generate()
        certificate = operator_certificate(self._issuer, operator, key.public_key(), self._now(), lifetime)
        _write_named_pair(out / operator, key, certificate)
        return certificate

    def has_issued(self, certificate: x509.Certificate) -> bool:
        """Return whether this authority, or its successor, has signed the certificate."""
        return any(is_issued_by(certificate, issuer) for issuer in self._trusted)

    def renew_server_certificate(
        self, certificate: x509.Certificate, path: Path, key_path: Path, *, by_successor: bool = False
    ) -> None:
        """Write a new key and a certificate like this one, valid for another year, to these files, or to one file.

        Raises AuthorityError and CertificateError.
        """
        key, issuer = Ed25519PrivateKey.generate(), self._issuer_of(by_successor)
        renewed = like_certificate(issuer, certificate, key.public_key(), self._now(), _SERVER_LIFETIME)
        with _file_errors(path):
            if path == key_path:
                _write_joint(path, key, renewed)
            else:
                write_pair(path, renewed.public_bytes(Encoding.PEM), key_path, private_key_to_pem(key))

    def write_revocation_list(self, revoked: Callable[[], Iterable[RevokedCertificate]], path: Path) -> datetime:
        """Write the list of the entries that `revoked` returns; return its nextUpdate. Raises AuthorityError.

        During a rollover the file has a list of each of both authorities, with the same entries: a broker checks a
        certificate against the list of its issuer, and serial numbers are random. `revoked` is called under a lock: the
        later of two writers sees everything that the earlier one saw.
        """
        with _file_errors(path), locked_directory(self._directory):
            now = self._now()
            # design.md: "Revocation is of an enrolment"
            entries, number = list(revoked()), _crl_number(now)
            lists = (revocation_list(issuer, entries, number, now, CRL_LIFETIME) for issuer in self._trusted)
            write_durably(path, b"".join(lists), _PUBLIC)
        return now + CRL_LIFETIME

    def read_revocation_list(self, path: Path) -> RevocationList | None:
        """Return the list in a file, or None if there is none of this authority; raises AuthorityError."""
        with _file_errors(path):
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                return None
        return read_revocation_lists(content, self._trusted)

    def _server_pair(self, hosts: Iterable[str]) -> tuple[Ed25519PrivateKey, x509.Certificate]:
        key = Ed25519PrivateKey.generate()
        return key, host_certificate(self._issuer, hosts, key.public_key(), self._now(), _SERVER_LIFETIME)


def _pem(issuer: Issuer) -> str:
    return issuer.certificate.public_bytes(Encoding.PEM).decode()


def _state(directory: Path) -> list[tuple[int, int, int] | None]:
    return [state_of(directory / name) for name in (CA_CERTIFICATE, CA_KEY, SUCCESSOR_CERTIFICATE)]


def _refuse_exposed(directory: Path) -> None:
    """Raise ExposedFileError if others than its owner could write to the directory or read keys in it."""
    owners = [directory.stat().st_uid]
    refuse_changeable(directory, owners=owners)
    for key in [path for path in paths_below(directory, skip_private=True) if path.suffix == ".key"]:
        refuse_readable(key, owners=owners)


def _write_named_pair(stem: Path, key: Ed25519PrivateKey, certificate: x509.Certificate) -> None:
    with _file_errors(stem.parent):
        path, key_path = stem.with_name(f"{stem.name}.crt"), stem.with_name(f"{stem.name}.key")
        write_pair(path, certificate.public_bytes(Encoding.PEM), key_path, private_key_to_pem(key))


def _write_joint(path: Path, key: Ed25519PrivateKey, certificate: x509.Certificate) -> None:
    write_durably(path, private_key_to_pem(key) + certificate.public_bytes(Encoding.PEM), _SECRET)


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AuthorityError(f"{path} cannot be used: {error.strerror}.", code="unusable_authority_file") from error


def _crl_number(now: datetime) -> int:
    return int(now.timestamp() * 1000)
