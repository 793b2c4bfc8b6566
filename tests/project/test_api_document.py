"""What docs/api.md says is so: its example runs, and it lists every route and every status."""

import re
import subprocess
import sys
from pathlib import Path

from broker.api.app import api_app
from broker.api.problems import STATUS_OF
from broker.app.api_installation import ConfiguredInstallation
from broker.app.factories import open_database
from broker.fleet.models import Role
from broker.ledger.ledger import Ledger
from tests.support.api import NOTHING_ELSE, running_api, with_agents
from tests.support.fakes.clock import TurnedClock
from tests.support.makers import result
from tests.support.recorded import record_feedback
from tests.support.waiting import wait_for

DOCUMENT = (Path(__file__).parents[2] / "docs/api.md").read_text(encoding="utf-8")


def test_example_sends_a_command_and_waits_for_its_result(tmp_path: Path, clock: TurnedClock) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    with open_database(f"sqlite:///{tmp_path}/ledger.db") as database:
        ledger = with_agents(Ledger(database, now=clock.now))
        with running_api(ledger, clock) as api:
            token = api.as_(Role.OPERATOR)["Authorization"].removeprefix("Bearer ")
            environment = {"ACM_API": api.url, "ACM_TOKEN": token}
            words = [sys.executable, "-c", example]
            with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as running:
                wait_for(lambda: bool(ledger.commands()), "the command")
                record_feedback(ledger, "web-01", [result(ledger.commands()[0].command.id)])
                output, _ = running.communicate(timeout=60)
    assert output == "completed success\n"
    assert len(example.strip().splitlines()) <= 10


def test_document_lists_every_route(clock: TurnedClock, tmp_path: Path) -> None:
    installation = ConfiguredInstallation(NOTHING_ELSE, lambda _: ())
    with open_database(f"sqlite:///{tmp_path}/ledger.db") as database:
        paths = api_app(Ledger(database, now=clock.now), installation, now=clock.now).openapi()["paths"]
    documented = {f"{method.upper()} {re.sub(r'{.*_id}', '{id}', path)}" for path, it in paths.items() for method in it}
    assert set(re.findall(r"^\| `((?:GET|POST|PUT) [^`]+)`", DOCUMENT, re.MULTILINE)) == documented


def test_document_lists_the_status_of_every_class() -> None:
    table = DOCUMENT.partition("| status | `kind`")[2].partition("\n\n")[0]
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", table, re.MULTILINE))
    classes = {code: rows[str(int(status))] for code, status in STATUS_OF.items() if code != "broker_error"}
    assert [code for code, row in classes.items() if f"`{code}`" not in row] == []
