"""upgrade-agent with real processes: an installation, packages signed by minisign, and all that may go wrong."""

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.release.builder import make_manifest, sign_manifest, write_package
from broker.release.manifest import Manifest, PackagedFile, render_manifest
from scripts.release import make_release, write_program
from tests.acceptance.conftest import ROOT, Program, Site
from tests.support.waiting import wait_for

AGENT = "web-01"
NAME = "agent-command-manager"


class Machine:
    """A machine with an installation of version 1.0.0, and someone who makes packages for it."""

    def __init__(self, site: Site, module: str = "consumer.cli.main") -> None:
        self.site = site
        self.root = site.directory / "root"
        self.config = site.directory / "agent.toml"
        self._module = module
        self.make_key("good")
        argv = [sys.executable, "-m", "consumer", "install", str(self.package("1.0.0")), "--root", str(self.root)]
        subprocess.run([*argv, "--public-key", self.public_key], cwd=ROOT, check=True, capture_output=True)
        self.configure()

    def configure(self, watch_s: float = 30.0) -> None:
        self.config.write_text(
            f'agent = "{AGENT}"\nbroker = "{self.site.broker_url}"\nstate = "{self.site.state(AGENT)}"\n'
            f'[upgrade]\nroot = "{self.root}"\npublic_keys = ["{self.public_key}"]\nwatch_s = {watch_s}\n'
        )

    def make_key(self, name: str) -> None:
        path = self.site.directory / name
        argv = ["minisign", "-G", "-W", "-p", f"{path}.pub", "-s", f"{path}.key"]
        subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL)

    @property
    def public_key(self) -> str:
        return (self.site.directory / "good.pub").read_text().splitlines()[-1]

    def release(self, version: str) -> Path:
        directory = make_release(self.site.directory / f"release-{version}", version, self._module)
        for module in ("crashing_release.py", "holding_release.py"):
            shutil.copy(ROOT / "tests" / "acceptance" / module, directory / "lib")
        return directory

    def pack(self, release: Path, version: str, key: str = "good", **members: Any) -> Path:
        manifest = replace(make_manifest(release, NAME, version, "any"), **members)
        package = self.site.directory / f"agent-{version}.tar.gz"
        write_package(
            release, manifest, sign_manifest(render_manifest(manifest), self.site.directory / f"{key}.key"), package
        )
        return package

    def package(self, version: str) -> Path:
        return self.pack(self.release(version), version)

    def start(self, **environment: str) -> Program:
        launcher = [str(self.root / "acm-agent"), "run", "--config", str(self.config)]
        return self.site._start(AGENT, launcher, **environment)

    def send(self, package: Path, *, sha256: str | None = None, **parameters: Any) -> str:
        named = self.artifact(package, sha256)
        return self.site.enqueue(AGENT, "upgrade-agent", {"package": named, **parameters})

    def artifact(self, package: Path, sha256: str | None = None) -> dict[str, Any]:
        content = package.read_bytes()
        sha256 = sha256 or hashlib.sha256(content).hexdigest()
        return {"url": f"file://{package}", "sha256": sha256, "size": len(content)}

    def result(self, command_id: str) -> Any:
        return self.site.result(command_id, 60)

    def status(self, version: str) -> Any:
        def shown() -> Any:
            with self.site.opened_ledger() as ledger:
                statuses = [row.status for row in ledger.agents() if row.status]
            return next((status for status in statuses if status.online and status.version == version), None)

        return wait_for(shown, f"version {version} to be online")

    @property
    def current(self) -> str:
        return (self.root / "current").readlink().name

    def releases(self) -> set[str]:
        return {path.name for path in (self.root / "releases").iterdir()}


@pytest.fixture
def machine(site: Site) -> Machine:
    return Machine(site)


def test_a_new_version_takes_the_place_of_the_old_one_in_the_same_process(site: Site, machine: Machine) -> None:
    agent = machine.start()
    machine.status("1.0.0")
    result = machine.result(machine.send(machine.package("1.1.0")))
    assert result["message"] == "The agent was upgraded from 1.0.0 to 1.1.0, which has proved itself."
    assert result["data"] == {"action": "upgraded", "running": "1.1.0", "package": "1.1.0", "previous": "1.0.0"}
    assert (machine.status("1.1.0").incarnation, machine.current) == (result["incarnation"], "1.1.0")
    assert (machine.root / "watcher").readlink().name == "1.0.0"  # for the first minutes
    assert (agent.process.poll(), (site.state(AGENT) / "lock").read_text()) == (None, str(agent.process.pid))

    again = machine.result(machine.send(site.directory / "agent-1.1.0.tar.gz"))
    assert (again["outcome"], again["data"]["action"]) == ("success", "unchanged")

    back = site.directory / "agent-1.0.0.tar.gz"
    older = machine.result(machine.send(back))
    assert older["message"] == "Version 1.0.0 is older than 1.1.0, which runs; allow_downgrade=true allows it."
    allowed = machine.result(machine.send(back, allow_downgrade=True))
    assert (allowed["outcome"], machine.current) == ("success", "1.0.0")
    machine.status("1.0.0")
    assert agent.process.poll() is None


def test_each_phase_of_an_upgrade_is_shown_while_it_is_waited_for(site: Site) -> None:
    """Each phase is held at its last step, until it has been seen."""
    machine, gates = Machine(site, module="holding_release"), site.directory / "gates"
    gates.mkdir()
    phases = {"downloaded": "download", "unpacked": "unpack", "tested": "self-test", "proved": "trial"}
    for step in phases:
        os.mkfifo(gates / step)
    machine.start(ACM_TEST_GATES=str(gates))
    machine.status("1.0.0")
    parameters = json.dumps({"package": machine.artifact(machine.package("1.1.0"))})
    words = ["upgrade-agent", "--parameters", parameters, "--timeout", "5m", "--wait", "5m"]
    argv = [sys.executable, "-m", "broker", "send", AGENT, *words]
    environment = {**os.environ, "ACM_LEDGER": site.ledger}
    with subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as waits:
        assert waits.stderr is not None
        shown = iter(waits.stderr.readline, b"")
        for step, phase in phases.items():
            line = next(it for it in shown if b"running (" in it).decode()
            progress = "download 100 %" if phase == "download" else phase
            assert line == f"acm: running ({progress}): upgrade-agent on web-01\n"
            if phase == "self-test":
                (running,) = site.acm("commands", "--state", "running")
                assert site.acm("show", running["id"])["running_progress"] == {"phase": phase, "percent": None}
                assert " · self-test" in site.acm_text("show", running["id"]).splitlines()[1]
                assert site.acm("explain", running["id"])["progress"] == {"phase": phase, "percent": None}
                assert " UTC: self-test." in site.acm_text("explain", running["id"])
            (gates / step).open("w").close()
        output, _ = waits.communicate(timeout=90)
    assert (waits.returncode, b"has proved itself" in output) == (0, True)


def test_a_new_version_that_does_not_prove_itself_is_rolled_back(site: Site, machine: Machine) -> None:
    machine.configure(watch_s=2.0)
    agent = machine.start()
    machine.status("1.0.0")

    lonely = machine.release("1.1.0")
    program = (lonely / "bin" / "acm-agent").read_text()
    elsewhere = 'if "ACM_WATCHED" in __import__("os").environ: sys.argv += ["--broker", "mqtt://127.0.0.1:1"]'
    write_program(lonely, program.replace("\nmain()", f"\n{elsewhere}\nmain()"))
    result = machine.result(machine.send(machine.pack(lonely, "1.1.0")))
    assert result["message"] == (
        "Version 1.1.0 was tried and rolled back: it did not prove itself in time: there is no connection to the "
        "broker (No connection to 127.0.0.1:1: connection refused: no broker listens there, or a firewall refuses it); "
        "version 1.0.0 runs again."
    )
    assert (result["code"], result["data"]["running"]) == ("failed", "1.0.0")

    crashing = machine.release("1.2.0")
    write_program(crashing, program.replace("\nmain()", '\nif sys.argv[1] == "run": sys.exit(3)\nmain()'))
    result = machine.result(machine.send(machine.pack(crashing, "1.2.0")))
    assert result["data"]["reason"] == (
        "it was started 3 times and did not prove itself; the last time it ended with exit status 3"
    )
    assert (result["data"]["action"], machine.current) == ("rolled_back", "1.0.0")

    broken = machine.release("1.3.0")
    write_program(broken, "#!/bin/sh\necho no such library >&2\nexit 1\n")
    result = machine.result(machine.send(machine.pack(broken, "1.3.0")))
    assert result["message"] == "The self-test of version 1.3.0 ended with exit status 1; version 1.0.0 stays."
    assert (result["output"]["stderr"], "1.3.0" in machine.releases()) == ("no such library\n", False)
    assert (agent.process.poll(), machine.status("1.0.0").incarnation) == (None, result["incarnation"])


def spoil(package: Path) -> None:
    """Change one byte of a file in the package, as on a bad disk or by an enemy."""
    content = bytearray(gzip.decompress(package.read_bytes()))
    with tarfile.open(fileobj=io.BytesIO(bytes(content))) as archive:
        member = archive.getmember("files/lib/consumer/agent.py")
    content[member.offset_data] ^= 1
    package.write_bytes(gzip.compress(bytes(content)))


def test_what_does_not_fit_is_refused_with_its_own_sentence(site: Site, machine: Machine) -> None:
    machine.start()
    incarnation = machine.status("1.0.0").incarnation
    machine.make_key("stranger")
    release = machine.release("2.0.0")
    platform = machine.pack(release, "2.0.0", platform="linux-vax")
    says = {machine.send(platform.rename(site.directory / "p")): "The package is for linux-vax; this machine is "}
    product = machine.pack(release, "2.0.0", name="other")
    says[machine.send(product.rename(site.directory / "o"))] = (
        "The package is for the product other; this agent accepts only "
    )
    stranger = machine.pack(release, "2.0.0", key="stranger")
    says[machine.send(stranger.rename(site.directory / "s"))] = "The package is refused: The signature is by the key "
    spoiled = machine.pack(release, "2.0.0")
    spoil(spoiled)
    says[machine.send(spoiled.rename(site.directory / "h"))] = (
        "The package is refused: The file lib/consumer/agent.py of the package differs from its manifest; "
    )
    right = machine.pack(release, "2.0.0").rename(site.directory / "r")
    says[machine.send(right, sha256="0" * 64)] = f"The file at file://{right} differs from the one in the command: "
    files = make_manifest(release, NAME, "2.0.0", "any").files
    huge = Manifest(1, NAME, "2.0.0", "any", {**files, "lib/huge": PackagedFile("0" * 64, 1 << 60, False)})
    (site.directory / "m").write_bytes(render_manifest(huge))
    signature = sign_manifest(render_manifest(huge), site.directory / "good.key")
    vast = site.directory / "v"
    write_head(vast, render_manifest(huge), signature.encode())
    says[machine.send(vast)] = f"There is too little space in {machine.root}: the release needs 11529215046"
    for command_id, sentence in says.items():
        result = machine.result(command_id)
        assert (result["code"], result["message"][: len(sentence)]) == ("failed", sentence)
    assert (machine.current, machine.releases()) == ("1.0.0", {"1.0.0"})
    assert machine.status("1.0.0").incarnation == incarnation


def write_head(path: Path, *contents: bytes) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in zip(("manifest.json", "manifest.json.minisig"), contents, strict=True):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.mark.parametrize(
    ("old_steps", "new_steps"),
    [(("downloaded", "unpacked", "tested", "recorded"), ("started", "proved")), (("switched",), ())],
)
def test_kill_9_at_each_step_ends_in_one_true_result(
    site: Site, old_steps: tuple[str, ...], new_steps: tuple[str, ...]
) -> None:
    """Each step of the old version kills the agent's process, each of the new one only the watcher's child."""
    machine, marks = Machine(site, module="crashing_release"), site.directory / "crashed"
    marks.mkdir()
    crashing = {"ACM_TEST_CRASH_AT": " ".join(old_steps + new_steps), "ACM_TEST_CRASHED": str(marks)}
    agent = machine.start(**crashing)
    command_id = machine.send(machine.package("1.1.0"))
    for number in range(1, len(old_steps) + 1):
        assert agent.process.wait(40) == -signal.SIGKILL
        assert {path.name for path in marks.iterdir()} == set(old_steps[:number])
        agent = machine.start(**crashing)
    result = machine.result(command_id)
    assert (result["outcome"], result["data"]["action"], result["data"]["running"]) == ("success", "upgraded", "1.1.0")
    assert {path.name for path in marks.iterdir()} == {*old_steps, *new_steps}
    assert (machine.status("1.1.0").incarnation, machine.current) == (result["incarnation"], "1.1.0")
    assert (agent.process.poll(), machine.releases()) == (None, {"1.0.0", "1.1.0"})
