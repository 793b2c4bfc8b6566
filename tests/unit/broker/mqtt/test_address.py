"""URLs of brokers: each that RFC 3986 allows is read, or refused with what is wrong, and no password is shown."""

import pytest

from broker.mqtt.address import BrokerAddress, MqttError, parse_url
from tests.support.errors import raises_code


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://h", BrokerAddress("h", 1883)),
        ("MQTTS://Broker.Example.ORG", BrokerAddress("broker.example.org", 8883, tls=True)),
        ("mqtts://h:18883/", BrokerAddress("h", 18883, tls=True)),
        (" mqtt://h:1\r\n", BrokerAddress("h", 1)),
        ("mqtt://my_broker:65535", BrokerAddress("my_broker", 65535)),
        ("mqtt://%6cocalhost", BrokerAddress("localhost", 1883)),
        ("mqtts://localhost.:1", BrokerAddress("localhost", 1, tls=True)),
        ("mqtt://bücher.example", BrokerAddress("bücher.example", 1883)),
        ("mqtt://u@h", BrokerAddress("h", 1883, username="u")),
        ("mqtt://u:@h", BrokerAddress("h", 1883, username="u")),
        ("mqtts://web-01:p%40ss@h:1", BrokerAddress("h", 1, True, "web-01", "p@ss")),
        ("mqtt://u:12%2334%3F%2F%25@h", BrokerAddress("h", 1883, False, "u", "12#34?/%")),
        ("mqtt://u:a@b:c[d]100%@h", BrokerAddress("h", 1883, False, "u", "a@b:c[d]100%")),
        ("mqtt://u%3Av:p@h", BrokerAddress("h", 1883, False, "u:v", "p")),
        ("mqtt://[::1]", BrokerAddress("::1", 1883)),
        ("mqtts://[2001:DB8::1]:1", BrokerAddress("2001:db8::1", 1, tls=True)),
        ("mqtt://[fe80::1%25eth0]:1", BrokerAddress("fe80::1%eth0", 1)),
        ("mqtt://[fe80::1%eth0]", BrokerAddress("fe80::1%eth0", 1883)),
    ],
)
def test_url_is_read(url: str, address: BrokerAddress) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("", "mqtt://HOST:PORT"),
        ("localhost:1883", "mqtt://HOST:PORT"),
        ("web-02:secret@h", "mqtt://HOST:PORT"),
        ("mqtt:h", "mqtt://HOST:PORT"),
        ("gopher://h:1", "mqtt://HOST:PORT"),
        ("tcp://h:1", "write mqtt://"),
        ("ssl://h:1", "write mqtts://"),
        ("ws://h:1", "WebSocket"),
        ("wss://u:secret@h:1", "WebSocket"),
        ("mqtt://", "needs a host"),
        ("mqtt://u:secret@", "needs a host"),
        ("mqtt://a..b", "needs a host"),
        ("mqtt://a..", "needs a host"),
        ("mqtt://.", "needs a host"),
        ("mqtt://.a", "needs a host"),
        ("mqtt://a!b", "needs a host"),
        ("mqtt://" + 64 * "a", "needs a host"),
        ("mqtt://u:secret@a,b", "several hosts"),
        ("mqtt://a:1883,b:1883", "several hosts"),
        ("mqtt://h:0", "a port from 1 to 65535"),
        ("mqtt://h:65536", "a port from 1 to 65535"),
        ("mqtt://h:-1", "a port from 1 to 65535"),
        ("mqtt://h:\u0661", "a port from 1 to 65535"),
        ("mqtt://h:" + 5000 * "9", "a port from 1 to 65535"),
        ("mqtt://u:secret", "a port from 1 to 65535"),
        ("mqtt://::1", "in brackets"),
        ("mqtt://[::1", "in brackets"),
        ("mqtt://[::1]x:1", "in brackets"),
        ("mqtt://[127.0.0.1]", "an IPv6 address"),
        ("mqtt://[fe80::1%]", "an IPv6 address"),
        ("mqtt://web-02:12#secret@h:1", "`#` as %23"),
        ("mqtt://web-02:#secret@h:1", "`#` as %23"),
        ("mqtt://web-02:1?secret@h:1", "`?` as %3F"),
        ("mqtt://web-02:1/secret@h:1", "`/` as %2F"),
        ("mqtt://h:1?x=1", "a query"),
        ("mqtt://:secret@h", "no user name"),
        ("mqtt://@h", "no user name"),
        ("mqtt://u:secret%FF@h", "not UTF-8"),
        ("mqtt://u:secret%00@h", "U+0000"),
        ("mqtt://u:a secret@h", "a blank as %20"),
        ("mqtt://u:a\tsecret@h", "a blank"),
    ],
)
def test_url_is_refused_with_what_is_wrong_and_without_its_parts(url: str, hint: str) -> None:
    with raises_code(MqttError, "invalid_url") as refused:
        parse_url(url)
    assert hint in str(refused.value)
    assert "secret" not in str(refused.value)
    assert "web-02" not in str(refused.value)


def test_address_is_shown_without_user_and_password() -> None:
    assert parse_url("mqtt://u:p@h:1").text == "h:1"
    assert parse_url("mqtt://u:p@[::1]:1").text == "[::1]:1"
