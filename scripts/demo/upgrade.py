"""An agent that upgrades itself: to a working package, and to one that does not start and is rolled back."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.panel import Panel

from scripts.demo.processes import console, expect, program, sent, tool, wait_for
from scripts.demo.stage import Stage
from scripts.release import make_release, write_program

AGENT = "web-02"
CRASHES = '#!/bin/sh\n[ "$1" = self-test ] && exit 0\nexit 1\n'


def show_upgrades(stage: Stage) -> None:
    """Install an agent of version 1.0.0, upgrade it to 1.1.0, and fail to upgrade it to 1.2.0."""
    console.rule("[bold]A second agent, installed so that it can upgrade itself[/bold]", align="left")
    directory = stage.directory / "upgrades"
    key, root, configuration = _key(directory), directory / "acm", directory / "agent.toml"
    package = _package(directory, "1.0.0")
    install = [sys.executable, "-m", "consumer", "install", str(package), "--root", str(root), "--public-key", key]
    subprocess.run(install, check=True, capture_output=True)
    console.print(f"[dim]$[/dim] acm-agent install {package.name} --root …/{root.name} --public-key {key[:12]}…")
    configuration.write_text(
        f'state = "{stage.enrolled(AGENT)}"\n[upgrade]\nroot = "{root}"\npublic_keys = ["{key}"]\n'
    )
    log = directory / "agent.log"
    with program(["run", "--config", str(configuration)], log, executable=str(root / "acm-agent")) as agent:
        console.print(f"{AGENT} runs version {_online(stage, '1.0.0')['version']} as process {agent.pid}.\n")
        _upgrade("success", "A working package", _package(directory, "1.1.0"))
        _upgrade("error", "A package whose version 1.2.0 crashes at start", _package(directory, "1.2.0", CRASHES))
        version = _online(stage, "1.1.0")["version"]
        expect(agent.poll() is None, f"process {agent.pid} still runs")
        console.print(f"{AGENT} runs version {version}; process {agent.pid} still runs.\n")


def _upgrade(outcome: str, title: str, package: Path) -> None:
    console.rule(f"[bold]{title}[/bold]", align="left")
    console.print(f"[dim]$[/dim] acm send {AGENT} upgrade-agent --file package={package.name} --wait")
    console.print("[dim]The package comes in chunks over MQTT: the agent reaches only the broker.[/dim]\n")
    result = sent(AGENT, "upgrade-agent", "--file", f"package={package}", "--wait", "60")["result"]
    good = result["outcome"] == "success"
    expect(result["outcome"] == outcome, f"the upgrade ends with {outcome}")
    lines = f"{result['outcome']}{'' if good else ' (' + result['code'] + ')'}: {result['message']}"
    lines += f"\n[dim]{json.dumps(result['data'])}[/dim]"
    console.print(Panel(lines, title="result in the ledger", border_style="green" if good else "yellow"))


def _key(directory: Path) -> str:
    """Make a pair of keys, here without a password; return the public one."""
    directory.mkdir()
    argv = ["minisign", "-G", "-W", "-p", str(directory / "release.pub"), "-s", str(directory / "release.key")]
    subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return (directory / "release.pub").read_text().splitlines()[-1]


def _package(directory: Path, version: str, script: str | None = None) -> Path:
    release, package = make_release(directory / version, version), directory / f"agent-{version}.tar.gz"
    if script is not None:
        write_program(release, script)
    tool("broker", "package", "build", str(release), "--secret-key", f"{directory}/release.key", "--out", str(package))
    return package


def _online(stage: Stage, version: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = wait_for(
        lambda: [row for row in stage.installation.agents() if (row["agent"], row.get("version")) == (AGENT, version)],
        f"{AGENT} to run version {version}",
    )
    return rows[0]
