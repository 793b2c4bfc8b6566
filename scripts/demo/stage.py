"""Shared by the steps of the demonstration: an enrolled agent of a secured server, and how a command is shown."""

import json
from pathlib import Path
from typing import Any

from rich.panel import Panel

from consumer.store.reader import read_queue
from scripts.demo.installation import Installation
from scripts.demo.processes import console, sent, tool, wait_for
from scripts.demo.wire import Hops, show_hops

AGENT = "web-01"


class Stage:
    """One server and its agents, everything in one temporary directory."""

    def __init__(self, directory: Path, installation: Installation, hops: Hops) -> None:
        self.directory = directory
        self.installation = installation
        self.state = directory / AGENT
        self.hops = hops

    def enrolled(self, agent: str) -> Path:
        """Return the state directory of an agent; enroll it with a token the first time."""
        state = self.directory / agent
        if not state.exists():
            self.installation.enroll(agent, state)
        return state

    def queue(self) -> list[dict[str, Any]]:
        """Return the commands in the first agent's store, with the store's names of states; it need not run."""
        return [
            {
                "type": row.command.type,
                "state": row.state,
                "outcome": row.result.feedback.outcome if row.result else None,
            }
            for row in read_queue(self.state)
        ]

    def online(self, agent: str = AGENT) -> dict[str, Any]:
        """Return the status of an agent, once it is online."""
        rows: list[dict[str, Any]] = wait_for(
            lambda: [row for row in self.installation.agents() if row["agent"] == agent and row["online"]],
            f"{agent} to be online",
        )
        return rows[0]

    def send(self, title: str, command_type: str, *arguments: str) -> dict[str, Any]:
        """Send a command, show its messages and its result, and return the result."""
        console.rule(f"[bold]{title}[/bold]", align="left")
        console.print(f"[dim]$[/dim] acm send {AGENT} {' '.join((command_type, *arguments))} --wait\n")
        result: dict[str, Any] = sent(AGENT, command_type, *arguments, "--wait", "40")["result"]
        self.show_result(result)
        return result

    def show_result(self, result: dict[str, Any]) -> None:
        wait_for(lambda: not self.queue(), "the deletion after the ack")
        show_hops(self.hops.of(result["command_id"], AGENT))
        good = result["outcome"] == "success"
        lines = f"{result['outcome']}{'' if good else ' (' + result['code'] + ')'}: {result['message']}"
        if result.get("data"):
            lines += "\n[dim]" + json.dumps(result["data"])[:300] + "[/dim]"
        console.print(Panel(lines, title="result in the ledger", border_style="green" if good else "yellow"))
        console.print("The agent's queue is [bold]empty[/bold]: deleted after the ack.\n")

    def wait_and_show(self, command_id: str) -> dict[str, Any]:
        row = wait_for(
            lambda: (found := tool("broker", "show", command_id)["commands"][0])["state"] == "completed" and found,
            "the result",
        )
        self.show_result(row["result"])
        result: dict[str, Any] = row["result"]
        return result
