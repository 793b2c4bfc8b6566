"""A program that embeds an agent: it adds a command type, and start, stop and restart commands control it.

Run it from the project's directory: `python -m examples.embedded run --agent web-01 --broker mqtt://… --state DIR`.
"""

import os
import signal
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from broker import Command
from consumer import (
    RESTARTED_BY,
    Agent,
    AgentConfig,
    CallbackService,
    Context,
    Handler,
    Interruption,
    Result,
    load_config,
    load_plug_ins,
    replace_process,
)

__all__ = ["Measuring", "main"]


class Measuring:
    """The program's own work; each run has an id."""

    def __init__(self) -> None:
        self._run: str | None = None

    def start(self) -> None:
        """Start a run."""
        self._run = uuid.uuid4().hex

    def stop(self) -> None:
        """End the run."""
        self._run = None

    def incarnation(self) -> str | None:
        """Return the id of the current run, or None."""
        return self._run


@dataclass(frozen=True)
class ReadSensor:
    """Read one sensor."""

    sensor: str


def read_sensor(command: Command, parameters: ReadSensor, context: Context) -> Result:
    """Return the temperature of the named sensor."""
    return Result(f"{parameters.sensor} was read.", {"celsius": 21.5})


READ_SENSOR = Handler("read-sensor", Interruption.RERUN, ReadSensor, read_sensor)


def make_agent(config: AgentConfig, measuring: Measuring) -> Agent:
    """Return an agent that manages `measuring`, with read-sensor and the handlers of installed plug-ins."""
    stopped_mark = Path(config.state) / "measuring-stopped"
    service = CallbackService(measuring.start, measuring.stop, measuring.incarnation, stopped_mark)
    if not service.stopped:
        measuring.start()
    return Agent(
        config,
        service=service,
        handlers=[READ_SENSOR],
        plug_ins=load_plug_ins(),
        restarted_by=os.environ.pop(RESTARTED_BY, None),
    )


def run_beside(agent: Agent) -> None:
    """Run the agent on a thread of its own until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: agent.stop())
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="agent") as threads:
        replacement = threads.submit(agent.run).result()
    if replacement is not None:
        replace_process(replacement)


def main() -> None:
    """Run with the arguments `run --agent NAME --broker URL --state DIR`."""
    flags = {name.removeprefix("--"): value for name, value in zip(sys.argv[2::2], sys.argv[3::2], strict=True)}
    run_beside(make_agent(load_config(None, flags), Measuring()))


if __name__ == "__main__":
    main()
