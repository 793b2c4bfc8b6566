"""The files that `acm broker config` writes, and those that it keeps."""

import os
import shutil
import ssl
import stat
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from broker.app.broker_directory import BrokerDirectory, BrokerDirectoryError, refuse_name_of_agent, settings_for
from broker.app.config import ServerConfig, ServerConfigurationError, load_config
from broker.mosquitto.configuration import render_secured_configuration
from broker.mosquitto.process import MosquittoError, SecuredMosquitto
from broker.pki.authority import CertificateAuthority, create_authority
from broker.pki.certificates import CertificateError
from tests.support.enrolling import EnrolmentBackend
from tests.support.errors import raises_code
from tests.support.makers import NOW

KEYS = ("broker.pem", "enroll.key", "server.key")


class DirectorySetup:
    def __init__(self, directory: Path) -> None:
        create_authority(directory / "ca", "test", NOW)
        self.authority = CertificateAuthority(directory / "ca", now=lambda: NOW)
        self.config = ServerConfig(ca=str(directory / "ca"), ledger=f"sqlite:///{directory}/ledger.db")
        self.out = directory / "broker"

    def write(self, *hosts: str, port: int = 8883, **settings: str) -> BrokerDirectory:
        values = {name: getattr(self.config, name) for name in ("ca", "ledger")}
        directory = BrokerDirectory(self.out, ServerConfig(**{**values, **settings}), hosts, port)
        self.written = directory.write(self.authority)
        return directory

    def certificate(self, name: str) -> x509.Certificate:
        file = "broker.pem" if name == "broker" else f"{name}.crt"
        return x509.load_pem_x509_certificate((self.out / file).read_bytes())

    def hosts(self, name: str) -> list[str]:
        names = self.certificate(name).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return [str(host.value) for host in names]


@pytest.fixture
def setup(tmp_path: Path) -> DirectorySetup:
    return DirectorySetup(tmp_path)


def test_settings_are_complete_and_absolute_without_defaults(setup: DirectorySetup) -> None:
    settings = setup.write("mqtt.example.org", "192.0.2.7").settings
    config = load_config(settings, {}, {})
    assert (config.broker, config.enroll_broker) == ("mqtts://mqtt.example.org:8883",) * 2
    assert config.enroll_listen == "0.0.0.0:8443"
    assert config.broker_tls is not None
    files = [config.broker_tls.ca, config.broker_tls.certificate, config.broker_tls.key, config.ca]
    files += [config.enroll_certificate or "", config.enroll_key or ""]
    assert all(Path(file).is_absolute() and Path(file).exists() for file in files)
    assert config.ledger == setup.config.ledger
    assert not tomllib.loads(settings.read_text()).keys() & {"client_id", "topic_prefix", "log_level"}


def test_broker_without_a_host_is_for_this_machine_only(setup: DirectorySetup) -> None:
    config = load_config(setup.write(port=9000).settings, {}, {})
    assert (config.broker, config.enroll_listen) == ("mqtts://localhost:9000", None)
    assert "\nlistener 9000 127.0.0.1\n" in (setup.out / "mosquitto.conf").read_text()
    assert setup.hosts("broker") == ["localhost", "127.0.0.1", "::1"]


def test_relative_ledger_path_is_made_absolute(
    setup: DirectorySetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(setup.write(ledger="sqlite:///x.db").settings, {}, {}).ledger == f"sqlite:///{tmp_path}/x.db"


def test_ledger_url_with_a_password_is_kept(setup: DirectorySetup) -> None:
    url = "postgresql+psycopg://acm:secret@db/acm"
    settings = setup.write(ledger=url).settings
    assert load_config(settings, {}, {}).ledger == url
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600


def test_other_settings_of_the_configuration_are_kept(
    setup: DirectorySetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"certificate_lifetime": "7d", "enroll_listen": "127.0.0.1:9443", "log_level": "debug"}
    config = load_config(setup.write("mqtt.example.org", signing_keys="keys", crl="/x", **given).settings, {}, {})
    assert {name: getattr(config, name) for name in given} == given
    assert (config.signing_keys, config.crl) == (f"{tmp_path}/keys", "/x")


@pytest.mark.parametrize(
    ("hosts", "listens", "mosquitto"),
    [
        (["mqtt.example.org", "2001:db8::1"], "[::]:8443", "8883"),
        (["::1"], "[::1]:8443", "8883 ::1"),
        (["::1", "mqtt.example.org"], "[::]:8443", "8883"),
        (["localhost", "::1"], None, "8883 127.0.0.1"),
    ],
)
def test_broker_listens_on_an_ipv6_host(
    setup: DirectorySetup, hosts: list[str], listens: str | None, mosquitto: str
) -> None:
    config = load_config(setup.write(*hosts).settings, {}, {})
    assert config.enroll_listen == listens
    assert f"\nlistener {mosquitto}\n" in (setup.out / "mosquitto.conf").read_text()


def test_configured_names_are_in_the_acl(setup: DirectorySetup) -> None:
    config = load_config(setup.write(client_id="main", topic_prefix="fleet/one").settings, {}, {})
    rules = (setup.out / "acl").read_text()
    assert "user main\ntopic readwrite fleet/one/#\n" in rules
    assert "pattern read fleet/one/%u/command\n" in rules
    assert (config.client_id, config.topic_prefix) == ("main", "fleet/one")
    assert setup.certificate("server").subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "main"


def test_key_files_are_readable_by_their_owner_only(setup: DirectorySetup) -> None:
    setup.write()
    assert {stat.S_IMODE((setup.out / key).stat().st_mode) for key in KEYS} == {0o600}


def test_broker_key_and_certificate_are_replaced_together(setup: DirectorySetup) -> None:
    setup.write()
    text = (setup.out / "mosquitto.conf").read_text()
    assert f"\ncertfile {setup.out}/broker.pem\nkeyfile {setup.out}/broker.pem\n" in text
    ssl.create_default_context().load_cert_chain(setup.out / "broker.pem")


def test_rewritten_file_keeps_its_owner(setup: DirectorySetup) -> None:
    assert os.geteuid() == 0, "run this test as root: it gives a file away"
    setup.write()
    before = (setup.out / "broker.pem").stat().st_ino
    shutil.chown(setup.out / "broker.pem", 65534, 65533)
    setup.write()
    found = (setup.out / "broker.pem").stat()
    assert found.st_ino != before
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (65534, 65533, 0o600)


def test_rewrite_uses_the_settings_of_the_directory(setup: DirectorySetup, tmp_path: Path) -> None:
    own = setup.write(client_id="main", crl=f"{tmp_path}/crl.pem").settings
    settings = settings_for(setup.out, None, {"ca": None, "ledger": setup.config.ledger})
    assert (settings.ca, settings.ledger, settings.client_id) == (setup.config.ca, setup.config.ledger, "main")
    assert BrokerDirectory(setup.out, settings, [], 8883).revocation_list == tmp_path / "crl.pem"
    assert settings_for(setup.out, own, {}) == settings


@pytest.mark.parametrize("flags", [{"ledger": "sqlite:///other.db"}, {"ca": "other"}, {"client_id": "x"}])
def test_settings_that_contradict_the_directory_are_refused(setup: DirectorySetup, flags: dict[str, str]) -> None:
    setup.write()
    with raises_code(BrokerDirectoryError, "contradicting_settings") as caught:
        settings_for(setup.out, None, flags)
    assert f"`{next(iter(flags))}`" in str(caught.value)


def test_configuration_with_another_ledger_is_refused(setup: DirectorySetup, tmp_path: Path) -> None:
    setup.write()
    (tmp_path / "other.toml").write_text(f'ca = "{setup.config.ca}"\n')
    with raises_code(BrokerDirectoryError, "contradicting_settings") as caught:
        settings_for(setup.out, tmp_path / "other.toml", {})
    assert "`ledger`" in str(caught.value)


def test_new_directory_has_its_own_crl(setup: DirectorySetup, tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('crl = "/x/crl.pem"\nlog_level = "debug"\n')
    settings = settings_for(setup.out, tmp_path / "base.toml", {})
    assert (settings.crl, settings.log_level) == (None, "debug")


def test_name_of_an_agent_is_refused_for_the_server(setup: DirectorySetup) -> None:
    backend = EnrolmentBackend(setup.authority, setup.config.ledger, lambda: NOW)
    with backend.database:
        backend.enroll("web-01")
        refuse_name_of_agent("acm-server", backend.enrolments)
        with raises_code(BrokerDirectoryError, "client_id_of_an_agent"):
            refuse_name_of_agent("web-01", backend.enrolments)


def test_rewrite_makes_new_keys_and_keeps_edited_files(setup: DirectorySetup) -> None:
    setup.write("mqtt.example.org", port=9000)
    keys = [(setup.out / key).read_bytes() for key in KEYS]
    (setup.out / "mosquitto.conf").write_text("# mine\n")
    (setup.out / "acl").unlink()
    setup.write("mqtt.example.org")
    assert all((setup.out / key).read_bytes() != before for key, before in zip(KEYS, keys, strict=True))
    assert (setup.out / "mosquitto.conf").read_text() == "# mine\n"
    assert [path.name for path in setup.written.made] == ["acl"]
    assert [path.name for path in setup.written.kept] == ["mosquitto.conf", "server.toml"]


def test_rewrite_keeps_the_hosts(setup: DirectorySetup) -> None:
    setup.write("127.0.0.1", "mqtt.example.org", "2001:db8::1")
    hosts = setup.hosts("broker")
    setup.write()
    assert setup.hosts("broker") == setup.hosts("enroll") == hosts
    setup.write("other.example.org")
    assert setup.hosts("broker") == ["other.example.org", "localhost", "127.0.0.1", "::1"]


def test_server_account_is_valid_for_a_year_and_not_an_agent(setup: DirectorySetup) -> None:
    setup.write()
    account = setup.certificate("server")
    assert account.not_valid_after_utc == NOW + timedelta(days=365)
    assert setup.hosts("server") == ["urn:acm:server:acm-server"]


def test_unusable_host_or_directory_is_refused(setup: DirectorySetup, tmp_path: Path) -> None:
    with raises_code(CertificateError, "not_a_host"):
        setup.write("not a host")
    (tmp_path / "file").write_text("")
    setup.out = tmp_path / "file"
    with raises_code(BrokerDirectoryError, "unreadable_certificate") as caught:
        setup.write()
    assert str(setup.out) in str(caught.value)
    setup.out = tmp_path / "new\nline"
    with raises_code(BrokerDirectoryError, "unprintable_path"):
        setup.write()


def test_broker_requires_certificates_and_limits_its_queues() -> None:
    text = render_secured_configuration(Path("/x"), "8883")
    for line in (
        "tls_version tlsv1.2",
        "crlfile /x/crl.pem",
        "require_certificate true",
        "use_identity_as_username true",
        "use_username_as_clientid true",
        "allow_anonymous false",
        "acl_file /x/acl",
        "max_queued_messages 100000",
        "max_queued_bytes 67108864",
        "max_inflight_bytes 16777216",
    ):
        assert f"\n{line}\n" in text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (None, "unreadable_mosquitto_configuration"),
        ("# listener 1883\n", "no_listener"),
        ("port 1883\n", "no_listener"),
    ],
)
def test_directory_without_a_usable_configuration_is_not_run(tmp_path: Path, text: str | None, code: str) -> None:
    if text is not None:
        (tmp_path / "mosquitto.conf").write_text(text)
    with raises_code(MosquittoError, code) as caught:
        SecuredMosquitto(tmp_path)
    assert "mosquitto.conf" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"broker_ca": "ca", "broker_key": "key"}, "incomplete_broker_tls"),
        ({"broker_ca": "a", "broker_certificate": "b", "broker_key": "c"}, "broker_tls_without_mqtts"),
    ],
)
def test_incomplete_or_unused_tls_files_are_refused(settings: dict[str, str], code: str) -> None:
    with raises_code(ServerConfigurationError, code):
        load_config(None, settings, {})


def test_directory_below_a_file_cannot_be_written(setup: DirectorySetup, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    setup.out = tmp_path / "file" / "broker"
    with raises_code(BrokerDirectoryError, "unwritable_directory"):
        setup.write("mqtt.example.org")
