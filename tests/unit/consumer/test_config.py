"""The configuration of agent and server: precedence of the sources, and which values are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.app.config import ServerConfigurationError
from broker.app.config import load_config as load_server_config
from broker.mqtt.address import parse_url
from consumer.config import Source, load_config, merge_sources, origins, read_sources
from consumer.config import load_config as load_agent_config
from consumer.errors import ConfigurationError
from consumer.settings import ActiveResponseConfig, ServiceConfig
from tests.support.errors import raises_code

FLAGS = {"agent": "web-01", "broker": "mqtt://127.0.0.1:1883", "state": "/tmp/state"}
WriteFile = Callable[[str], Path]


@pytest.fixture
def write_file(tmp_path: Path) -> WriteFile:
    def write(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text)
        return path

    return write


def test_flags_override_environment_overrides_file(write_file: WriteFile) -> None:
    path = write_file('agent = "file"\nbroker = "mqtt://file"\nstate = "file"\n')
    config = load_agent_config(path, {"state": "flag", "agent": None}, {"ACM_STATE": "env", "ACM_BROKER": "mqtt://env"})
    assert (config.agent, config.broker, config.state) == ("file", "mqtt://env", "flag")
    server = load_server_config(write_file('ledger = "f"\nclient_id = "f"\n'), {"ledger": "x"}, {"ACM_CLIENT_ID": "e"})
    assert (server.ledger, server.client_id, server.topic_prefix) == ("x", "e", "acm")


def test_each_value_has_its_source(write_file: WriteFile) -> None:
    path = write_file('agent = "file"\nstate = "file"\n[service]\nkind = "child"\nargv = ["x"]\n')
    sources = read_sources(path, {"state": "flag", "agent": None}, {"ACM_BROKER": "mqtt://env"})
    assert merge_sources(sources).state == "flag"
    assert origins(sources) == {
        "agent": f"file {path}",
        "broker": "environment ACM_BROKER",
        "state": "flag",
        "service.kind": f"file {path}",
        "service.argv": f"file {path}",
    }


def test_later_source_overrides_value_by_value() -> None:
    below = Source("file", {**FLAGS, "service": {"kind": "child", "argv": ["x"]}})
    above = Source("program", {"service": {"argv": ["y"]}})
    assert merge_sources([below, above]).service == ServiceConfig("child", ("y",))
    assert origins([below, above])["service.argv"] == "program"
    assert origins([below, above])["service.kind"] == "file"


def test_secret_is_used_and_shown_masked() -> None:
    flags = {name: value for name, value in FLAGS.items() if name != "broker"}
    config = load_agent_config(None, flags, {"ACM_BROKER": "mqtt://me:hush@127.0.0.1:1883"})
    assert parse_url(config.broker).password == "hush"
    for shown in (repr(config), str(config.broker), f"{config.broker}"):
        assert "hush" not in shown
    assert str(config.broker) == "mqtt://me:********@127.0.0.1:1883"
    with pytest.raises(TypeError):
        msgspec.json.encode(config)


def test_service_is_read_from_the_file(write_file: WriteFile) -> None:
    path = write_file('[service]\nkind = "child"\nargv = ["/bin/sleep", "1"]\n')
    config = load_agent_config(path, FLAGS, {})
    assert config.service == ServiceConfig("child", ("/bin/sleep", "1"))


@pytest.mark.parametrize("word", ["1", "true", "YES"])
def test_environment_can_set_accept_unsigned(word: str) -> None:
    assert load_agent_config(None, FLAGS, {"ACM_ACCEPT_UNSIGNED": word}).accept_unsigned
    assert load_agent_config(None, FLAGS, {"ACM_DEFAULT_TIMEOUT_S": "9"}).default_timeout_s == 9.0


@pytest.mark.parametrize(
    ("file", "flags", "environment", "code", "named"),
    [
        ("agnt = 1", {}, {}, "unknown_setting", "config.toml: unknown key 'agnt'; did you mean 'agent'?"),
        ('[service]\nknd = "child"', FLAGS, {}, "unknown_setting", "config.toml, [service]: unknown key 'knd'"),
        ("", FLAGS, {"ACM_STATE": ""}, "empty_setting", "ACM_STATE"),
        ("agent = [", FLAGS, {}, "settings_not_toml", "config.toml"),
        ("", {}, {}, "state_missing", "`state`"),
        ("", {"state": "s"}, {}, "agent_missing", "`agent`"),
        ("", {"state": "s", "agent": "a"}, {}, "broker_missing", "acm-agent enroll"),
        ("", FLAGS | {"agent": "Web 01"}, {}, "invalid_name", "Web 01"),
        ("", FLAGS | {"broker": "http://x"}, {}, "invalid_broker", "mqtt://HOST:PORT"),
        ("", FLAGS, {"ACM_ACCEPT_UNSIGNED": "perhaps"}, "invalid_boolean", "ACM_ACCEPT_UNSIGNED"),
        ("", FLAGS, {"ACM_TOPIC_PREFIX": "a b"}, "invalid_name", "a b"),
        ("default_timeout_s = 0", FLAGS, {}, "invalid_duration", "default_timeout_s"),
        ("kill_grace_s = nan", FLAGS, {}, "invalid_duration", "kill_grace_s"),
        ("[service]\nstop_grace_s = inf", FLAGS, {}, "invalid_duration", "stop_grace_s"),
        ("[service]\nsettle_s = 0", FLAGS, {}, "invalid_duration", "settle_s"),
        ('metrics_listen = "9445"', FLAGS, {}, "invalid_metrics_listen", "9445"),
        ('metrics_listen = "192.0.2.1:9445"', FLAGS, {}, "invalid_metrics_listen", "192.0.2.1:9445"),
        ('[service]\nkind = "child"', FLAGS, {}, "invalid_service", "service.argv"),
        ('[service]\nkind = "systemd"', FLAGS, {}, "invalid_service", "service.unit"),
        ('[service]\nkind = "systemd"\nunit = "sensor@.service"', FLAGS, {}, "invalid_service", "sensor@.service"),
        ('[service]\nkind = "pet"', FLAGS, {}, "settings_invalid", "pet"),
        ('[active_response]\ndirectory = "/x"', FLAGS, {}, "invalid_active_response", "active_response.allow_list"),
        (
            "[active_response]\nrepeated_offenders = [1, 2, 3, 4, 5, 6]",
            FLAGS,
            {},
            "invalid_active_response",
            "active_response.repeated_offenders",
        ),
        (
            "[active_response]\nrepeated_offenders = [30, 0]",
            FLAGS,
            {},
            "invalid_active_response",
            "active_response.repeated_offenders",
        ),
        ("[active_response]\nscript_deadline_s = inf", FLAGS, {}, "invalid_active_response", "script_deadline_s"),
        ("broker = 1", {"agent": "a", "state": "s"}, {}, "settings_invalid", "Expected `str` - at `$.broker`"),
        ('[configuration]\nreload = "signal"', FLAGS, {}, "invalid_centralized_configuration", "'signal'"),
        ('[configuration]\nreload = "restart"', FLAGS, {}, "invalid_centralized_configuration", "'restart'"),
        ('[configuration]\nreload = "command"', FLAGS, {}, "invalid_centralized_configuration", "reload_command"),
        ('[configuration]\nreload_signal = "NOSE"', FLAGS, {}, "invalid_centralized_configuration", "'NOSE'"),
        ("[configuration]\ngrace_s = 0", FLAGS, {}, "invalid_centralized_configuration", "configuration.grace_s"),
        ("[configuration]\nkeep = 0", FLAGS, {}, "invalid_centralized_configuration", "configuration.keep"),
        ('[configuration]\nfile = "../x"', FLAGS, {}, "settings_invalid", "configuration.file"),
        ('[configuration.syntax]\n".json" = "json5"', FLAGS, {}, "settings_invalid", "configuration.syntax"),
        ('[configuration.syntax]\n"" = "none"', FLAGS, {}, "invalid_centralized_configuration", "configuration.syntax"),
        ('[configuration]\nsyntax = "none"', FLAGS, {}, "settings_invalid", "configuration.syntax"),
        ('[upgrade]\nroot = "acm"', FLAGS, {}, "invalid_upgrade", "upgrade.root is 'acm'"),
        ('[upgrade]\npublic_keys = ["RWX"]', FLAGS, {}, "invalid_upgrade", "'RWX'"),
        ("[upgrade]\nwatch_s = 0", FLAGS, {}, "invalid_upgrade", "upgrade.watch_s"),
    ],
)
def test_invalid_agent_configuration_is_refused_in_one_sentence(
    write_file: WriteFile, file: str, flags: dict[str, Any], environment: dict[str, str], code: str, named: str
) -> None:
    with raises_code(ConfigurationError, code) as caught:
        load_agent_config(write_file(file), flags, environment)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "environment", "said"),
    [
        ("brokr = 1", {}, "unknown key 'brokr'; did you mean 'broker'?"),
        ("", {"ACM_LEDGER": ""}, "ACM_LEDGER is empty"),
        ("broker = 1", {}, "Expected `str`"),
        ("broker = [", {}, "not valid TOML"),
        ("", {"ACM_LOG_LEVEL": "loud"}, "loud"),
        ("", {"ACM_TOPIC_PREFIX": "a//b"}, "is not a topic prefix"),
    ],
)
def test_invalid_server_configuration_is_refused_in_one_sentence(
    write_file: WriteFile, file: str, environment: dict[str, str], said: str
) -> None:
    with pytest.raises(ServerConfigurationError) as caught:
        load_server_config(write_file(file), {}, environment)
    assert said in str(caught.value)


def test_missing_configuration_file_is_named(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere.toml"
    with raises_code(ConfigurationError, "settings_unreadable") as caught:
        load_agent_config(nowhere, FLAGS, {})
    assert str(nowhere) in str(caught.value)
    with raises_code(ServerConfigurationError, "settings_unreadable"):
        load_server_config(nowhere, {}, {})


def test_file_with_a_byte_order_mark_and_carriage_returns_is_read(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes(b'\xef\xbb\xbfagent = "web-01"\r\nbroker = "mqtt://broker"\r\nstate = "state"\r\n')
    assert load_config(path, {}, {}).agent == "web-01"


def test_file_in_utf_16_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    path.write_bytes('agent = "web-01"'.encode("utf-16"))
    with raises_code(ConfigurationError, "settings_not_toml") as caught:
        load_config(path, {}, {})
    assert "it is UTF-16 text; save it as UTF-8" in str(caught.value)


@pytest.mark.parametrize("entry", ["192.0.2.1/33", "192.0.2.256", "a.example, b.example", "192.0.2.1:22", "", "!a"])
def test_protected_address_that_protects_nothing_is_refused(entry: str) -> None:
    with raises_code(ConfigurationError, "invalid_active_response"):
        ActiveResponseConfig(protected_addresses=(entry,)).check()


@pytest.mark.parametrize(
    "entry", ["192.0.2.1", "192.0.2.0/24", "2001:db8::/32", "[2001:db8::1]", "fe80::1%eth0", "127.1", "vpn.example.org"]
)
def test_protected_address_network_or_name_is_taken(entry: str) -> None:
    ActiveResponseConfig(protected_addresses=(entry,)).check()
