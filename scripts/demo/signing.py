"""The server's signing keys: a new one is added, then the old one is revoked."""

from scripts.demo.processes import console, expect, run_tool, tool, wait_for
from scripts.demo.stage import AGENT, Stage


def show_key_rotation(stage: Stage) -> None:
    console.rule("[bold]The server's signing key is replaced while the agents run[/bold]", align="left")
    old = _active()[0]
    run_tool("broker", "keys", "rotate")
    stage.wait_and_show(_update(1))
    wait_for(lambda: stage.online()["signing_keys_version"] == _version(stage), f"{AGENT} to use the new list")
    run_tool("broker", "keys", "revoke", old)
    stage.wait_and_show(_update(2))
    run_tool("broker", "keys", "list")
    expect(old not in _active(), "the old key is revoked")
    console.print()


def _active() -> list[str]:
    return [key["id"] for key in tool("broker", "keys", "list")["keys"] if key["state"] == "active"]


def _version(stage: Stage) -> int:
    return int(tool("broker", "keys", "list")["version"])


def _update(number: int) -> str:
    """Return the id of the command that distributed the list for the `number`th time."""
    rows = tool("broker", "commands", "--agent", AGENT)
    updates = [row["id"] for row in rows if row["type"] == "update-signing-keys"]
    expect(len(updates) == number, "each change of the keys is distributed to the agent")
    return str(updates[0])
