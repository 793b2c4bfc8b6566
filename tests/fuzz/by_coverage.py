"""Runs one target under atheris: `python -m tests.fuzz.by_coverage TARGET [OPTION OF LIBFUZZER]... CORPUS`."""

import sys

import atheris

with atheris.instrument_imports(include=["broker", "consumer", "tarfile", "json"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[sys.argv[1]].run)
    atheris.Fuzz()
