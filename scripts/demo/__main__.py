"""The demonstration: broker, servers, agents and commands, step by step with real processes.

All connections use TLS with certificates and all commands are signed, as after the README's quick start.
"""

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import structlog
from rich.panel import Panel

from scripts.demo.active_response import show_active_response, show_silent_script, write_scripts
from scripts.demo.configuration import show_configuration
from scripts.demo.enrolment import show_enrolment
from scripts.demo.fanout import show_fanout
from scripts.demo.installation import Installation
from scripts.demo.page import introduce_page, keep_up
from scripts.demo.processes import console, expect, program, run_tool, sent, tool, wait_for
from scripts.demo.refusals import show_refusals
from scripts.demo.signing import show_key_rotation
from scripts.demo.stage import AGENT, Stage
from scripts.demo.upgrade import show_upgrades
from scripts.demo.wire import Hops

STUBBORN = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def server_down(stage: Stage, server: list[str], log: Path, stack: ExitStack, running: subprocess.Popen[bytes]) -> None:
    console.rule("[bold]The server is down: the result waits on the agent[/bold]", align="left")
    command_id = sent(AGENT, "restart-agent")["id"]
    wait_for(lambda: stage.queue(), "the command to be stored")
    running.send_signal(signal.SIGKILL)
    running.wait()
    console.print("kill -9 of the server.")
    rows = wait_for(lambda: [row for row in stage.queue() if row["state"] == "done"], "the result to be stored")
    console.print(f"The agent holds: {rows[0]['type']}, {rows[0]['state']}, {rows[0]['outcome']}.")
    stack.enter_context(program(server, log))
    console.print("The server is back.")
    stage.wait_and_show(command_id)


def killed(stage: Stage, agent: list[str], log: Path, stack: ExitStack, running: subprocess.Popen[bytes]) -> None:
    console.rule("[bold]kill -9 of the agent while a command runs[/bold]", align="left")
    command_id = sent(AGENT, "restart-agent")["id"]
    wait_for(lambda: [row for row in stage.queue() if row["state"] == "processing"], "the command to run")
    running.send_signal(signal.SIGKILL)
    running.wait()
    console.print("The service ignores TERM, so its restart takes a while: kill -9 of the agent now.")
    console.print(f"On its disk: {stage.queue()[0]['type']}, [bold]{stage.queue()[0]['state']}[/bold].")
    stack.enter_context(program(agent, log))
    console.print("The agent is started again.\n")
    stage.wait_and_show(command_id)


def introduce(stage: Stage) -> None:
    """Enroll the first agent, and show its enrolment."""
    stage.enrolled(AGENT)
    found = tool("consumer", "enrolment", "--state", str(stage.state))
    expect(found["broker"].startswith("mqtts://"), "the enrolment names a broker with TLS")
    console.print(f"[dim]$[/dim] acm token create {AGENT} | acm-agent enroll --server {found['server']} --token - …")
    console.print(f"{AGENT} is enrolled: broker {found['broker']}, certificate until {found['not_after']}.")


def show_commands(stage: Stage) -> None:
    stage.send("Show the configuration", "get-agent-configuration", "section=service")
    stage.send("Stop the service, while the agent stays reachable", "stop-agent")
    stage.send("Start it again", "start-agent")
    stage.send("Restart it; a new incarnation proves it", "restart-agent")
    stage.send("A command type that the agent does not support, sent anyway", "make-coffee", "--force")


@contextmanager
def secured(directory: Path) -> Iterator[Installation]:
    """Create an installation, run its broker and enrolment server, and set ACM_CONFIG for `acm`."""
    installation = Installation(directory / "installation")
    installation.set_up()
    os.environ["ACM_CONFIG"] = str(installation.settings)
    with installation.serving():
        yield installation


def configure(directory: Path) -> list[str]:
    """Write the configuration of the first agent; return its arguments. Its enrolment names the broker."""
    configuration = directory / "agent.toml"
    argv = json.dumps([sys.executable, "-c", STUBBORN])
    configuration.write_text(
        f'state = "{directory}/{AGENT}"\n'
        f'[service]\nkind = "child"\nargv = {argv}\nstop_grace_s = 2.0\n' + write_scripts(directory)
    )
    return ["-m", "consumer", "run", "--config", str(configuration)]


def audited(stage: Stage) -> None:
    console.rule("[bold]The agent's audit journal, compared with the ledger[/bold]", align="left")
    run_tool("broker", "audit", "verify", AGENT)
    run_tool("consumer", "audit", "--state", str(stage.state))
    console.print()


def main() -> None:
    """Show all steps; with --keep, keep what runs up until Ctrl-C, which ends all of it at any time."""
    parser = argparse.ArgumentParser(prog="python -m scripts.demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="keep it up until Ctrl-C")
    keep = parser.parse_args().keep
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        show(keep)
    except KeyboardInterrupt:
        raise SystemExit("Interrupted: everything is ended.") from None


def show(keep: bool) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="acm-demo-") as name, ExitStack() as stack:
        directory = Path(name)
        console.print(Panel("server ──▶ broker ──▶ agent: stored, acknowledged, run, reported, acked, deleted"))
        installation = stack.enter_context(secured(directory))
        server, server_log = installation.server, installation.server_log
        agent, agent_log = configure(directory), directory / "agent.log"
        serving = stack.enter_context(program(server, server_log))
        stage = Stage(directory, installation, stack.enter_context(Hops(installation)))
        introduce(stage)
        token = introduce_page(stage)
        running = stack.enter_context(program(agent, agent_log))
        console.print(f"{AGENT} is online, incarnation {stage.online()['incarnation'][:8]}.\n")
        show_commands(stage)
        show_key_rotation(stage)
        show_fanout(stage)
        show_refusals(stage)
        show_active_response(stage)
        show_silent_script(stage)
        show_configuration(stage)
        server_down(stage, server, server_log, stack, serving)
        killed(stage, agent, agent_log, stack, running)
        audited(stage)
        show_upgrades(stage)
        show_enrolment(stage)
        if keep:
            keep_up(stage, token)
        else:
            console.print(Panel("Each command has exactly one true result. Cleaning up.", border_style="green"))


if __name__ == "__main__":
    main()
