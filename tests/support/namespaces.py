"""Two network namespaces of a test's own, with a wire between them."""

import os
import shutil
import subprocess
from contextlib import ExitStack

HERE, THERE = {"4": "192.0.2.1", "6": "2001:db8::1"}, {"4": "192.0.2.2", "6": "2001:db8::2"}


class Namespace:
    """A network namespace, kept by a process that sleeps in it; without root, in a user namespace of its own."""

    def __init__(self, stack: ExitStack, outer: "Namespace | None" = None) -> None:
        self._stack = stack
        self._user = outer._user if outer else os.geteuid() != 0
        new = ["--user", "--map-root-user"] if self._user and outer is None else []
        before = outer.enter if outer else []
        self.keeper = subprocess.Popen(
            [*before, "unshare", *new, "--net", "sh", "-c", "echo ready; exec sleep 600"],
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(end, self.keeper)
        assert self.keeper.stdout is not None
        assert self.keeper.stdout.readline() == "ready\n", "no network namespace could be made: run the tests as root"

    @property
    def enter(self) -> list[str]:
        """The words that run a command in it."""
        user = ["--user", "--preserve-credentials"] if self._user else []
        return ["nsenter", f"--target={self.keeper.pid}", *user, "--net"]

    def run(self, *argv: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {**os.environ, **environment}
        return subprocess.run(
            [*self.enter, *argv], input=stdin, capture_output=True, text=True, timeout=90, env=variables
        )

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Start a program that says when it is ready, and wait for that; it is killed at the end of the test."""
        process = subprocess.Popen([*self.enter, *argv], stdout=subprocess.PIPE, text=True)
        self._stack.callback(end, process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def ip(self, *arguments: str) -> None:
        done = self.run("ip", *arguments)
        assert done.returncode == 0, (arguments, done.stderr)


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def wired_namespaces(stack: ExitStack) -> tuple[Namespace, Namespace]:
    """Return two namespaces with the addresses HERE and THERE, of which the first has a loopback interface, too."""
    missing = [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]
    assert not missing, f"scripts/bootstrap.sh installs what is missing: {missing}"
    here = Namespace(stack)
    there = Namespace(stack, here)
    here.ip("link", "set", "lo", "up")
    here.ip("link", "add", "here", "type", "veth", "peer", "name", "there", "netns", str(there.keeper.pid))
    for namespace, name, addresses in ((here, "here", HERE), (there, "there", THERE)):
        namespace.ip("address", "add", f"{addresses['4']}/24", "dev", name)
        namespace.ip("address", "add", f"{addresses['6']}/64", "dev", name, "nodad")
        namespace.ip("link", "set", name, "up")
    return here, there
