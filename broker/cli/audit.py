"""acm audit: whether what an agent says it has done is what the ledger knows."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from broker.audit.comparison import Verdict, compare
from broker.audit.request import request_audit
from broker.cli.options import ConfigOption, JsonOption, LedgerOption, open_ledger_of, origin_of_user
from broker.cli.output import iso, print_json
from broker.cli.targets import check_known
from broker.cli.views import audit_view
from broker.contract.messages import JsonObject
from broker.durations import parse_duration
from broker.errors import BrokerError

__all__ = [
    "AuditDiffers",
    "audit_app",
]


audit_app = typer.Typer(no_args_is_help=True, help="Compare agents' audit journals with the ledger.")
Agent = Annotated[str, typer.Argument(help="The agent; it must be online.")]
AuditWaitOption = Annotated[str, typer.Option("--wait", metavar="SECONDS", help="How long the agent may take.")]


class AuditDiffers(BrokerError):
    """An agent's journal and the ledger do not say the same."""


@audit_app.command(epilog="Example: acm audit verify web-01 --wait 2m --json")
def verify(
    agent: Agent,
    wait: AuditWaitOption = "60s",
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch an agent's journal, compare it with the ledger, and name the first difference."""
    verdict = _audit(agent, wait, config, ledger, as_json, accepts=False)
    if verdict.differences:
        raise AuditDiffers(verdict.differences[0].message)


@audit_app.command(epilog="Example: acm audit accept web-01")
def accept(
    agent: Agent,
    wait: AuditWaitOption = "60s",
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take an agent's journal as it is now: the differences up to here are shown, and no longer named by verify."""
    _audit(agent, wait, config, ledger, as_json, accepts=True)


def _audit(agent: str, wait: str, config: Path | None, url: str | None, as_json: bool, *, accepts: bool) -> Verdict:
    with open_ledger_of(config, url) as ledger:
        check_known(ledger, [agent], way_out="")
        journal, side = request_audit(ledger, agent, origin_of_user(), parse_duration(wait), quiet=as_json)
        verdict = compare(journal, side)
        if accepts:
            ledger.audits.accept(agent, verdict.head)
        elif not verdict.differences:
            ledger.audits.remember(agent, verdict.head)
    if as_json:
        print_json(_json(agent, verdict))
    else:
        Console().print(audit_view(agent, verdict))
    return verdict


def _json(agent: str, verdict: Verdict) -> JsonObject:
    return {
        "agent": agent,
        "agrees": not verdict.differences,
        "differences": [{**asdict(difference), "at": iso(difference.at)} for difference in verdict.differences[:100]],
        "difference_count": len(verdict.differences),
        "notes": list(verdict.notes),
        "entries": verdict.entries,
        "commands": verdict.commands,
        "since": iso(verdict.since),
        "until": iso(verdict.until),
        "head": asdict(verdict.head),
    }
