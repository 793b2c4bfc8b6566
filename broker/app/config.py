"""The server side's configuration: flags over environment (ACM_*) over a TOML file over the defaults."""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec

from broker.contract.topics import InvalidName, Topics
from broker.durations import parse_duration
from broker.errors import BrokerError, InvalidArgument
from broker.mqtt.address import MqttError, TlsFiles, parse_url
from broker.system.settings_file import SettingsReader, given_flags

__all__ = [
    "DEFAULT_ENROLL_LISTEN",
    "SECRET_VARIABLES",
    "ServerConfig",
    "ServerConfigurationError",
    "load_config",
]


class ServerConfigurationError(BrokerError):
    """The configuration has a value that cannot be used."""

    code = "configuration_error"


DEFAULT_ENROLL_LISTEN = "127.0.0.1:8443"
_READER = SettingsReader(urls=("broker", "ledger"), error=ServerConfigurationError)
SECRET_VARIABLES = _READER.secret_variables


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The configuration of `acm`. `client_id` is the server's name at the broker; two servers must not share one.

    `broker_ca`, `broker_certificate` and `broker_key` are the files of an mqtts connection: all three, or none to use
    the system's trusted authorities without a client certificate.
    `ca` is the authority's directory, `signing_keys` the directory of the signing keys (default: `signing` in `ca`),
    `crl` the file of the revocation list (default: `crl.pem` in `ca`).
    The enrolment server listens on `enroll_listen` (default: 127.0.0.1:8443), gives agents `enroll_broker` as the
    broker's URL, and issues certificates with a lifetime of `certificate_lifetime`. An
    expired one can be renewed for `renewal_grace`; `0` is none.
    """

    broker: str = "mqtt://127.0.0.1:1883"
    broker_ca: str | None = None
    broker_certificate: str | None = None
    broker_key: str | None = None
    ledger: str = "sqlite:///acm-ledger.db"
    topic_prefix: str = "acm"
    client_id: str = "acm-server"
    ca: str = "acm-ca"
    signing_keys: str | None = None
    crl: str | None = None
    enroll_listen: str | None = None
    enroll_broker: str | None = None
    enroll_certificate: str | None = None
    enroll_key: str | None = None
    certificate_lifetime: str = "30d"
    renewal_grace: str = "90d"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def broker_tls(self) -> TlsFiles | None:
        """The files of the connection to the broker; None if none are configured."""
        if self.broker_ca is None or self.broker_certificate is None or self.broker_key is None:
            return None
        return TlsFiles(Path(self.broker_ca), Path(self.broker_certificate), Path(self.broker_key))

    @property
    def grace_after_expiry(self) -> timedelta:
        """How long an expired certificate can be renewed; raises ServerConfigurationError."""
        try:
            return timedelta() if self.renewal_grace == "0" else timedelta(seconds=parse_duration(self.renewal_grace))
        except InvalidArgument as error:
            raise ServerConfigurationError(
                f"renewal_grace: {error} `0` allows no renewal after the expiry.", code="bad_renewal_grace"
            ) from error


def load_config(
    path: Path | None, flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> ServerConfig:
    """Merge the sources and check the result; raises ServerConfigurationError, and ExposedFileError for the file."""
    given = given_flags(flags)
    _READER.refuse_passwords(given)
    from_file = {} if path is None else _READER.read_file(path)
    _READER.refuse_unknown(from_file, ServerConfig, str(path))
    from_environment = _READER.from_environment(ServerConfig.__struct_fields__, environment)
    source = str(path or "environment and flags")
    config = _READER.convert({**from_file, **from_environment, **given}, ServerConfig, source)
    try:
        Topics(config.topic_prefix)
        _check_broker(config)
        if config.enroll_broker is not None:
            parse_url(config.enroll_broker)
    except (InvalidName, MqttError) as error:
        raise ServerConfigurationError(str(error), code=error.code) from error
    return config


def _check_broker(config: ServerConfig) -> None:
    given = [config.broker_ca, config.broker_certificate, config.broker_key]
    uses_tls = parse_url(config.broker).tls
    if any(given) and not all(given):
        raise ServerConfigurationError(
            "Set all of broker_ca, broker_certificate and broker_key, or none of them.", code="incomplete_broker_tls"
        )
    if any(given) and not uses_tls:
        raise ServerConfigurationError(
            "broker_ca, broker_certificate and broker_key need a broker URL that begins with mqtts://.",
            code="broker_tls_without_mqtts",
        )
