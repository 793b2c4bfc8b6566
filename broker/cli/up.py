"""acm up: broker, server with its API, and enrolment server of one machine, as one program."""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Annotated

import typer

from broker.app.background import serve_in_background
from broker.app.config import DEFAULT_API_PORT, DEFAULT_ENROLL_PORT, ServerConfig
from broker.app.default_directory import default_directory
from broker.app.machine_directory import DEFAULT_BROKER_PORT, MachineDirectory, RequestedPlace
from broker.app.machine_programs import programs_of
from broker.app.occupancy import AlreadyRuns
from broker.app.supervisor import Supervisor
from broker.cli.directory_option import DirectoryOption
from broker.cli.next_steps import down_command, what_is_next
from broker.console.output import print_text
from broker.contract.topics import check_agent_name
from broker.system.process import forbid_dumps
from broker.system.service_manager import ServiceManager
from broker.system.signals import Signals, leaving_on_signals, on_signals

__all__ = [
    "app",
]


_LOG = "up.log"
app = typer.Typer()


@app.command(epilog="Example: acm up --wait-ready")
def up(
    directory: DirectoryOption = None,
    hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--host",
            metavar="HOST",
            help="Name or address at which agents reach this machine; may be repeated (default: localhost).",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=1, max=65535, help=f"Port of the broker (default: {DEFAULT_BROKER_PORT})."),
    ] = None,
    enroll_port: Annotated[
        int | None,
        typer.Option(
            "--enroll-port", min=1, max=65535, help=f"Port of the enrolment server (default: {DEFAULT_ENROLL_PORT})."
        ),
    ] = None,
    api_port: Annotated[
        int | None,
        typer.Option("--api-port", min=1, max=65535, help=f"Port of the HTTP API (default: {DEFAULT_API_PORT})."),
    ] = None,
    agent: Annotated[
        str | None,
        typer.Option("--agent", metavar="NAME", help="Also enroll and run an agent of this name on this machine."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Run in the background; `acm down` ends it.")] = False,
    wait_ready: Annotated[
        bool, typer.Option("--wait-ready", help="As --detach, and return once everything works.")
    ] = False,
) -> None:
    """Run broker, server with its HTTP API, and enrolment server on this machine, until TERM or INT.

    The first call makes an authority, keys, certificates and configuration files in the directory; the options --host,
    --port, --enroll-port and --api-port are for that call. If one of the programs ends, the others are ended, too.
    """
    forbid_dumps()
    machine = MachineDirectory(directory or default_directory())
    call = _Call(machine, RequestedPlace(hosts or (), port, enroll_port, api_port), agent and check_agent_name(agent))
    try:
        if detach or wait_ready:
            with leaving_on_signals():
                call.run_in_background(wait_ready=wait_ready)
        else:
            with on_signals() as signals:
                call.run(signals)
    except AlreadyRuns as running:
        if wait_ready and not machine.occupancy.wait_ready():
            raise
        print_text(f"{running} `{down_command(machine)}` ends it.")


@dataclass(frozen=True)
class _Call:
    """What a call of `acm up` has asked for."""

    machine: MachineDirectory
    place: RequestedPlace
    agent: str | None

    def run(self, signals: Signals) -> None:
        with self.machine.taken() as lock:
            config = self.machine.prepare(self.place, _say)
            self._serve(config, lock, signals, lambda: print_text(what_is_next(self.machine, config, self.agent)))

    def run_in_background(self, *, wait_ready: bool) -> None:
        log = self.machine.log / _LOG
        with self.machine.taken() as lock:
            config = self.machine.prepare(self.place, _say)

            def serve(started: Callable[[], None]) -> None:
                with on_signals() as signals:
                    self.machine.occupancy.note_process()
                    if not wait_ready:
                        started()
                    self._serve(config, lock, signals, started if wait_ready else lambda: None)

            process = serve_in_background(serve, log)
        begins = "runs" if wait_ready else "starts"
        print_text(f"acm up {begins} in the background (process {process}); its log is {log}.")
        if wait_ready:
            print_text(what_is_next(self.machine, config, self.agent))

    def _serve(self, config: ServerConfig, lock: int, signals: Signals, on_ready: Callable[[], None]) -> None:
        def note_ready() -> None:
            self.machine.occupancy.note_ready()
            on_ready()

        supervisor = Supervisor(
            programs_of(self.machine, config, self.agent),
            inherited=lock,
            show=_say,
            manager=ServiceManager(monotonic),
        )
        signals.deliver(supervisor.stop, supervisor.reload)
        try:
            supervisor.run(note_ready)
        finally:
            self.machine.occupancy.note_end()


def _say(line: str) -> None:
    print_text(line, to_stderr=True)
