"""Flags over environment over file, and what is refused with one sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.config import ConfigurationError as ServerConfigurationError
from broker.config import load_config as load_server_config
from consumer.config import ServiceConfig
from consumer.config import load_config as load_agent_config
from consumer.errors import ConfigurationError

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
        ("", {}, {}, "missing required field `agent`"),
        ("", FLAGS | {"agent": "Web 01"}, {}, "is not an agent name"),
        ("", FLAGS | {"broker": "http://x"}, {}, "must look like mqtt://HOST:PORT"),
        ("", FLAGS, {"ACM_ACCEPT_UNSIGNED": "perhaps"}, "use true or false"),
        ("", FLAGS, {"ACM_TOPIC_PREFIX": "a b"}, "is not a topic prefix"),
        ("default_timeout_s = 0", FLAGS, {}, "must be greater than 0"),
        ("kill_grace_s = nan", FLAGS, {}, "must be greater than 0"),
        ("[service]\nstop_grace_s = inf", FLAGS, {}, "must be greater than 0"),
        ('[service]\nkind = "child"', FLAGS, {}, "service.argv is empty"),
        ('[service]\nkind = "systemd"', FLAGS, {}, "service.unit is missing"),
        ('[service]\nkind = "pet"', FLAGS, {}, "pet"),
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
