"""firewall-drop for real: two network namespaces, a wire between them, and TCP connections over IPv4 and IPv6."""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import consumer.active_response
from tests.support.namespaces import HERE, THERE, wired_namespaces
from tests.support.waiting import wait_for

pytestmark = pytest.mark.own_ledger

SCRIPT = Path(consumer.active_response.__file__).with_name("scripts") / "firewall-drop"
PORT = 8080
LISTEN = f"""
import socket
with socket.create_server(("::", {PORT}), family=socket.AF_INET6, dualstack_ipv6=True) as server:
    print("ready", flush=True)
    while True:
        server.accept()[0].close()
"""
CONNECT = f"import socket, sys; socket.create_connection((sys.argv[1], {PORT}), timeout=1.0).close()"


class Wire:
    """`here` runs a server and the firewall, `there` connects."""

    def __init__(self, stack: ExitStack) -> None:
        assert shutil.which("nft") is not None, "scripts/bootstrap.sh installs nft"
        self.here, self.there = wired_namespaces(stack)
        self.here.start(sys.executable, "-c", LISTEN)

    def passes(self, family: str) -> bool:
        return self.there.run(sys.executable, "-c", CONNECT, HERE[family]).returncode == 0

    def firewall_drop(self, command: str, srcip: str) -> None:
        request = {"command": command, "parameters": {"alert": {"data": {"srcip": srcip}}}}
        lines = json.dumps(request) + "\n" + json.dumps({"command": "continue"}) + "\n"
        done = self.here.run(str(SCRIPT), stdin=lines)
        assert (done.returncode, done.stderr) == (0, "")

    def rules(self) -> str:
        return self.here.run("nft", "list", "table", "inet", "acm_firewall_drop").stdout


@pytest.fixture
def wire() -> Iterator[Wire]:
    with ExitStack() as stack:
        yield Wire(stack)


def test_an_address_is_dropped_and_let_in_again(wire: Wire) -> None:
    wait_for(lambda: wire.passes("4") and wire.passes("6"), "the wire to carry both families")
    wire.firewall_drop("add", THERE["4"])
    assert (wire.passes("4"), wire.passes("6")) == (False, True)
    wire.firewall_drop("add", THERE["6"])
    wire.firewall_drop("add", THERE["6"])
    assert (wire.passes("4"), wire.passes("6")) == (False, False)
    assert wire.rules().count("saddr @") == 4
    wire.firewall_drop("delete", THERE["4"])
    assert (wire.passes("4"), wire.passes("6")) == (True, False)
    wire.firewall_drop("delete", THERE["6"])
    assert (wire.passes("4"), wire.passes("6")) == (True, True)


def test_what_is_not_there_is_taken_back_without_an_error(wire: Wire) -> None:
    wire.firewall_drop("delete", THERE["6"])
    assert "elements" not in wire.rules()
