"""TLS contexts of MQTT clients. The broker's certificate and host name are always verified.

One rule for agents and servers, and for every version of Python: what `ssl.create_default_context` adds since Python
3.13 (VERIFY_X509_STRICT and VERIFY_X509_PARTIAL_CHAIN) is not used, since it refuses the certificates of many private
authorities, and only on some machines.
"""

import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from broker.mqtt.address import MqttError, TlsFiles
from broker.system.key_pairs import load_pair

__all__ = [
    "NewContextEachTime",
    "certified_name",
    "client_context",
]


_CODE = "tls_files_unusable"


class NewContextEachTime(ssl.SSLContext):
    """Stands for a new context at each connection: one context never forgets an authority that it has loaded."""

    files: Callable[[], TlsFiles | None]

    @classmethod
    def of(cls, files: Callable[[], TlsFiles | None]) -> "NewContextEachTime":
        """Return it for these files, which are read again each time; raises MqttError if they cannot be used now."""
        client_context(files())
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.files = files
        return context

    def wrap_socket(  # type: ignore[override]
        self, sock: socket.socket, *, server_hostname: str | None = None, **options: Any
    ) -> ssl.SSLSocket:
        """Wrap the socket in a new context; raises OSError, also for files that cannot be used."""
        try:
            context = client_context(self.files())
        except MqttError as error:
            raise OSError(str(error).rstrip(".")) from error
        return context.wrap_socket(sock, server_hostname=certified_name(server_hostname or ""), **options)


def certified_name(host: str) -> str:
    """Return a host as certificates have it: without the final dot of a name (RFC 6066) and the zone of an address."""
    return host.rstrip(".").partition("%")[0]


def client_context(files: TlsFiles | None) -> ssl.SSLContext:
    """Return the context of a client; without files it trusts the system's authorities and has no certificate.

    Raises MqttError, which names the file, if one cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if files is None:
        _load_system_authorities(context)
        return context
    _load_authorities(context, files.ca)
    try:
        load_pair(context, files.certificate, files.key)
    except OSError as error:
        for path in (files.certificate, files.key):
            _read(path)
        raise MqttError(_reason(files, error), code=_CODE) from error
    return context


def _load_system_authorities(context: ssl.SSLContext) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        path = os.environ.get(name)
        if path and not Path(path).exists():
            raise MqttError(f"{name} names {path}, which does not exist: no authority is trusted.", code=_CODE)
    context.load_default_certs()


def _load_authorities(context: ssl.SSLContext, path: Path) -> None:
    _read(path)
    try:
        context.load_verify_locations(path)
    except OSError as error:
        raise MqttError(f"The file of trusted authorities {path} has no certificate in PEM.", code=_CODE) from error


def _read(path: Path) -> None:
    """Raise MqttError if the file cannot be read: OpenSSL's error would not name it."""
    try:
        path.read_bytes()
    except OSError as error:
        raise MqttError(f"The TLS file {path} cannot be read: {error.strerror}.", code=_CODE) from error


def _reason(files: TlsFiles, error: OSError) -> str:
    if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
        return f"The key {files.key} does not belong to the certificate {files.certificate}."
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(files.certificate)
    except OSError:
        return f"The TLS file {files.certificate} has no certificate in PEM."
    return f"The TLS file {files.key} has no private key in PEM, or one that needs a password."
