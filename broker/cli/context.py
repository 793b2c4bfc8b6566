"""acm context: the servers elsewhere whose APIs commands work over, by names."""

import os
import sys
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import typer

from broker.app.contexts import ApiContext, ContextError, Contexts, contexts_file
from broker.cli.completions import complete_contexts
from broker.cli.where import read_token, refuse_two_proofs, token_in, token_text
from broker.client.addresses import checked_url, trusting
from broker.console.listing import Column, Listing, Shown
from broker.console.output import Printer, print_text
from broker.console.output_options import with_printer
from broker.contract.messages import JsonObject
from broker.contract.topics import check_name
from broker.errors import InvalidArgument
from broker.system.questions import ask_secret

__all__ = [
    "app",
]


app = typer.Typer(no_args_is_help=True)
ContextName = Annotated[
    str, typer.Argument(metavar="NAME", autocompletion=complete_contexts, help="Name of the context.")
]


class _Named(NamedTuple):
    name: str
    context: ApiContext
    is_current: bool


def _json(named: _Named) -> JsonObject:
    return {
        "name": named.name,
        "current": named.is_current,
        "server": named.context.server,
        "ca": named.context.ca,
        "certificate": named.context.certificate,
        "key": named.context.key,
    }


_CONTEXTS = Listing[_Named](
    "context",
    (
        Column("current", lambda it: "yes" if it.is_current else ""),
        Column("name", lambda it: it.name),
        Column("server", lambda it: it.context.server),
        Column("ca", lambda it: it.context.ca),
        Column("certificate", lambda it: it.context.certificate, Shown.WIDE),
        Column("key", lambda it: it.context.key, Shown.WIDE),
    ),
    name=lambda it: it.name,
    document=_json,
)


@app.command(
    epilog="Example: acm context add prod --server https://ops.example.org:8444 --token-file token --ca ca.pem"
)
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new context.")],
    server: Annotated[str, typer.Option("--server", metavar="URL", help="Where the API of the server is.")],
    token_file: Annotated[
        str | None,
        typer.Option(
            "--token-file", metavar="FILE", help="File with the access token (default: $ACM_TOKEN, else stdin)."
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option("--ca", metavar="FILE", help="Authority that the server has its certificate of, in PEM."),
    ] = None,
    certificate: Annotated[
        Path | None,
        typer.Option(
            "--certificate",
            metavar="FILE",
            help="Certificate that proves who you are, instead of a token: `acm api certificate create` makes one.",
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="FILE", help="Private key of that certificate."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a context of this name, as for a new token.")] = (
        False
    ),
) -> None:
    """Add a context: where an API is, and an access token, which is kept where no other user can read it.

    Of a certificate and its key, the paths are kept.
    """
    check_name(name, "the name of a context")
    url = checked_url(server)
    trusting(url, ca, certificate, key)
    if certificate is not None and token_file is not None:
        refuse_two_proofs("--token-file", "--certificate")
    token = _token(token_file) if certificate is None else None
    context = ApiContext(url, token, *map(_kept, (ca, certificate, key)))

    def added(contexts: Contexts) -> Contexts:
        if name in contexts.contexts and not replace:
            raise ContextError(f"There is a context {name!r} already; --replace replaces it.", code="context_exists")
        return msgspec.structs.replace(contexts, contexts={**contexts.contexts, name: context})

    contexts_file().change(added)
    print_text(f"Added {name}. To work over it: `acm context use {name}`, or --context {name} with a command.")


@app.command(epilog="Example: acm context use prod")
def use(
    name: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", autocompletion=complete_contexts, help="Name of the context."),
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="Use none: commands work on a ledger again.")] = False,
) -> None:
    """Let commands work over the API of a context unless they name another place."""
    if (name is None) is not none:
        raise InvalidArgument("Give either the name of a context, or --none.", code="name_or_none")

    def used(contexts: Contexts) -> Contexts:
        if name is not None:
            contexts.named(name)
        return msgspec.structs.replace(contexts, current=name)

    contexts_file().change(used)
    print_text("No context is in use." if name is None else f"The context {name} is in use.")


@app.command("list", epilog="Example: acm context list --json")
@with_printer(_CONTEXTS)
def list_contexts(printer: Printer) -> None:
    """List contexts, without their tokens."""
    contexts = contexts_file().read()
    printer.show_list(
        _CONTEXTS,
        lambda: [_Named(name, it, name == contexts.current) for name, it in sorted(contexts.contexts.items())],
    )


@app.command(epilog="Example: acm context show")
@with_printer()
def show(
    printer: Printer,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", autocompletion=complete_contexts, help="Name of the context (default: that in use)."
        ),
    ] = None,
) -> None:
    """Show a context, without its token."""
    contexts = contexts_file().read()
    asked = name or contexts.current
    if asked is None:
        raise ContextError("No context is in use: commands work on a ledger. Name one to show it.", code="no_context")
    found = _Named(asked, contexts.named(asked), asked == contexts.current)
    lines = [f"{asked}{' (in use)' if found.is_current else ''}: {found.context.server}"]
    if found.context.ca is not None:
        lines.append(f"authority: {found.context.ca}")
    if found.context.certificate is not None:
        lines.append(f"certificate: {found.context.certificate}, with the key {found.context.key}")
    printer.show(_json(found), "\n".join(lines))


@app.command(epilog="Example: acm context remove prod")
def remove(name: ContextName) -> None:
    """Remove a context and its token. The server accepts that until it expires or is revoked there."""

    def removed(contexts: Contexts) -> Contexts:
        contexts.named(name)
        left = {key: it for key, it in contexts.contexts.items() if key != name}
        return Contexts(None if contexts.current == name else contexts.current, left)

    contexts_file().change(removed)
    print_text(f"Removed {name}.")


def _kept(file: Path | None) -> str | None:
    return None if file is None else str(file.absolute())


def _token(file: str | None) -> str:
    if file is not None:
        return read_token(file)
    if os.environ.get("ACM_TOKEN"):
        return token_in(os.environ)
    if sys.stdin.isatty():
        return token_text(ask_secret("Access token:"))
    return token_text(sys.stdin.read())
