"""Where a command works: what wins over what, and what names two places."""

from pathlib import Path

import pytest

from broker.app.contexts import ApiContext, Contexts, contexts_file
from broker.cli.exit_codes import AcmExitCode, exit_code_of
from broker.cli.main import app
from broker.cli.where import ApiChoice, chosen_api
from broker.errors import InvalidArgument
from tests.support.cli import called
from tests.support.errors import raises_code

PROD, LAB = ApiContext("https://prod", "p"), ApiContext("https://lab", "l", "/ca.pem")
AD_HOC = {"ACM_SERVER": "https://env", "ACM_TOKEN": "t"}
PAIR = {"ACM_SERVER": "https://env", "ACM_CLIENT_CERTIFICATE": "a.crt", "ACM_CLIENT_KEY": "a.key"}


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment whose user has two contexts, of which one is in use."""
    environment = {"XDG_CONFIG_HOME": str(tmp_path)}
    contexts_file(environment).change(lambda _: Contexts("prod", {"prod": PROD, "lab": LAB}))
    return environment


@pytest.mark.parametrize(
    ("given", "variables", "expected"),
    [
        (ApiChoice(), {}, PROD),
        (ApiChoice(names_ledger=True), {}, None),
        (ApiChoice(names_ledger=True), AD_HOC, None),
        (ApiChoice(), {"ACM_LEDGER": "sqlite:///x"}, None),
        (ApiChoice(), {"ACM_CONFIG": "x"}, None),
        (ApiChoice(), AD_HOC, ApiContext("https://env", "t")),
        (ApiChoice(), {**AD_HOC, "ACM_API_CA": "ca.pem"}, ApiContext("https://env", "t", "ca.pem")),
        (ApiChoice(), PAIR, ApiContext("https://env", None, None, "a.crt", "a.key")),
        (ApiChoice(certificate="b.crt", key="b.key"), AD_HOC, ApiContext("https://env", None, None, "b.crt", "b.key")),
        (ApiChoice(), {"ACM_CONTEXT": "lab"}, LAB),
        (ApiChoice(context="lab"), AD_HOC, LAB),
        (ApiChoice(context="lab"), {"ACM_LEDGER": "sqlite:///x"}, LAB),
        (ApiChoice(server="https://flag"), {"ACM_TOKEN": "t", "ACM_CONTEXT": "lab"}, ApiContext("https://flag", "t")),
    ],
)
def test_options_win_over_the_environment_and_that_over_the_context_in_use(
    environment: dict[str, str], given: ApiChoice, variables: dict[str, str], expected: ApiContext | None
) -> None:
    assert chosen_api(given, {**environment, **variables}) == expected


@pytest.mark.parametrize(
    ("given", "variables", "code"),
    [
        (ApiChoice(server="https://x", context="lab"), {}, "two_places"),
        (ApiChoice(server="https://x", names_ledger=True), {}, "two_places"),
        (ApiChoice(context="lab", names_ledger=True), {}, "two_places"),
        (ApiChoice(), {"ACM_SERVER": "https://x", "ACM_CONTEXT": "lab"}, "two_places"),
        (ApiChoice(), {"ACM_SERVER": "https://x", "ACM_LEDGER": "sqlite:///x"}, "two_places"),
        (ApiChoice(token_file="token"), {}, "server_missing"),
        (ApiChoice(ca="ca.pem", context="lab"), {}, "server_missing"),
        (ApiChoice(certificate="a.crt", context="lab"), {}, "server_missing"),
        (ApiChoice(server="https://x", certificate="a.crt", token_file="token"), {}, "two_proofs"),
        (ApiChoice(), {**PAIR, "ACM_TOKEN": "t"}, "two_proofs"),
        (ApiChoice(server="https://x", certificate="a.crt"), {"ACM_TOKEN": "t"}, "certificate_without_key"),
        (ApiChoice(server="https://x"), {}, "missing_token"),
        (ApiChoice(server="https://x"), {"ACM_TOKEN": "two words"}, "malformed_token"),
        (ApiChoice(server="https://x", token_file="/nonexistent"), {}, "unreadable_file"),
    ],
)
def test_two_places_or_half_of_one_are_refused(
    environment: dict[str, str], given: ApiChoice, variables: dict[str, str], code: str
) -> None:
    with raises_code(InvalidArgument, code) as refused:
        chosen_api(given, {**environment, **variables})
    assert exit_code_of(refused.value) is AcmExitCode.USAGE


def test_token_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    assert chosen_api(ApiChoice(server="https://x", token_file=str(tmp_path / "token")), {}) == ApiContext(
        "https://x", "secret"
    )


def test_directory_of_an_authority_names_the_servers_machine(environment: dict[str, str]) -> None:
    refused = called(app, "token", "create", "web-01", "--ca", "ca", "--context", "lab", environment=environment)
    assert (refused.exit_code, refused.code) == (AcmExitCode.USAGE, "two_places")


def test_unknown_context_names_a_similar_one(environment: dict[str, str]) -> None:
    refused = called(app, "commands", "--context", "prot", environment=environment)
    assert (refused.exit_code, refused.code) == (AcmExitCode.CONFIGURATION, "unknown_context")
    assert "Did you mean prod?" in refused.message


@pytest.mark.parametrize(
    "words",
    [
        ["prune", "--older-than", "1d"],
        ["ledger", "check"],
        ["ledger", "damaged"],
        ["ledger", "refused"],
    ],
)
def test_command_of_the_ledger_does_not_take_that_of_this_machine_instead(
    environment: dict[str, str], tmp_path: Path, words: list[str]
) -> None:
    named = ({"ACM_CONTEXT": "lab"}, {"ACM_SERVER": "https://x", "ACM_TOKEN": "t"}, {})
    for variables in named:
        refused = called(app, *words, environment={**environment, **variables})
        assert (refused.exit_code, refused.code) == (AcmExitCode.USAGE, "needs_ledger"), words
    missing = called(app, *words, "--ledger", f"sqlite:///{tmp_path}/none.db", environment=environment)
    assert missing.code == "ledger_not_found"


@pytest.mark.parametrize("words", [["server"], ["ca", "init"], ["up"], ["keys", "init"], ["keys", "rotate"]])
def test_command_of_the_servers_machine_refuses_an_api(words: list[str]) -> None:
    refused = called(app, *words, "--server", "https://x")
    assert refused.exit_code == AcmExitCode.USAGE
    assert refused.code == "needs_ledger" or "--server" in refused.stderr


def test_place_may_be_named_before_the_command(environment: dict[str, str]) -> None:
    for words in (["--context", "nosuch", "agents", "show", "web-01"], ["--context=nosuch", "send", "a", "b"]):
        assert called(app, *words, environment=environment).code == "unknown_context"
    conflict = called(app, "--context=lab", "--ledger", "sqlite://", "commands", environment=environment)
    assert conflict.code == "two_places"


def test_place_before_the_command_of_a_group_is_not_overlooked(environment: dict[str, str], tmp_path: Path) -> None:
    ledger = f"sqlite:///{tmp_path}/none.db"
    for words in (["--ledger", ledger], ["--context", "lab"]):
        refused = called(app, "agents", *words, "show", "web-01", environment=environment)
        assert (refused.exit_code, refused.code) == (AcmExitCode.USAGE, "place_before_command")
    words = ["agents", "show", "web-01", "--ledger", ledger]
    assert called(app, *words, environment={**environment, "ACM_CONTEXT": "nosuch"}).code == "ledger_not_found"
