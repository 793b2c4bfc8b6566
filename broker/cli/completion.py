"""acm completion: the script by which a shell completes the words of acm."""

import typer

from broker.console.completion import ShellArgument, completion_script

__all__ = [
    "app",
]


app = typer.Typer()


@app.command(epilog="Example: acm completion bash > /etc/bash_completion.d/acm")
def completion(shell: ShellArgument) -> None:
    """Print the script that lets a shell complete commands, agents, types, parameters and ids."""
    typer.echo(completion_script("acm", shell))
