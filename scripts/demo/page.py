"""The page of the demonstration's server: its address and a token, and what keeps all of it up."""

import threading
from contextlib import suppress

from rich.panel import Panel

from scripts.demo.fanout import more_agents
from scripts.demo.processes import console, wait_for
from scripts.demo.stage import Stage


def introduce_page(stage: Stage) -> str:
    """Print where the page is, and how to log in, once it is served; return the token for that."""
    installation = stage.installation
    wait_for(lambda: '"api_listens"' in installation.server_log.read_text(), "the API")
    token = installation.acm("api", "token", "create", "operator", "--role", "operator", "--ttl", "1d")["token"]
    console.print(f"The page for operators: [bold]{installation.page}[/bold]; log in with the token\n{token}\n")
    return str(token)


def keep_up(stage: Stage, token: str) -> None:
    """Keep broker, servers and three agents up until Ctrl-C."""
    with more_agents(stage):
        lines = (
            "Each command has exactly one true result. All is kept up until Ctrl-C, with three agents.",
            f"The page for operators: [bold]{stage.installation.page}[/bold], with the token {token}",
            f"The command line: export ACM_CONFIG={stage.installation.settings}",
            "Then, such as: .venv/bin/acm send --group edge restart-agent --wait",
        )
        console.print(Panel("\n".join(lines), border_style="green"))
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    console.print("Cleaning up.")
