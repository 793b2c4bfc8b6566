"""The main job, shown step by step with real processes: broker, server, agent, and a few commands. Ends by itself."""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import structlog
from rich.panel import Panel

from broker.mosquitto import EmbeddedMosquitto
from scripts.demo.active_response import show_active_response, show_silent_script, write_scripts
from scripts.demo.configuration import show_configuration
from scripts.demo.enrolment import show_enrolment
from scripts.demo.fanout import show_fanout
from scripts.demo.stage import AGENT, Hops, Stage, console, program, run_tool, tool, wait_for
from scripts.demo.upgrade import show_upgrades

STUBBORN = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def server_down(stage: Stage, server: list[str], log: Path, stack: ExitStack, running: subprocess.Popen[bytes]) -> None:
    console.rule("[bold]The server is away: the result waits on the agent[/bold]", align="left")
    sent = tool("broker", "send", AGENT, "restart-agent")
    wait_for(lambda: stage.queue(), "the command to be stored")
    running.send_signal(signal.SIGKILL)
    running.wait()
    console.print("kill -9 of the server.")
    rows = wait_for(lambda: [row for row in stage.queue() if row["state"] == "done"], "the result to be stored")
    console.print(f"The agent holds: {rows[0]['type']}, {rows[0]['state']}, {rows[0]['outcome']}.")
    stack.enter_context(program(server, log))
    console.print("The server is back.")
    stage.wait_and_show(sent["id"])


def killed(stage: Stage, agent: list[str], log: Path, stack: ExitStack, running: subprocess.Popen[bytes]) -> None:
    console.rule("[bold]kill -9 of the agent in the midst of a command[/bold]", align="left")
    sent = tool("broker", "send", AGENT, "restart-agent")
    wait_for(lambda: [row for row in stage.queue() if row["state"] == "processing"], "the command to run")
    running.send_signal(signal.SIGKILL)
    running.wait()
    console.print("The service ignores TERM, so its restart takes a while: kill -9 of the agent now.")
    console.print(f"On its disk: {stage.queue()[0]['type']}, [bold]{stage.queue()[0]['state']}[/bold].")
    stack.enter_context(program(agent, log))
    console.print("The agent is started again.\n")
    stage.wait_and_show(sent["id"])


def audited(stage: Stage) -> None:
    console.rule("[bold]What the agent's journal says of all this, against the ledger[/bold]", align="left")
    if run_tool("broker", "audit", "verify", AGENT):
        raise SystemExit("The demonstration failed: the journal and the ledger differ.")
    run_tool("consumer", "audit", "--state", str(stage.state))
    console.print()


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="acm-demo-") as name, ExitStack() as stack:
        directory = Path(name)
        os.environ["ACM_LEDGER"] = f"sqlite:///{directory}/ledger.db"
        console.print(Panel("server ──▶ broker ──▶ agent: stored, acknowledged, run, reported, acked, deleted"))
        url = stack.enter_context(EmbeddedMosquitto()).url
        configuration = directory / "agent.toml"
        argv = json.dumps([sys.executable, "-c", STUBBORN])
        configuration.write_text(
            f'agent = "{AGENT}"\nbroker = "{url}"\nstate = "{directory}/agent"\n'
            f'[service]\nkind = "child"\nargv = {argv}\nstop_grace_s = 2.0\n' + write_scripts(directory)
        )
        server = ["-m", "broker", "server", "--broker", url]
        agent = ["-m", "consumer", "run", "--config", str(configuration)]
        serving = stack.enter_context(program(server, directory / "server.log"))
        running = stack.enter_context(program(agent, directory / "agent.log"))
        hops = stack.enter_context(Hops(url))
        stage = Stage(directory, hops)
        status = stage.online()
        console.print(
            f"Mosquitto at {url}; server and agent are up: {AGENT}, incarnation {status['incarnation'][:8]}\n"
        )
        stage.send("Show the configuration", "get-agent-configuration", "section=service")
        stage.send("Stop the service, while the agent stays reachable", "stop-agent")
        stage.send("Start it again", "start-agent")
        stage.send("Restart it, with proof: a new incarnation", "restart-agent")
        stage.send("A verb that no type owns", "make-coffee")
        show_fanout(stage, url)
        show_active_response(stage)
        show_silent_script(stage)
        show_configuration(stage, url)
        server_down(stage, server, directory / "server.log", stack, serving)
        killed(stage, agent, directory / "agent.log", stack, running)
        audited(stage)
        show_upgrades(stage, url)
        show_enrolment(stage, url)
        console.print(Panel("Each command has exactly one true result. Cleaning up.", border_style="green"))


if __name__ == "__main__":
    main()
