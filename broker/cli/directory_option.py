"""The option that `acm up` and `acm down` share."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "DirectoryOption",
]


DirectoryOption = Annotated[
    Path | None,
    typer.Option(
        "--directory",
        metavar="DIR",
        help="Directory of the installation (default: /var/lib/acm for root, else ~/.local/state/acm).",
    ),
]
