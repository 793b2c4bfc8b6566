"""acm-agent completion: the script by which a shell completes the words of acm-agent."""

import typer

from broker.console.completion import ShellArgument, completion_script

__all__ = ["app"]


app = typer.Typer()


@app.command(epilog="Example: acm-agent completion bash > /etc/bash_completion.d/acm-agent")
def completion(shell: ShellArgument) -> None:
    """Print the script that lets a shell complete commands, options and ids."""
    typer.echo(completion_script("acm-agent", shell))
