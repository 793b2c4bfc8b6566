"""firewall-drop for real: two network namespaces, a wire between them, and TCP connections over IPv4 and IPv6."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import consumer.active_response
from tests.support.waiting import wait_for

SCRIPT = Path(consumer.active_response.__file__).with_name("scripts") / "firewall-drop"
HERE, THERE = {"4": "192.0.2.1", "6": "2001:db8::1"}, {"4": "192.0.2.2", "6": "2001:db8::2"}
PORT = 8080
LISTEN = f"""
import socket
with socket.create_server(("::", {PORT}), family=socket.AF_INET6, dualstack_ipv6=True) as server:
    print("ready", flush=True)
    while True:
        server.accept()[0].close()
"""
CONNECT = f"import socket, sys; socket.create_connection((sys.argv[1], {PORT}), timeout=1.0).close()"


class Namespace:
    """A network namespace, kept by a process that sleeps in it; without root, in a user namespace of its own."""

    def __init__(self, stack: ExitStack, outer: "Namespace | None" = None) -> None:
        self._user = outer._user if outer else os.geteuid() != 0
        new = ["--user", "--map-root-user"] if self._user and outer is None else []
        before = outer._enter if outer else []
        self.keeper = subprocess.Popen(
            [*before, "unshare", *new, "--net", "sh", "-c", "echo ready; exec sleep 600"],
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(end, self.keeper)
        assert self.keeper.stdout is not None
        assert self.keeper.stdout.readline() == "ready\n", "no network namespace could be made: run the tests as root"

    @property
    def _enter(self) -> list[str]:
        user = ["--user", "--preserve-credentials"] if self._user else []
        return ["nsenter", f"--target={self.keeper.pid}", *user, "--net"]

    def run(self, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self._enter, *argv], input=stdin, capture_output=True, text=True, timeout=30)

    def start(self, *argv: str) -> subprocess.Popen[str]:
        return subprocess.Popen([*self._enter, *argv], stdout=subprocess.PIPE, text=True)

    def ip(self, *arguments: str) -> None:
        done = self.run("ip", *arguments)
        assert done.returncode == 0, (arguments, done.stderr)


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


class Wire:
    """`here` runs a server and the firewall, `there` connects."""

    def __init__(self, stack: ExitStack) -> None:
        missing = [tool for tool in ("ip", "nft", "unshare", "nsenter") if shutil.which(tool) is None]
        assert not missing, f"scripts/bootstrap.sh installs what is missing: {missing}"
        self.here = Namespace(stack)
        self.there = Namespace(stack, self.here)
        self.here.ip(
            "link", "add", "here", "type", "veth", "peer", "name", "there", "netns", str(self.there.keeper.pid)
        )
        for namespace, name, addresses in ((self.here, "here", HERE), (self.there, "there", THERE)):
            namespace.ip("address", "add", f"{addresses['4']}/24", "dev", name)
            namespace.ip("address", "add", f"{addresses['6']}/64", "dev", name, "nodad")
            namespace.ip("link", "set", name, "up")
        server = self.here.start(sys.executable, "-c", LISTEN)
        stack.callback(end, server)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"

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
