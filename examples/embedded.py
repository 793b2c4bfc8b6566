"""A program with an agent inside: it measures, takes commands of its own, and is what start, stop and restart act on.

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
    DesiredState,
    Handler,
    Interruption,
    Result,
    load_config,
    load_plug_ins,
    replace_process,
)

__all__ = ["Measuring", "main"]


class Measuring:
    """What the program is there for; each run of it has a name of its own."""

    def __init__(self) -> None:
        self._run: str | None = None

    def start(self) -> None:
        """Begin."""
        self._run = uuid.uuid4().hex

    def stop(self) -> None:
        """End."""
        self._run = None

    def incarnation(self) -> str | None:
        """Return the name of this run, or None."""
        return self._run


@dataclass(frozen=True)
class ReadSensor:
    """Read one sensor."""

    sensor: str


def read_sensor(command: Command, parameters: ReadSensor, context: Context) -> Result:
    """Answer with the temperature of the named sensor."""
    return Result(f"{parameters.sensor} was read.", {"celsius": 21.5})


READ_SENSOR = Handler("read-sensor", Interruption.RERUN, ReadSensor, read_sensor)


def make_agent(config: AgentConfig, measuring: Measuring) -> Agent:
    """Return an agent that manages `measuring` and takes read-sensor, and whatever installed packages bring."""
    wish = DesiredState(Path(config.state) / "measuring-stopped")
    if not wish.stopped:
        measuring.start()
    return Agent(
        config,
        service=CallbackService(measuring.start, measuring.stop, measuring.incarnation, wish),
        handlers=[READ_SENSOR],
        plug_ins=load_plug_ins(),
        restarted_by=os.environ.pop(RESTARTED_BY, None),
    )


def run_beside(agent: Agent) -> None:
    """Run the agent on a thread of its own until the program is told to end."""
    signal.signal(signal.SIGTERM, lambda *_: agent.stop())
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="agent") as threads:
        wants_restart = threads.submit(agent.run).result()
    if wants_restart is not None:
        replace_process(wants_restart)


def main() -> None:
    """Take `run`, then --agent, --broker and --state with their values."""
    flags = {name.removeprefix("--"): value for name, value in zip(sys.argv[2::2], sys.argv[3::2], strict=True)}
    run_beside(make_agent(load_config(None, flags), Measuring()))


if __name__ == "__main__":
    main()
