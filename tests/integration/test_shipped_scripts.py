"""The active responses that come with the agent, run by hand as the agent runs them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

import consumer.active_response
from consumer.services import ChildService
from consumer.system.clock import SystemClock
from tests.support.active_response_scripts import install
from tests.support.waiting import wait_for

SCRIPTS = Path(consumer.active_response.__file__).with_name("scripts")


class Script:
    """One shipped script in a home of its own; each call is one run of it, answered with `answer`."""

    def __init__(self, name: str, home: Path, **environment: str) -> None:
        self.name, self.home, self.environment = name, home, environment

    def __call__(
        self, command: str, data: dict[str, Any], answer: str = "continue"
    ) -> subprocess.CompletedProcess[str]:
        lines = [{"version": 1, "command": word, "parameters": {"alert": {"data": data}}} for word in (command, answer)]
        return subprocess.run(
            [SCRIPTS / self.name],
            input="".join(json.dumps(line) + "\n" for line in lines),
            capture_output=True,
            text=True,
            cwd=self.home,
            # A script that has lost its checks must not find the firewall of the machine that runs the tests.
            env={"PATH": str(Path(sys.executable).parent), **self.environment},
            timeout=20,
        )


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., Script]:
    return lambda name, **environment: Script(name, tmp_path, **environment)


def keys(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.returncode == 0, done.stderr
    message = json.loads(done.stdout)
    assert message["command"] == "check_keys"
    return message["parameters"]["keys"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["firewall-drop", "host-deny"])
@pytest.mark.parametrize(
    ("srcip", "said"),
    [
        ("127.0.0.1", "such an address is never d"),
        ("::ffff:127.0.0.1", "such an address is never d"),
        ("::1", "such an address is never d"),
        ("0.0.0.0", "such an address is never d"),
        ("224.0.0.1", "such an address is never d"),
        ("fe80::1%eth0", "such an address is never d"),
        ("10.0.0.0/8", "is not an IP address"),
        ("1.2.3.4; reboot", "is not an IP address"),
        (None, "is not an IP address"),
    ],
)
def test_an_address_that_must_not_be_blocked_is_refused(
    script: Callable[..., Script], tmp_path: Path, name: str, srcip: str | None, said: str
) -> None:
    done = script(name, HOSTS_DENY=str(tmp_path / "hosts.deny"))("add", {"srcip": srcip})
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "hosts.deny").exists()


def test_host_deny_adds_and_removes_only_its_own_lines(script: Callable[..., Script], tmp_path: Path) -> None:
    file = tmp_path / "hosts.deny"
    theirs = "# ours since 1999\nALL: 203.0.113.7\nsshd: .example.org"
    file.write_text(theirs)
    file.chmod(0o640)
    host_deny = script("host-deny", HOSTS_DENY=str(file))
    assert keys(host_deny("add", {"srcip": "203.0.113.7"})) == ["203.0.113.7"]
    assert keys(host_deny("add", {"srcip": "::ffff:198.51.100.1"})) == ["198.51.100.1"]
    assert keys(host_deny("add", {"srcip": "2001:DB8::7"})) == ["2001:db8::7"]
    assert file.read_text().splitlines()[3:] == [
        "# acm host-deny 203.0.113.7",
        "ALL: 203.0.113.7",
        "# acm host-deny 198.51.100.1",
        "ALL: 198.51.100.1",
        "# acm host-deny 2001:db8::7",
        "ALL: [2001:db8::7]",
    ]
    for address in ("203.0.113.7", "198.51.100.1", "2001:db8::7", "203.0.113.9"):
        assert host_deny("delete", {"srcip": address}).returncode == 0
    assert file.read_text() == theirs + "\n"
    assert file.stat().st_mode & 0o777 == 0o640


def test_host_deny_does_nothing_on_abort(script: Callable[..., Script], tmp_path: Path) -> None:
    host_deny = script("host-deny", HOSTS_DENY=str(tmp_path / "hosts.deny"))
    assert keys(host_deny("add", {"srcip": "203.0.113.7"}, answer="abort")) == ["203.0.113.7"]
    assert not (tmp_path / "hosts.deny").exists()


@pytest.fixture
def accounts(script: Callable[..., Script], tmp_path: Path) -> Script:
    """disable-account with a passwd that keeps the state of every account in one file and records its arguments."""
    (tmp_path / "locked").write_text("P")
    install(
        tmp_path / "tools",
        "passwd",
        f"""#!/bin/sh
        [ "$1" = -S ] && echo "$2 $(cat {tmp_path}/locked) 2026-01-01" && exit 0
        echo "$*" >>{tmp_path}/arguments
        [ "$1" = -l ] && echo L >{tmp_path}/locked || echo P >{tmp_path}/locked
        """,
    )
    return script("disable-account", PATH=f"{tmp_path}/tools:{os.environ['PATH']}")


def test_disable_account_locks_and_unlocks(accounts: Script, tmp_path: Path) -> None:
    assert keys(accounts("add", {"dstuser": "nobody"})) == ["nobody"]
    assert keys(accounts("add", {"dstuser": "nobody"})) == ["nobody"]
    assert accounts("delete", {"dstuser": "nobody"}).returncode == 0
    assert accounts("delete", {"dstuser": "nobody"}).returncode == 0
    assert (tmp_path / "arguments").read_text().splitlines() == ["-l nobody", "-l nobody", "-u nobody"]


def test_an_account_that_was_locked_before_stays_locked(accounts: Script, tmp_path: Path) -> None:
    (tmp_path / "locked").write_text("L")
    assert keys(accounts("add", {"dstuser": "nobody"})) == ["nobody"]
    assert accounts("delete", {"dstuser": "nobody"}).returncode == 0
    assert not (tmp_path / "arguments").exists()


@pytest.mark.parametrize(
    ("dstuser", "said"),
    [
        ("root", "is that of root"),
        ("no-such-user", "is not an account here"),
        (7, "is not an account here"),
        (None, "is not an account"),
    ],
)
def test_disable_account_refuses_root_and_unknown_accounts(accounts: Script, dstuser: Any, said: str) -> None:
    done = accounts("add", {"dstuser": dstuser})
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr


def test_restart_ends_the_child_for_the_agent_to_start_it_again(script: Callable[..., Script], tmp_path: Path) -> None:
    service = ChildService(
        ["/bin/sleep", "600"], tmp_path, SystemClock(), lambda: iter([0.0] * 9), grace_s=5.0, settle_s=0.1
    )
    try:
        first = service.start(monotonic() + 10)
        assert first.detail is not None
        told = {"ACM_SERVICE_KIND": "child", "ACM_SERVICE_PID": str(first.detail["pid"])}
        restart = script("restart", PATH=os.environ["PATH"], **told)
        assert restart("add", {}).returncode == 0
        wait_for(lambda: not service.state().running, "the child to end")
        service.step()
        assert service.state().running
        assert service.state().incarnation != first.incarnation
    finally:
        service.shut_down(deadline=0.0)


def test_restart_drives_the_unit_by_systemctl(script: Callable[..., Script], tmp_path: Path) -> None:
    install(tmp_path / "tools", "systemctl", f'#!/bin/sh\necho "$*" >{tmp_path}/arguments\n')
    path = f"{tmp_path}/tools:{os.environ['PATH']}"
    restart = script("restart", PATH=path, ACM_SERVICE_KIND="systemd", ACM_SERVICE_UNIT="sensor.service")
    assert restart("add", {}).returncode == 0
    assert (tmp_path / "arguments").read_text() == "restart sensor.service\n"


def test_restart_without_a_service_says_what_to_send(script: Callable[..., Script]) -> None:
    done = script("restart", ACM_SERVICE_KIND="none")("add", {})
    assert (done.returncode, "send restart-agent" in done.stderr) == (1, True)
