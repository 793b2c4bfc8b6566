"""What no active response may act on, in each form in which an alert can name it."""

import os
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from consumer.active_response.protected_targets import ProtectedTargetError, ProtectedTargets
from consumer.settings import ActiveResponseConfig, AgentConfig, Secret
from consumer.system.network import Address, resolvers
from tests.support.errors import raises_code
from tests.support.strace import Fault, with_fault

ROUTES = """
ip link set lo up
ip link add here type veth peer name there
ip address add 192.0.2.9/24 dev here
ip address add 2001:db8::9/64 dev here nodad
ip link set here up
ip link set there up
ip route add default via 192.0.2.1
ip -6 route add default via 2001:db8::1
"""
SHOW = "from consumer.system.network import *; print(*sorted(map(str, gateways() | own_addresses())))"


def protects(alert: dict[str, Any], executable: str = "any") -> str | None:
    config = AgentConfig(
        agent="web-01",
        broker=Secret("mqtts://user:hush@192.0.2.10:8883"),
        state="state",
        active_response=ActiveResponseConfig(
            protected_addresses=("198.51.100.0/24", "2001:db8:5::/48", "localhost"), protected_accounts=("daemon",)
        ),
    )
    targets = ProtectedTargets.of(config, "https://[2001:db8::20]:8443")
    try:
        targets.check_alert(alert, executable)
    except ProtectedTargetError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("srcip", "what"),
    [
        ("192.0.2.10", "the address of the broker"),
        ("::ffff:192.0.2.10", "the address of the broker"),
        ("::ffff:c000:20a", "the address of the broker"),
        ("192.0.2.0/24", "the address of the broker"),
        ("192.0.2.9/255.255.255.0", "the address of the broker"),
        ("0xc0.0.2.10", "the address of the broker"),
        ("3221225994", "the address of the broker"),
        ("203.0.113.7,192.0.2.10", "the address of the broker"),
        ("2001:db8::20", "the address of the enrolment server"),
        ("2001:DB8:0:0::20%eth0", "the address of the enrolment server"),
        ("127.0.0.53", "an address of this machine"),
        ("127.0.0.2/31", "an address of this machine"),
        ("127.1", "protected by active_response.protected_addresses"),
        ("localhost", "protected by active_response.protected_addresses"),
        ("0.0.0.0/0", "the address of the broker"),
        ("::/0", "the address of the enrolment server"),
        ("198.51.100.255", "protected by active_response.protected_addresses"),
        ("::ffff:198.51.100.0/120", "protected by active_response.protected_addresses"),
        ("2001:db8:5:1::1", "protected by active_response.protected_addresses"),
        ("192.0.2.1-192.0.2.20", "the address of the broker"),
        ("192.0.2.20-192.0.2.1", "the address of the broker"),
        ("192.0.2.1-20", "the address of the broker"),
        ("2001:db8::1-2001:db8::ffff", "the address of the enrolment server"),
        ("192.0.2.", "the address of the broker"),
        ("192.", "the address of the broker"),
        ("192.0.2.*", "the address of the broker"),
        ("192.0.*.*", "the address of the broker"),
        ("192.0.2/24", "the address of the broker"),
        ("192/8", "the address of the broker"),
        ("192.0.2.10.", "the address of the broker"),
        ("192.000.002.010", "the address of the broker"),
        ("192.0.2.10:8883", "the address of the broker"),
        ("192.0.2.10#53211", "the address of the broker"),
        ("[192.0.2.10]:8883", "the address of the broker"),
        ("tcp://192.0.2.10:8883/path", "the address of the broker"),
        ("https://user:hush@192.0.2.10", "the address of the broker"),
        ("root@192.0.2.10", "the address of the broker"),
        ("192.0.2.10/24:8883", "the address of the broker"),
        ("[2001:db8::20]:8443", "the address of the enrolment server"),
        ("[2001:db8::20%eth0]:8443", "the address of the enrolment server"),
        ("[2001:db8::]/32", "the address of the enrolment server"),
        ("[2001:db8::/32]:443", "the address of the enrolment server"),
        ("::ffff:192.0.2.10:8883", "the address of the broker"),
        ("localhost:22", "protected by active_response.protected_addresses"),
        ("LOCALHOST.", "protected by active_response.protected_addresses"),
        ('"192.0.2.10"', "the address of the broker"),
        ("{203.0.113.7,192.0.2.10}", "the address of the broker"),
        ("203.0.113.7|192.0.2.10", "the address of the broker"),
        ("!203.0.113.7", "the address of the broker"),
        ("all", "the address of the broker"),
        ("ANY", "the address of the broker"),
        ("default", "the address of the broker"),
        ("*", "the address of the broker"),
        ("*.*.*.*", "the address of the broker"),
        ("192.0.2.1..192.0.2.20", "the address of the broker"),
        ("192.0.2.1\N{EN DASH}192.0.2.20", "the address of the broker"),
        ("ipv4:192.0.2.10", "the address of the broker"),
        ("192.0.2.10/", "the address of the broker"),
        ("192.0.2.10\\n", "the address of the broker"),
        ("192.0.2.10_443", "the address of the broker"),
        ("x:192.0.2.0/24+", "the address of the broker"),
        ("ip6:2001:db8::20/", "the address of the enrolment server"),
        ("2001:db8::/ffff:ffff::", "the address of the enrolment server"),
        ("::192.0.2.10", "the address of the broker"),
        ("64:ff9b::192.0.2.10", "the address of the broker"),
        ("2002:c000:20a::1", "the address of the broker"),
    ],
)
def test_protected_address_is_refused(srcip: str, what: str) -> None:
    assert what in (protects({"data": {"srcip": srcip}}) or "")


@pytest.mark.parametrize(
    "alert",
    [
        {"srcip": "192.0.2.10"},
        {"data": {"src_ip": "192.0.2.10"}},
        {"data": {"srcip": ["203.0.113.7", "192.0.2.10"]}},
        {"data": {"win": {"eventdata": {"ipAddress": "192.0.2.10"}}}},
    ],
)
def test_source_address_is_found_wherever_the_alert_has_it(alert: dict[str, Any]) -> None:
    assert "the address of the broker" in (protects(alert) or "")


@pytest.mark.parametrize(
    "data",
    [
        {"srcip": "203.0.113.7"},
        {"srcip": "203.0.113.7", "dstip": "192.0.2.10", "dstuser": "root"},
        {"srcip": "::ffff:203.0.113.7"},
        {"srcip": "203.0.113.0/24"},
        {"srcip": "203.0.113.7:8883"},
        {"srcip": "203.0.113."},
        {"srcip": "203.0.113.1-203.0.113.20"},
        {"srcip": "203.0.113.1-2001:db8::ffff"},
        {"srcip": "[2001:db8:9::1]:443"},
        {"srcip": "203.0.113.7", "srcport": "22"},
        {"srcip": "-"},
        {"srcip": ":::"},
        {"srcip": "1-2-3"},
        {"srcip": "["},
        {"srcip": "version-1.192.0.2.10.7"},
        {"srcip": "::ffff"},
        {"srcip": "64:ff9b::203.0.113.7"},
        {"srcip": "2001:db8::/2001:db8::"},
        {"srcip": None},
        {"srcip": {"deep": 1}},
        {"srcip": "no.such.host.invalid"},
        {"dstuser": "no-such-user"},
        {},
    ],
)
def test_other_alerts_are_allowed(data: dict[str, Any]) -> None:
    assert protects({"data": data}) is None


@pytest.mark.parametrize("user", ["root", "daemon", "0", 0])
def test_protected_account_is_refused(user: str | int) -> None:
    said = f"The account '{user}' is protected from active responses"
    assert said in (protects({"data": {"dstuser": user}}) or "")
    assert said in (protects({"data": {"dstuser": user, "srcip": "203.0.113.7"}}, "disable-account") or "")


def test_names_are_resolved_at_each_decision_and_the_last_answer_is_remembered() -> None:
    names: dict[str, set[Address]] = {}
    targets = ProtectedTargets({"the broker": "mqtt.example.org"}, look_up=lambda name: names.get(name, set()))
    targets.check_keys(["203.0.113.9"])
    names["mqtt.example.org"] = {ip_address("203.0.113.9")}
    with raises_code(ProtectedTargetError, "protected_target"):
        targets.check_keys(["203.0.113.9"])
    names.clear()
    with raises_code(ProtectedTargetError, "protected_target"):
        targets.check_keys(["203.0.113.9"])


def test_addresses_and_gateways_of_a_machine_are_found() -> None:
    new = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--net"]
    script = f'set -e\n{ROUTES}\nexec "$0" -c "$1"'
    done = subprocess.run([*new, "sh", "-c", script, sys.executable, SHOW], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [each for each in done.stdout.split() if not each.startswith("fe80:")]
    assert found == sorted(["127.0.0.1", "::1", "192.0.2.1", "192.0.2.9", "2001:db8::1", "2001:db8::9"])


def test_alert_with_more_words_than_a_source_has_is_refused() -> None:
    assert "more than 100 words" in (protects({"srcip": "203.0.113.7 " * 101}) or "")


DECIDE = """
from consumer.active_response.protected_targets import ProtectedTargets
try:
    ProtectedTargets().check_alert({"srcip": "203.0.113.7"}, "any")
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    "file", ["/proc/self/net/fib_trie", "/proc/self/net/if_inet6", "/proc/self/net/route", "/etc/resolv.conf"]
)
def test_nothing_runs_while_the_protected_addresses_cannot_be_read(file: str) -> None:
    argv = with_fault(Fault("openat", "EIO", 1, [Path(file)]), [sys.executable, "-c", DECIDE])
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("ActiveResponseError What no active response may act on is not known"), done.stderr
    assert f"because {file} cannot be read (Input/output error); nothing was done." in done.stdout


def test_nothing_runs_where_proc_is_not_mounted() -> None:
    new = ["unshare", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"]), "--mount"]
    script = 'set -e\nmount -t tmpfs none /proc\nexec "$0" -c "$1"'
    argv = [*new, "sh", "-c", script, sys.executable, DECIDE]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert "fib_trie cannot be read (No such file or directory)" in done.stdout, done.stderr


def test_resolvers_are_those_of_resolv_conf(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text("# nameserver 192.0.2.1\nsearch example.org\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\n")
    assert sorted(map(str, resolvers([path, tmp_path / "missing"]))) == ["192.0.2.53", "fe80::1"]
