"""What a shell completes, asked as bash asks it."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from broker.app.factories import open_ledger
from broker.cli.main import app
from broker.contract.commands import COMMAND_TYPES
from broker.contract.messages import Origin
from broker.ledger.enqueue import CommandRequest
from consumer.cli.main import app as agent_app
from consumer.store.opening import open_store
from tests.support.makers import NOW, command

PROGRAMS = Path(sys.executable).parent


def completed(ledger: str, line: str, program: str = "acm") -> list[str]:
    """Return what bash gets that may take the place of the last word of a command line."""
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1), variable: "complete_bash"}
    done = subprocess.run(
        [PROGRAMS / program],
        env={**os.environ, "ACM_LEDGER": ledger, **asked},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_agents_types_parameters_ids_and_columns_are_completed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with open_ledger(url) as ledger:
        request = CommandRequest("restart-agent", {}, Origin("me", "test"))
        operation = ledger.add_operation(["web-01", "web-02", "db-01"], "all", request).id
        ids = {row.command.id for row in ledger.commands()}
        ledger.groups.add("edge", ["web-01"])
    assert completed(url, "acm send we") == ["web-01", "web-02"]
    assert completed(url, "acm send web-01 restart") == ["restart-agent"]
    assert completed(url, "acm send web-01 restart-agent ") == ["delay_s="]
    assert set(completed(url, "acm send --all ")) == {*COMMAND_TYPES}
    assert completed(url, "acm commands --agent d") == ["db-01"]
    assert completed(url, "acm commands --columns id,ag") == ["id,agent"]
    assert set(completed(url, "acm show ")) == {*ids, operation}
    assert completed(url, "acm operation cancel ") == [operation]
    assert completed(url, "acm group remove ") == ["edge"]
    assert completed(url, "acm group add edge web-0") == ["web-01", "web-02"]


def test_nothing_is_completed_without_a_ledger(tmp_path: Path) -> None:
    assert completed(f"sqlite:///{tmp_path}/none.db", "acm agents show ") == []
    assert completed("nonsense", "acm show ") == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_asks_the_program(shell: str) -> None:
    script = CliRunner().invoke(app, ["completion", shell]).stdout
    assert f" _ACM_COMPLETE=complete_{shell}" in script
    script = CliRunner().invoke(agent_app, ["completion", shell]).stdout
    assert f"_ACM_AGENT_COMPLETE=complete_{shell}" in script


def test_ids_of_an_agents_commands_are_completed(tmp_path: Path) -> None:
    with closing(open_store(tmp_path, now=lambda: NOW)) as store:
        store.store_command(command("abc"), NOW)
    words = ("queue", "journal")
    found = [completed("", f"acm-agent {word} --state {tmp_path} a", "acm-agent") for word in words]
    assert found == [["abc"], ["abc"]]
    assert completed("", f"acm-agent queue --state {tmp_path}/none ", "acm-agent") == []
