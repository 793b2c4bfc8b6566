"""Centralized configurations: a valid one, one that does not parse, one that crashes the service; the active one."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from rich.panel import Panel

from scripts.demo.processes import console, expect, program, sent, wait_for
from scripts.demo.stage import Stage

AGENT = "web-02"
SENSOR = str(Path(__file__).with_name("sensor.py"))


def _settings(state: Path, report: Path) -> str:
    service = [sys.executable, SENSOR, f"{state}/configuration/current/sensor.toml", str(report)]
    return (
        f'state = "{state}"\n[service]\nkind = "child"\nargv = {json.dumps(service)}\n'
        '[configuration]\nfile = "sensor.toml"\nreload = "signal"\ngrace_s = 1.5\n'
    )


def _send(outcome: str, *arguments: str) -> dict[str, Any]:
    console.print(f"[dim]$[/dim] acm send {AGENT} {shlex.join(arguments)} --wait")
    result: dict[str, Any] = sent(AGENT, *arguments, "--wait", "40")["result"]
    good = result["outcome"] == "success"
    expect(result["outcome"] == outcome, f"{arguments[0]} ends with {outcome}")
    text = f"{result['outcome']}{'' if good else ' (' + result['code'] + ')'}: {result['message']}"
    console.print(Panel(text, title="result in the ledger", border_style="green" if good else "yellow"))
    return result


def show_configuration(stage: Stage) -> None:
    """Apply configurations to a second agent, whose service reads one file and is reloaded by HUP."""
    console.rule("[bold]Centralized configuration: applied as a whole, or rolled back[/bold]", align="left")
    settings, report = stage.directory / "agent-02.toml", stage.directory / "report"
    settings.write_text(_settings(stage.enrolled(AGENT), report))
    with program(["-m", "consumer", "run", "--config", str(settings)], stage.directory / "agent-02.log"):
        wait_for(report.exists, "the service to run")
        _send("success", "apply-centralized-configuration", "content=a_minute = 6", "group=web")
        wait_for(lambda: "10 s" in report.read_text(), "the service to have read it")
        console.print(f"The service was reloaded: [bold]{report.read_text()}[/bold].\n")
        _send("error", "apply-centralized-configuration", "content=a_minute = ?")
        _send("error", "apply-centralized-configuration", "content=a_minute = 0")
        expect("10 s" in report.read_text(), "the service runs with the old configuration")
        console.print(f"The service runs with the old one again: [bold]{report.read_text()}[/bold].\n")
        data = _send("success", "get-agent-configuration", "section=configuration", "effective=true")["data"]
        for name in ("reload", "grace_s", "keep"):
            value, source = data["configuration"]["configuration"][name], data["sources"][f"configuration.{name}"]
            console.print(f"  {f'{name} = {value!r}':<20} [dim]from {source}[/dim]")
        applied = data["applied"]
        console.print(f"  applied: {applied['name']}, group {applied['group']}, SHA-256 {applied['sha256'][:16]}…\n")
