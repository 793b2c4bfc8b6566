"""acm down: ends what `acm up` runs."""

import typer

from broker.app.default_directory import default_directory
from broker.app.occupancy import Occupancy
from broker.cli.directory_option import DirectoryOption
from broker.console.output import print_text

__all__ = [
    "app",
]


_TIMEOUT_S = 30.0
app = typer.Typer()


@app.command(epilog="Example: acm down")
def down(directory: DirectoryOption = None) -> None:
    """End what `acm up` runs in the directory, and wait for it. Nothing is deleted."""
    place = directory or default_directory()
    has_ended = Occupancy(place).end(_TIMEOUT_S)
    print_text(f"What ran in {place} has ended." if has_ended else f"Nothing runs in {place}.")
