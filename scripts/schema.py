"""Writes the JSON Schema of the messages to the path given, as `make schema` does: `python -m scripts.schema PATH`."""

import sys

from broker.contract.schema import render
from scripts.written import write_document


def main(arguments: list[str]) -> int:
    return write_document("scripts.schema", arguments, render)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
