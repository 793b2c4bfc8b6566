"""Flags over environment over file, and what is refused with one sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.app.config import ConfigurationError as ServerConfigurationError
from broker.app.config import load_config as load_server_config
from broker.mqtt.address import parse_url
from consumer.config import Source, merge_sources, origins, read_sources
from consumer.config import load_config as load_agent_config
from consumer.errors import ConfigurationError
from consumer.settings import ServiceConfig

FLAGS = {"agent": "web-01", "broker": "mqtt://127.0.0.1:1883", "state": "/tmp/state"}
WriteFile = Callable[[str], Path]


@pytest.fixture
def write_file(tmp_path: Path) -> WriteFile:
    def write(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_text(text)
        return path

    return write


def test_flags_over_environment_over_file(write_file: WriteFile) -> None:
    path = write_file('agent = "file"\nbroker = "mqtt://file"\nstate = "file"\n')
    config = load_agent_config(path, {"state": "flag", "agent": None}, {"ACM_STATE": "env", "ACM_BROKER": "mqtt://env"})
    assert (config.agent, config.broker, config.state) == ("file", "mqtt://env", "flag")
    server = load_server_config(write_file('ledger = "f"\nclient_id = "f"\n'), {"ledger": "x"}, {"ACM_CLIENT_ID": "e"})
    assert (server.ledger, server.client_id, server.topic_prefix) == ("x", "e", "acm")


def test_each_value_knows_where_it_comes_from(write_file: WriteFile) -> None:
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


def test_the_later_source_wins_value_by_value() -> None:
    below = Source("file", {**FLAGS, "service": {"kind": "child", "argv": ["x"]}})
    above = Source("program", {"service": {"argv": ["y"]}})
    assert merge_sources([below, above]).service == ServiceConfig("child", ("y",))
    assert origins([below, above])["service.argv"] == "program"
    assert origins([below, above])["service.kind"] == "file"


def test_a_secret_is_used_and_not_shown() -> None:
    flags = {name: value for name, value in FLAGS.items() if name != "broker"}
    config = load_agent_config(None, flags, {"ACM_BROKER": "mqtt://me:hush@127.0.0.1:1883"})
    assert parse_url(config.broker).password == "hush"
    for shown in (repr(config), str(config.broker), f"{config.broker}"):
        assert "hush" not in shown
    assert str(config.broker) == "mqtt://me:********@127.0.0.1:1883"
    with pytest.raises(TypeError):
        msgspec.json.encode(config)


def test_the_service_comes_from_the_file(write_file: WriteFile) -> None:
    path = write_file('[service]\nkind = "child"\nargv = ["/bin/sleep", "1"]\n')
    config = load_agent_config(path, FLAGS, {})
    assert config.service == ServiceConfig("child", ("/bin/sleep", "1"))


@pytest.mark.parametrize("word", ["1", "true", "YES"])
def test_the_environment_can_accept_unsigned(word: str) -> None:
    assert load_agent_config(None, FLAGS, {"ACM_ACCEPT_UNSIGNED": word}).accept_unsigned
    assert load_agent_config(None, FLAGS, {"ACM_DEFAULT_TIMEOUT_S": "9"}).default_timeout_s == 9.0


@pytest.mark.parametrize(
    ("file", "flags", "environment", "said"),
    [
        ("agnt = 1", FLAGS, {}, "agnt"),
        ("agent = [", FLAGS, {}, "not valid TOML"),
        ("", {}, {}, "`state` is not configured: say it by --state"),
        ("", {"state": "s"}, {}, "`agent` is not configured, and s holds no enrolment"),
        ("", {"state": "s", "agent": "a"}, {}, "make one by `acm-agent enroll`, or say --broker"),
        ("", FLAGS | {"agent": "Web 01"}, {}, "is not an agent name"),
        ("", FLAGS | {"broker": "http://x"}, {}, "must look like mqtt://HOST:PORT"),
        ("", FLAGS, {"ACM_ACCEPT_UNSIGNED": "perhaps"}, "use true or false"),
        ("", FLAGS, {"ACM_TOPIC_PREFIX": "a b"}, "is not a topic prefix"),
        ("default_timeout_s = 0", FLAGS, {}, "must be greater than 0"),
        ("kill_grace_s = nan", FLAGS, {}, "must be greater than 0"),
        ("[service]\nstop_grace_s = inf", FLAGS, {}, "must be greater than 0"),
        ('[service]\nkind = "child"', FLAGS, {}, "service.argv is empty"),
        ('[service]\nkind = "systemd"', FLAGS, {}, "service.unit is missing"),
        (
            '[service]\nkind = "systemd"\nunit = "sensor@.service"',
            FLAGS,
            {},
            "full name of a service, as in 'sensor.se",
        ),
        ("[service]\nsettle_s = 0", FLAGS, {}, "must be greater than 0"),
        ('[service]\nkind = "pet"', FLAGS, {}, "pet"),
        (
            '[active_response]\ndirectory = "/x"',
            FLAGS,
            {},
            "directory and active_response.allow_list must be set together",
        ),
        ("[active_response]\nrepeated_offenders = [1, 2, 3, 4, 5, 6]", FLAGS, {}, "more than 5 numbers of minutes"),
        ("[active_response]\nrepeated_offenders = [30, 0]", FLAGS, {}, "must be greater than 0"),
        ("[active_response]\nscript_deadline_s = inf", FLAGS, {}, "must be greater than 0"),
        ("broker = 1", {"agent": "a", "state": "s"}, {}, "Expected `str` - at `$.broker`"),
        ('[configuration]\nreload = "signal"', FLAGS, {}, "configuration.reload is 'signal', but the agent manages no"),
        (
            '[configuration]\nreload = "restart"',
            FLAGS,
            {},
            "configuration.reload is 'restart', but the agent manages no",
        ),
        ('[configuration]\nreload = "command"', FLAGS, {}, "configuration.reload_command is empty"),
        ('[configuration]\nreload_signal = "NOSE"', FLAGS, {}, "'NOSE', which is no signal"),
        ("[configuration]\ngrace_s = 0", FLAGS, {}, "configuration.grace_s must be greater than 0"),
        ("[configuration]\nkeep = 0", FLAGS, {}, "configuration.keep at least 1"),
        ('[configuration]\nfile = "../x"', FLAGS, {}, "configuration.file"),
        ('[upgrade]\nroot = "acm"', FLAGS, {}, "upgrade.root is 'acm'; write a path that begins with /."),
        ('[upgrade]\npublic_keys = ["RWX"]', FLAGS, {}, "upgrade.public_keys: 'RWX' is not a public key of minisign"),
        ("[upgrade]\nwatch_s = 0", FLAGS, {}, "must be greater than 0"),
    ],
)
def test_a_bad_agent_configuration_is_one_sentence(
    write_file: WriteFile, file: str, flags: dict[str, Any], environment: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_agent_config(write_file(file), flags, environment)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "environment", "said"),
    [
        ("brokr = 1", {}, "brokr"),
        ("broker = 1", {}, "Expected `str`"),
        ("broker = [", {}, "not valid TOML"),
        ("", {"ACM_LOG_LEVEL": "loud"}, "loud"),
        ("", {"ACM_TOPIC_PREFIX": "a//b"}, "is not a topic prefix"),
    ],
)
def test_a_bad_server_configuration_is_one_sentence(
    write_file: WriteFile, file: str, environment: dict[str, str], said: str
) -> None:
    with pytest.raises(ServerConfigurationError) as caught:
        load_server_config(write_file(file), {}, environment)
    assert said in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere.toml"
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml: cannot be read"):
        load_agent_config(nowhere, FLAGS, {})
    with pytest.raises(ServerConfigurationError, match=r"nowhere\.toml: cannot be read"):
        load_server_config(nowhere, {}, {})
