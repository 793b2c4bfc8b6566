"""The agent, killed with -9 by itself when it has reached the step that ACM_TEST_CRASH_AT names."""

import os
import signal
import sys
from pathlib import Path

from consumer.agent import Agent
from consumer.config import load_config
from consumer.replacement import RESTARTED_BY, replace_process


class KilledAt:
    def __init__(self, step: str) -> None:
        self._step = step

    def reached(self, step: str) -> None:
        if step == self._step:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Take `run --agent NAME --broker URL --state DIR [--config FILE]`, as acm-agent does."""
    given = dict(zip(sys.argv[2::2], sys.argv[3::2], strict=True))
    config = Path(given.pop("--config")) if "--config" in given else None
    settings = load_config(config, {name.removeprefix("--"): value for name, value in given.items()})
    observer = KilledAt(os.environ["ACM_TEST_CRASH_AT"])
    wants_restart = Agent(settings, observer=observer, restarted_by=os.environ.pop(RESTARTED_BY, None)).run()
    if wants_restart is not None:
        replace_process(wants_restart)


if __name__ == "__main__":
    main()
