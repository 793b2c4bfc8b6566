"""Writes the JSON Schema of the messages to the path given, as `make schema` does: `python -m scripts.schema PATH`."""

import sys
from pathlib import Path

from broker.contract.schema import render


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m scripts.schema PATH\n")
        return 2
    Path(arguments[0]).write_text(render(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
