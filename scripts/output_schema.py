"""Writes the JSON Schema of what acm and acm-agent print with --json: `python -m scripts.output_schema PATH`."""

import inspect
import json
import sys
from typing import Any

import msgspec

from scripts.output_shapes import OUTPUTS, ErrorLine
from scripts.written import write_document

__all__ = ["main", "rendered", "schema"]


def schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the output of each command, in `$defs` under the command's words."""
    shapes = {name: shape if isinstance(shape, tuple) else (shape,) for name, shape in OUTPUTS.items()}
    every = [ErrorLine, *(shape for several in shapes.values() for shape in several)]
    (_, *schemas), definitions = msgspec.json.schema_components(every, ref_template="#/$defs/{name}")
    left = iter(schemas)
    outputs = {name: _one_of([next(left) for _ in several]) for name, several in shapes.items()}
    for definition in definitions.values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Agent command manager: output of acm and acm-agent with --json",
        "description": "Each command's output is named after it. Later versions may add members, and remove none.",
        "$defs": {**dict(sorted(definitions.items())), **dict(sorted(outputs.items()))},
    }


def _one_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def rendered() -> str:
    """Return the schema as text, the content of docs/output-schema.json."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    return write_document("scripts.output_schema", arguments, rendered)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
