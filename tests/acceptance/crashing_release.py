"""acm-agent, killed with -9 by itself once at each step that ACM_TEST_CRASH_AT names; ACM_TEST_CRASHED keeps which."""

import os
import signal
from functools import partial
from pathlib import Path

import consumer.agent
from consumer.agent import Agent
from consumer.cli.main import main as main


class KilledOnceAt:
    def __init__(self, steps: list[str], marks: Path) -> None:
        self._steps = steps
        self._marks = marks

    def reached(self, step: str) -> None:
        name = step.rpartition(".")[2]
        if name not in self._steps or (self._marks / name).exists():
            return
        (self._marks / name).touch()
        os.kill(os.getpid(), signal.SIGKILL)


observer = KilledOnceAt(os.environ.get("ACM_TEST_CRASH_AT", "").split(), Path(os.environ.get("ACM_TEST_CRASHED", "")))
consumer.agent.Agent = partial(Agent, observer=observer)  # type: ignore[misc, assignment]
