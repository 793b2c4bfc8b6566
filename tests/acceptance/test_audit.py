"""acm audit with real processes: an honest agent agrees, also after kill -9; a change on its disk is found."""

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.acceptance.conftest import ROOT, Site
from tests.support.waiting import wait_for

SLOW = "tests.acceptance.slow_agent"


def alter(state: Path, old: str, new: str) -> None:
    """Replace a text everywhere in the journal, as a user with a database tool could."""
    connection = sqlite3.connect(state / "commands" / "cache.db")
    with connection:
        sql = "UPDATE Cache SET value = CAST(replace(value, ?, ?) AS BLOB) WHERE key = 'm/head' OR key LIKE 'j/%'"
        connection.execute(sql, (old, new))
    connection.close()


def local_audit(state: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "consumer", "audit", "--state", str(state)]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)


def verify(site: Site, code: int) -> Any:
    return site.acm("audit", "verify", "web-01", check=code)


def test_audit_agrees_until_the_journal_is_changed(site: Site) -> None:
    notes = site.directory / "notes"
    agent = site.start_agent("web-01", module=SLOW)
    site.wait_online("web-01")
    first = site.send("web-01", "note-once", f"path={notes}")
    assert site.result(first)["outcome"] == "success"
    cut_short = site.send("web-01", "note-again", f"path={notes}", "hold_s=3")
    wait_for(lambda: notes.read_text().count("\n") == 2, "the second command to begin")
    agent.kill()
    agent = site.start_agent("web-01", module=SLOW)
    assert site.result(cut_short)["outcome"] == "success"
    agreed = verify(site, 0)
    assert (agreed["agrees"], agreed["commands"], agreed["notes"]) == (True, 3, [])
    with site.opened_ledger() as ledger:
        pages = [row.result for row in ledger.commands("web-01") if row.command.type == "get-audit-journal"]
    assert [page and page.get("data") for page in pages] == [None], "a verified page is dropped"
    head = site.wait_online("web-01")["audit_head"]
    assert head["number"] > 0

    agent.stop()
    shown = local_audit(site.state("web-01"))
    assert (shown.returncode, "The journal goes from number 1 to" in shown.stdout) == (0, True)
    digest = site.show(first)["result"]["digest"]
    alter(site.state("web-01"), digest, "0" * 64)
    shown = local_audit(site.state("web-01"))
    assert (shown.returncode, "hash chain is broken" in shown.stderr) == (4, True)

    site.start_agent("web-01", module=SLOW)
    wait_for(lambda: "audit journal" in (site.wait_online("web-01").get("last_error") or ""), "the agent to report it")
    differs = verify(site, 7)["differences"][0]
    assert (differs["code"], differs["number"], differs["command_id"]) == ("other_result", 3, first)
    assert [part in differs["message"] for part in ("0" * 64, digest)] == [True, True]

    assert site.acm("audit", "accept", "web-01")["difference_count"] > 0
    assert verify(site, 0)["agrees"]


def test_audit_of_an_unknown_agent_is_an_error(site: Site) -> None:
    site.acm("audit", "verify", "web-09", check=6)
