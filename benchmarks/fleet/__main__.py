"""One process of a simulated fleet: `python -m benchmarks.fleet SETTING`, driven by lines of JSON on its stdin.

SETTING is a file that `benchmarks.fleet.driver` writes. A line is a call of `Driven`; what happens is a line on stdout.
"""

import json
import os
import resource
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.fleet.agent import SimulatedAgent
from benchmarks.fleet.fleet import Fleet

_TICK_S = 0.02
_Turns = list[tuple[SimulatedAgent, range]]


def tell(event: str, **facts: Any) -> None:
    """Report what has happened."""
    print(json.dumps({"event": event, **facts}), flush=True)


class Driven:
    """What the driver of the fleet can call."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._awaited: int | None = None
        fleet.on_all_connected = lambda at: tell("connected", at=at)

    def connect(self, *, statuses: bool = True) -> None:
        """Connect all agents."""
        self._fleet.connect(statuses=statuses)

    def statuses(self) -> None:
        """Publish all statuses now."""
        self._fleet.publish_statuses()
        tell("published", at=monotonic())

    def wait(self, *, acks: int) -> None:
        """Report when this many acks have arrived since the last reset."""
        self._awaited = acks

    def reset(self) -> None:
        """Count from zero."""
        self._fleet.tally.clear()
        tell("reset")

    def report(self) -> None:
        """Report the counts."""
        tell("report", **asdict(self._fleet.tally))

    def accepted(self, *, epoch: int, last: int) -> None:
        """Let the agents believe that they have accepted commands up to the number `last`; before they connect."""
        for agent in self._fleet.agents:
            agent.believe(epoch, last)

    def end_in_turn(self, *, first: int, last: int, per_frame: int) -> None:
        """Send the results of the commands `first` to `last` of each agent, a frame whenever the last one was acked."""
        places = dict.fromkeys(self._fleet.agents, first)
        self._end_next(places, last, per_frame)

    def _end_next(self, places: dict[SimulatedAgent, int], last: int, per_frame: int) -> None:
        for agent, first in list(places.items()):
            if agent.waiting:
                continue
            if first > last:
                del places[agent]
                continue
            places[agent] = first + per_frame
            self._fleet.write(agent, agent.end(range(first, min(first + per_frame, last + 1))))
        if places:
            self._fleet.at(monotonic() + _TICK_S, partial(self._end_next, places, last, per_frame))

    def end(self, *, first: int, last: int, per_frame: int, per_s: float | None = None) -> None:
        """Send the results of the commands `first` to `last` of each agent, at once or so many in each second.

        `per_frame` of an agent are in a frame; at a rate, agents take turns.
        """
        agents = self._fleet.agents
        turns = [
            (agent, range(at, min(at + per_frame, last + 1)))
            for at in range(first, last + 1, per_frame)
            for agent in agents
        ]
        turns.reverse()
        if per_s is None:
            self._end_some(turns, len(turns))
        else:
            self._end_at(turns, per_s / per_frame, monotonic(), 0)

    def _end_at(self, turns: _Turns, frames_per_s: float, began: float, sent: int) -> None:
        due = int((monotonic() - began) * frames_per_s) + 1 - sent
        self._end_some(turns, due)
        if turns:
            self._fleet.at(monotonic() + _TICK_S, partial(self._end_at, turns, frames_per_s, began, sent + due))
        else:
            tell("ended", at=monotonic())

    def _end_some(self, turns: _Turns, count: int) -> None:
        for _ in range(min(count, len(turns))):
            agent, numbers = turns.pop()
            self._fleet.write(agent, agent.end(numbers))

    def check(self) -> None:
        """Report when the acks that are waited for have arrived."""
        acks = self._fleet.tally.acks
        if self._awaited is not None and len(acks) >= self._awaited:
            self._awaited = None
            tell("acked", at=monotonic())


class Calls:
    """Reads the calls on stdin."""

    def __init__(self, driven: Driven) -> None:
        self.ended = False
        self._driven = driven
        self._rest = b""

    def read(self) -> None:
        """Make the calls that have arrived; the end of stdin ends the process."""
        data = os.read(0, 1 << 16)
        self.ended |= not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            call = json.loads(line)
            getattr(self._driven, call.pop("do"))(**call)


def main() -> None:
    """Run until stdin ends."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    setting = json.loads(Path(sys.argv[1]).read_bytes())
    enrolments = {name: (it[0], it[1]) for name, it in setting["enrolments"].items()}
    fleet = Fleet(tuple(setting["broker"]), setting["names"], enrolments, setting["status_pause_s"])
    driven = Driven(fleet)
    calls = Calls(driven)
    fleet.watch(0, calls.read)
    tell("ready")
    while not calls.ended:
        fleet.run_once()
        driven.check()
    fleet.close()


if __name__ == "__main__":
    main()
