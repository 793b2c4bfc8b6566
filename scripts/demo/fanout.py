"""One command for many agents: two more agents, a group, a pattern, and the counts of the operation."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from scripts.demo.processes import console, program, run_tool, sent, tool, wait_for
from scripts.demo.stage import Stage

_MORE = ("edge-01", "edge-02")


def show_fanout(stage: Stage) -> None:
    console.rule("[bold]One command for many agents[/bold]", align="left")
    with more_agents(stage):
        run_tool("broker", "group", "add", "edge", *_MORE)
        run_tool("broker", "send", "--group", "edge", "restart-agent", "--wait", "40")
        run_tool("broker", "send", "edge-*,web-01", "get-agent-configuration", "section=agent", "--yes", "--wait", "40")
        console.rule("[bold]A group's configuration, for an agent that joins it later[/bold]", align="left")
        file = stage.directory / "limits.json"
        file.write_text('{"cpu": 0.5}')
        run_tool("broker", "group", "configure", "edge", str(file))
        _send("web-01", "set-group", 'groups=["edge"]')
        wait_for(lambda: "web-01" in tool("broker", "group", "show", "edge")["agents"], "the server to learn the group")
        _send("web-01", "fetch-config")
        wait_for(lambda: _applied("web-01"), "the configuration that the server sends in response")
        run_tool("broker", "show", str(_applied("web-01")))
    console.print()


def _send(*arguments: str) -> None:
    console.print(f"[dim]$[/dim] acm send {' '.join(arguments)} --wait", highlight=False)
    result = sent(*arguments, "--wait", "40")["result"]
    console.print(f"{result['outcome']}: {result['message']}")


def _applied(agent: str) -> str | None:
    rows = tool("broker", "commands", "--agent", agent, "--state", "completed")
    return next((row["id"] for row in rows if row["type"] == "apply-centralized-configuration"), None)


@contextmanager
def more_agents(stage: Stage) -> Iterator[None]:
    """Run two more agents for a block, in which they are online."""
    with ExitStack() as stack:
        for name in _MORE:
            arguments = ["run", "--state", str(stage.enrolled(name))]
            stack.enter_context(program(["-m", "consumer", *arguments], stage.directory / f"{name}.log"))
        wait_for(lambda: all(stage.installation.is_online(name) for name in _MORE), "the agents")
        yield
