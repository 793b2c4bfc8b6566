"""Fuzzes every target, or those named, each in a process of its own, and stores findings.

Guided by coverage if atheris is installed (`make fuzz` installs it), else with random input. A finding is a file in
tests/fuzz/findings, which the tests run from then on.
"""

import argparse
import hashlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

from tests.fuzz.targets import TARGETS

FINDINGS = Path(__file__).parent / "findings"
_WORK = Path("build") / "fuzz"
_MAX_INPUT_BYTES = 1 << 16
_MAX_MEGABYTES = 1024
_MAX_RUN_S = 20


def _argv(name: str, seconds: int) -> list[str]:
    if importlib.util.find_spec("atheris") is None:
        return [sys.executable, "-m", "tests.fuzz.by_chance", name, str(seconds), str(FINDINGS / name)]
    corpus, found = _WORK / name, FINDINGS / name
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    for seed in TARGETS[name].seeds():
        (corpus / hashlib.sha256(seed).hexdigest()).write_bytes(seed)
    options = {
        "max_total_time": seconds,
        "max_len": _MAX_INPUT_BYTES,
        "rss_limit_mb": _MAX_MEGABYTES,
        "timeout": _MAX_RUN_S,
        "artifact_prefix": f"{found}/",
        "print_final_stats": 1,
        "verbosity": 0,
    }
    flags = [f"-{option}={value}" for option, value in options.items()]
    return [sys.executable, "-m", "tests.fuzz.by_coverage", name, *flags, str(corpus)]


def _fuzz(name: str, seconds: int) -> bool:
    log = _WORK / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        done = subprocess.run(_argv(name, seconds), stdout=output, stderr=output)
    output_text = log.read_text(encoding="utf-8", errors="replace")
    runs = re.findall(r"number_of_executed_units: (\d+)", output_text) or ["no"]
    verdict = "no finding" if done.returncode == 0 else f"FINDING: see {log} and {FINDINGS / name}"
    print(f"{name:18} {runs[-1]:>9} executions  {verdict}", flush=True)
    return done.returncode == 0


def main() -> int:
    """Return 0 if nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="for all targets together")
    parser.add_argument("names", nargs="*", default=list(TARGETS), metavar="TARGET", help=", ".join(TARGETS))
    asked = parser.parse_args()
    each = max(1, asked.seconds // len(asked.names))
    good = [_fuzz(name, each) for name in asked.names]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
