"""Where a command works: on a ledger, or over the API of a server elsewhere."""

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from broker.app.contexts import ApiContext, ContextFile, contexts_file
from broker.cli.completions import complete_contexts
from broker.console.output_options import option
from broker.errors import InvalidArgument
from broker.system.text_files import NotText, read_text

__all__ = [
    "ApiChoice",
    "api_options",
    "chosen_api",
    "needs_ledger",
    "read_token",
    "refuse_api",
    "refuse_two_proofs",
    "token_in",
    "token_text",
]


_PANEL = "Over an API"
_SERVER, _CONTEXT, _TOKEN = "ACM_SERVER", "ACM_CONTEXT", "ACM_TOKEN"
_CA, _CERTIFICATE, _KEY = "ACM_API_CA", "ACM_CLIENT_CERTIFICATE", "ACM_CLIENT_KEY"
_PARAMETERS = {
    "server": "server",
    "context_name": "context",
    "token_file": "token_file",
    "api_ca": "ca",
    "client_certificate": "certificate",
    "client_key": "key",
}
_OF_LEDGER = ("ACM_LEDGER", "ACM_CONFIG")


@dataclass(frozen=True)
class ApiChoice:
    """The options that name an API, as they were given; `names_ledger`: others name a ledger."""

    server: str | None = None
    context: str | None = None
    token_file: str | None = None
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    names_ledger: bool = False

    @classmethod
    def take(cls, values: dict[str, Any], *, names_ledger: bool) -> "ApiChoice":
        """Remove the values of the options from those of a command."""
        given = {member: values.pop(parameter, None) for parameter, member in _PARAMETERS.items()}
        return cls(**given, names_ledger=names_ledger)

    def refuse_before(self, command: str) -> None:
        """Raise InvalidArgument if any was given before the command of a group, which does not see it."""
        if self != ApiChoice():
            raise InvalidArgument(
                f"Write --server, --context, --ledger and --config after `{command}`.", code="place_before_command"
            )


def api_options(*, hidden: bool) -> list[inspect.Parameter]:
    """Return the options that name an API; `hidden` for a command that only refuses them."""

    def declared(flag: str, metavar: str, text: str, **more: Any) -> Any:
        declaration = typer.Option(flag, metavar=metavar, help=text, hidden=hidden, rich_help_panel=_PANEL, **more)
        return Annotated[str | None, declaration]

    return [
        option("server", declared("--server", "URL", f"Work over the API there (default: ${_SERVER}).")),
        option(
            "context_name",
            declared(
                "--context",
                "NAME",
                f"Work over the API of this context (default: ${_CONTEXT}, else that of `acm context use`).",
                autocompletion=complete_contexts,
            ),
        ),
        option("token_file", declared("--token-file", "FILE", f"Access token for --server (default: ${_TOKEN}).")),
        option(
            "api_ca",
            declared("--api-ca", "FILE", f"Authority that --server has its certificate of (default: ${_CA})."),
        ),
        option(
            "client_certificate",
            declared(
                "--client-certificate",
                "FILE",
                f"Certificate for --server, instead of a token (default: ${_CERTIFICATE}).",
            ),
        ),
        option("client_key", declared("--client-key", "FILE", f"Private key of that certificate (default: ${_KEY}).")),
    ]


# docs/acm.md: "What names the place"
def chosen_api(
    given: ApiChoice,
    environment: Mapping[str, str] = os.environ,
    file: Callable[[Mapping[str, str]], ContextFile] = contexts_file,
) -> ApiContext | None:
    """Return the API that a command works over, or None if it works on a ledger.

    Options win over the environment, and that over the context in use. Raises InvalidArgument for two places at once,
    and as ContextFile does.
    """
    named = [flag for flag, value in (("--server", given.server), ("--context", given.context)) if value]
    if len(named) > 1 or (named and given.names_ledger):
        _refuse_two(*named[:2], "an option of the server's machine, such as --ledger")
    server, context = given.server, given.context
    if not named and not given.names_ledger:
        server, context = _in_environment(environment)
    if not server and (given.token_file or given.ca or given.certificate or given.key):
        raise InvalidArgument(
            "--token-file, --api-ca, --client-certificate and --client-key belong to --server, which is missing.",
            code="server_missing",
        )
    if server:
        return _api_at(server, given, environment)
    if context:
        return file(environment).read().named(context)
    if given.names_ledger or any(map(environment.get, _OF_LEDGER)):
        return None
    return _in_use(file, environment)


def refuse_api(given: ApiChoice, *, finds_ledger: bool) -> None:
    """Raise InvalidArgument if an API is named for a command that works on the ledger itself.

    One that `finds_ledger` must not take the ledger of this machine where its user has an API in mind, either.
    """
    if given.server or given.context or (finds_ledger and chosen_api(given) is not None):
        raise needs_ledger("This command works")


def needs_ledger(what: str) -> InvalidArgument:
    """Return the error for what works on the ledger alone, where an API was named; `what` begins its sentence."""
    return InvalidArgument(
        f"{what} on the ledger and files of the server's machine, and an API is named, by --server, --context, "
        f"{_SERVER}, {_CONTEXT} or `acm context use`: run it there, with --ledger or --config.",
        code="needs_ledger",
    )


def read_token(path: str) -> str:
    """Return the access token in a file. Raises InvalidArgument."""
    try:
        return token_text(read_text(Path(path)))
    except (OSError, NotText) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidArgument(f"The token in {path} cannot be read: {reason}.", code="unreadable_file") from error


def token_in(environment: Mapping[str, str]) -> str:
    """Return the access token in the environment. Raises InvalidArgument."""
    if not environment.get(_TOKEN):
        raise InvalidArgument(
            f"There is no access token: put it into a file for --token-file, or into {_TOKEN}, or give a certificate, "
            "by --client-certificate and --client-key. On the server, `acm api token create` makes a token.",
            code="missing_token",
        )
    return token_text(environment[_TOKEN])


def token_text(text: str) -> str:
    """Return a text as an access token, without the blanks around it. Raises InvalidArgument."""
    token = text.strip()
    if not token or not (token.isascii() and token.isprintable()) or " " in token:
        raise InvalidArgument(
            "This is not an access token: it is one line of letters, digits and signs.", code="malformed_token"
        )
    return token


def _in_environment(environment: Mapping[str, str]) -> tuple[str | None, str | None]:
    named = [name for name in (_SERVER, _CONTEXT) if environment.get(name)]
    of_ledger = [name for name in _OF_LEDGER if environment.get(name)]
    if len(named) > 1 or (named and of_ledger):
        _refuse_two(*named, *of_ledger)
    return environment.get(_SERVER), environment.get(_CONTEXT)


def _api_at(server: str, given: ApiChoice, environment: Mapping[str, str]) -> ApiContext:
    """Return the API at a URL, with the proof that an option names, else with that in the environment."""
    ca = given.ca or environment.get(_CA)
    certificate, key = given.certificate, given.key
    if not (given.token_file or certificate or key):
        certificate, key = environment.get(_CERTIFICATE) or None, environment.get(_KEY) or None
        if certificate and environment.get(_TOKEN):
            refuse_two_proofs(_TOKEN, _CERTIFICATE)
    elif given.token_file and (certificate or key):
        refuse_two_proofs("--token-file", "--client-certificate")
    if certificate and key:
        return ApiContext(server, None, ca, certificate, key)
    if certificate or key:
        raise InvalidArgument(
            "A certificate and its key are given together: one of them is missing.", code="certificate_without_key"
        )
    return ApiContext(server, read_token(given.token_file) if given.token_file else token_in(environment), ca)


def _in_use(file: Callable[[Mapping[str, str]], ContextFile], environment: Mapping[str, str]) -> ApiContext | None:
    contexts = file(environment).read()
    return None if contexts.current is None else contexts.named(contexts.current)


def refuse_two_proofs(first: str, second: str) -> NoReturn:
    """Raise InvalidArgument for a token and a certificate at once."""
    raise InvalidArgument(f"{first} and {second} say twice who you are: leave one of them out.", code="two_proofs")


def _refuse_two(first: str, second: str, *_more: str) -> NoReturn:
    raise InvalidArgument(
        f"{first} and {second} name two places for one command: leave one of them out.", code="two_places"
    )
