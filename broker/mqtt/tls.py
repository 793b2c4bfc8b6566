"""TLS contexts of MQTT clients. The broker's certificate and host name are always verified."""

import ssl

from broker.mqtt.address import MqttError, TlsFiles

__all__ = [
    "client_context",
    "load_files",
]


def client_context(files: TlsFiles | None) -> ssl.SSLContext:
    """Return the context of a client; without files it trusts the system's authorities and has no certificate.

    Raises MqttError if the files cannot be used.
    """
    if files is None:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        load_files(context, files)
    except OSError as error:
        raise MqttError(
            f"The TLS files in {files.certificate.parent} cannot be used: {error}.", code="tls_files_unusable"
        ) from error
    return context


def load_files(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Load the files into the context, replacing earlier ones; raises OSError (ssl.SSLError among them)."""
    context.load_verify_locations(files.ca)
    context.load_cert_chain(files.certificate, files.key)
