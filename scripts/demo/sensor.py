"""A service for the demonstration: reads its configuration at start and on HUP, and crashes on `a_minute = 0`."""

import signal
import sys
import tomllib
from pathlib import Path
from types import FrameType


def load(number: int = 0, frame: FrameType | None = None) -> None:
    configuration, report = Path(sys.argv[1]), Path(sys.argv[2])
    if configuration.exists():
        a_minute = tomllib.loads(configuration.read_text())["a_minute"]
        report.write_text(f"measuring every {60 / a_minute:g} s")
    else:
        report.write_text("measuring nothing")


signal.signal(signal.SIGHUP, load)
load()
while True:
    signal.pause()
