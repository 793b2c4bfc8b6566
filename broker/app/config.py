"""The server side's configuration: flags over environment (ACM_*) over a TOML file over the defaults."""

import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec

from broker.access.oidc.settings import OidcSettings
from broker.contract.topics import InvalidName, Topics
from broker.durations import parse_duration
from broker.errors import BrokerError, InvalidArgument
from broker.mqtt.address import MqttError, TlsFiles, host_in_url, parse_url
from broker.system.settings_file import SettingsReader, given_flags
from broker.tracing.port import Traces

__all__ = [
    "DEFAULT_API_LISTEN",
    "DEFAULT_API_PORT",
    "DEFAULT_ENROLL_LISTEN",
    "DEFAULT_ENROLL_PORT",
    "OUTSIDE_OF_SECTIONS",
    "SECRET_VARIABLES",
    "ServerConfig",
    "ServerConfigurationError",
    "api_url",
    "enrolment_url",
    "is_configured",
    "load_config",
]


class ServerConfigurationError(BrokerError):
    """The configuration has a value that cannot be used."""

    code = "configuration_error"


DEFAULT_API_PORT = 8444
DEFAULT_API_LISTEN = f"127.0.0.1:{DEFAULT_API_PORT}"
_OFF = "off"
DEFAULT_ENROLL_PORT = 8443
DEFAULT_ENROLL_LISTEN = f"127.0.0.1:{DEFAULT_ENROLL_PORT}"
_READER = SettingsReader(urls=("broker", "ledger"), error=ServerConfigurationError)
SECRET_VARIABLES = _READER.secret_variables


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The configuration of `acm`. `client_id` is the server's name at the broker; two servers must not share one.

    `broker_ca`, `broker_certificate` and `broker_key` are the files of an mqtts connection: all three, or none to use
    the system's trusted authorities without a client certificate.
    `ca` is the authority's directory, `signing_keys` the directory of the signing keys (default: `signing` in `ca`),
    `crl` the file of the revocation list (default: `crl.pem` in `ca`).
    The API listens on `api_listen`; `off`: `acm server` serves none. With the files `api_certificate` and
    `api_key` it has TLS; without, it listens on a loopback address only. `api_oidc` is the issuer whose
    tokens it takes.
    The server and the enrolment server serve their metrics at `metrics_listen` and `enroll_metrics_listen`, by default
    nowhere.
    The enrolment server listens on `enroll_listen` (default: 127.0.0.1:8443), gives agents `enroll_broker` as the
    broker's URL, and issues certificates with a lifetime of `certificate_lifetime`. An
    expired one can be renewed for `renewal_grace`; `0` is none.
    With `traces` the server and the API export the traces of commands, to where OTEL_* in the environment says.
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
    api_listen: str = DEFAULT_API_LISTEN
    api_certificate: str | None = None
    api_key: str | None = None
    api_oidc: OidcSettings | None = None
    metrics_listen: str | None = None
    enroll_metrics_listen: str | None = None
    enroll_listen: str | None = None
    enroll_broker: str | None = None
    enroll_certificate: str | None = None
    enroll_key: str | None = None
    certificate_lifetime: str = "30d"
    renewal_grace: str = "90d"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    traces: Traces = "off"

    @property
    def broker_tls(self) -> TlsFiles | None:
        """The files of the connection to the broker; None if none are configured."""
        if self.broker_ca is None or self.broker_certificate is None or self.broker_key is None:
            return None
        return TlsFiles(Path(self.broker_ca), Path(self.broker_certificate), Path(self.broker_key))

    @property
    def api_is_off(self) -> bool:
        """Whether `acm server` serves no API."""
        return self.api_listen == _OFF

    @property
    def api_pair(self) -> tuple[Path, Path] | None:
        """The files of the API's certificate and key; None if none are configured."""
        if self.api_certificate is None or self.api_key is None:
            return None
        return Path(self.api_certificate), Path(self.api_key)

    @property
    def grace_after_expiry(self) -> timedelta:
        """How long an expired certificate can be renewed; raises ServerConfigurationError."""
        try:
            return timedelta() if self.renewal_grace == "0" else timedelta(seconds=parse_duration(self.renewal_grace))
        except InvalidArgument as error:
            raise ServerConfigurationError(
                f"renewal_grace: {error} `0` allows no renewal after the expiry.", code="bad_renewal_grace"
            ) from error


OUTSIDE_OF_SECTIONS = tuple(name for name in ServerConfig.__struct_fields__ if name != "api_oidc")
"""The settings that flags and the environment may have, and that are no tables in a file."""


def is_configured(flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a flag or a variable of the environment has any setting."""
    variables = map(_READER.variable, OUTSIDE_OF_SECTIONS)
    return bool(given_flags(flags)) or any(variable in environment for variable in variables)


def load_config(
    path: Path | None, flags: Mapping[str, Any], environment: Mapping[str, str] = os.environ
) -> ServerConfig:
    """Merge the sources and check the result; raises ServerConfigurationError, and ExposedFileError for the file."""
    given = given_flags(flags)
    _READER.refuse_passwords(given)
    from_file = {} if path is None else _READER.read_file(path)
    _READER.refuse_unknown(from_file, ServerConfig, str(path))
    from_environment = _READER.from_environment(OUTSIDE_OF_SECTIONS, environment)
    source = str(path or "environment and flags")
    config = _READER.convert({**from_file, **from_environment, **given}, ServerConfig, source)
    try:
        Topics(config.topic_prefix)
        _check_broker(config)
        _check_api(config)
        if config.enroll_broker is not None:
            parse_url(config.enroll_broker)
    except (InvalidName, MqttError) as error:
        raise ServerConfigurationError(str(error), code=error.code) from error
    return config


def api_url(config: ServerConfig) -> str:
    """Return the URL of the API that `acm server` serves, as this machine reaches it."""
    host, _, port = config.api_listen.rpartition(":")
    return f"https://localhost:{port}" if config.api_pair is not None else f"http://{host}:{port}"


def enrolment_url(config: ServerConfig) -> str:
    """Return the URL of the enrolment server for agents, as far as the configuration has it."""
    host = parse_url(config.enroll_broker).host if config.enroll_broker else "HOST"
    _, _, port = (config.enroll_listen or DEFAULT_ENROLL_LISTEN).rpartition(":")
    return f"https://{host_in_url(host)}:{port}"


def _check_api(config: ServerConfig) -> None:
    if (config.api_certificate is None) is not (config.api_key is None):
        raise ServerConfigurationError(
            "Set both of api_certificate and api_key, or none of them.", code="incomplete_api_tls"
        )
    if config.api_oidc is not None:
        try:
            config.api_oidc.check()
        except InvalidArgument as error:
            raise ServerConfigurationError(f"[api_oidc] {error}", code=error.code) from error


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
