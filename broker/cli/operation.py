"""acm operation: what became of a command that was sent to many agents."""

from typing import Annotated

import typer
from rich.console import Console

from broker.cli.options import AbandonOption, ConfigOption, JsonOption, LedgerOption, WaitOption, open_ledger_of
from broker.cli.output import print_json
from broker.cli.views import operation_facts, operation_json, operation_view, operations_table
from broker.durations import parse_duration
from broker.ledger.waiting import judge_operation, wait_for_operation
from broker.text import counted

__all__ = [
    "operation_app",
]


operation_app = typer.Typer(no_args_is_help=True, help="Commands that were sent to many agents at once.")
OperationId = Annotated[str, typer.Argument(metavar="ID", help="The operation's id.")]


@operation_app.command(epilog="Example: acm operation show 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f --wait 5m")
def show(
    operation_id: OperationId,
    wait: WaitOption = None,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how many of its commands are in each state, and each one's outcome."""
    wait_s = parse_duration(wait) if wait else None
    with open_ledger_of(config, ledger) as opened:
        operation = opened.operations.get(operation_id)
        if wait_s:
            progress = wait_for_operation(opened, operation, wait_s, quiet=as_json)
        else:
            progress = opened.operations.progress(operation_id)
        rows = opened.commands(operation_id=operation_id, limit=None)
    if as_json:
        print_json(operation_json(operation, progress, rows))
    else:
        Console().print(operation_view(operation, progress, rows))
    if wait_s:
        judge_operation(operation, progress, wait_s)


@operation_app.command("list", epilog="Example: acm operation list --json")
def list_operations(
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most this many, the newest.")] = 100,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the operations, the newest first."""
    with open_ledger_of(config, ledger) as opened:
        operations = opened.operations.newest(limit)
    if as_json:
        print_json([operation_facts(operation) for operation in operations])
    else:
        Console().print(operations_table(operations))


@operation_app.command(epilog="Example: acm operation cancel 0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f")
def cancel(
    operation_id: OperationId,
    abandon: AbandonOption = False,
    config: ConfigOption = None,
    ledger: LedgerOption = None,
) -> None:
    """Ask for each of its commands that is not completed to be cancelled; their results say what came of that."""
    with open_ledger_of(config, ledger) as opened:
        count = opened.abandon_operation(operation_id) if abandon else opened.cancel_operation(operation_id)
    done = "given up" if abandon else "asked to be cancelled"
    typer.echo(f"{counted(count, 'command was', 'commands were')} {done}.")
