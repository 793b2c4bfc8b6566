"""What the commands of acm and acm-agent print with --json is what docs/output-schema.json describes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from broker.cli.main import app as acm
from consumer.cli.main import app as acm_agent
from scripts import output_schema
from scripts.output_shapes import OUTPUTS
from tests.acceptance.conftest import ROOT
from tests.support.cli import commands_of
from tests.support.every_command import make_site
from tests.support.forked import ForkedCommands

pytestmark = pytest.mark.own_ledger

DOCUMENT = ROOT / "docs" / "output-schema.json"


def closed(schema: Any) -> Any:
    """Return a schema that allows no members that it does not describe."""
    if isinstance(schema, list):
        return [closed(it) for it in schema]
    if not isinstance(schema, dict):
        return schema
    added = {"additionalProperties": False} if "properties" in schema else {}
    return {**added, **{name: closed(value) for name, value in schema.items()}}


def problems(name: str, printed: str) -> list[str]:
    """Return what one JSON document has that the definition of this name does not allow."""
    schema = {"$ref": f"#/$defs/{name.replace(' ', '%20')}", "$defs": closed(output_schema.schema()["$defs"])}
    found = jsonschema_rs.validator_for(schema).iter_errors(json.loads(printed))
    return [f"{name}: {error.message} at {error.instance_path}" for error in found]


def test_document_is_current(tmp_path: Path) -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == output_schema.rendered(), "run `make schema`"
    assert output_schema.main([str(tmp_path / "written.json")]) == 0
    assert (tmp_path / "written.json").read_text(encoding="utf-8") == output_schema.rendered()


def test_every_output_is_as_described(tmp_path_factory: pytest.TempPathFactory) -> None:
    site = make_site(tmp_path_factory.mktemp("outputs"))
    printed = set()
    with ForkedCommands(site.directory, site.environment) as commands:
        for name, call in site.calls().items():
            if name not in OUTPUTS:
                continue
            ended = commands.run(replace(call, words=(*call.words, "--json")))
            assert "Traceback" not in ended.stderr, (name, ended.stderr)
            if ended.stdout:
                printed.add(name)
                assert problems(name, ended.stdout) == []
            if ended.code:
                assert problems("ErrorLine", ended.stderr.splitlines()[-1]) == []
        plan = commands.run(
            replace(site.calls()["acm send"], words=("send", "--all", "restart-agent", "--dry-run", "--json"))
        )
        assert problems("acm send", plan.stdout) == []
    assert len(printed) > 50


def test_every_command_with_json_is_described() -> None:
    found = {f"acm {name}": command for name, command in commands_of(acm)}
    found |= {f"acm-agent {name}": command for name, command in commands_of(acm_agent)}
    prints = {name for name, it in found.items() if not it.hidden and any("--json" in p.opts for p in it.params)}
    assert prints - OUTPUTS.keys() == set()
    assert OUTPUTS.keys() - prints == set()
