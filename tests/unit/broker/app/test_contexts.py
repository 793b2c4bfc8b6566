"""The file of contexts: as `acm context` changes it, and as it must be."""

import json
import os
from pathlib import Path
from threading import Thread

import pytest

from broker.app.contexts import ApiContext, ContextError, ContextFile, Contexts, contexts_file
from broker.cli.main import app
from broker.errors import ExposedFileError
from tests.support.cli import Called, called
from tests.support.errors import raises_code

URL = "https://ops.example.org:8444"
PAIR = ["--certificate", "/nonexistent", "--key", "/nonexistent"]


@pytest.fixture
def file(tmp_path: Path) -> ContextFile:
    return contexts_file({"XDG_CONFIG_HOME": str(tmp_path / "config")})


def context(file: ContextFile, *words: str, stdin: str | None = None, **environment: str) -> Called:
    assert file.path is not None
    home = {"XDG_CONFIG_HOME": str(file.path.parents[1]), "ACM_TOKEN": "", **environment}
    return called(app, "context", *words, environment=home, stdin=stdin)


def test_context_is_added_used_shown_listed_and_removed(file: ContextFile, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("file-secret\n")
    added = context(file, "add", "prod", "--server", f"{URL}/", "--token-file", str(tmp_path / "token"))
    assert (added.exit_code, "acm context use prod" in added.stdout) == (0, True)
    assert context(file, "add", "lab", "--server", "http://127.0.0.1:8444", stdin="typed-secret\n").exit_code == 0
    assert context(file, "add", "dev", "--server", URL, ACM_TOKEN="env-secret").exit_code == 0
    assert {name: it.token for name, it in file.read().contexts.items()} == {
        "prod": "file-secret",
        "lab": "typed-secret",
        "dev": "env-secret",
    }
    assert context(file, "show").code == "no_context"
    assert context(file, "use", "prod").exit_code == 0
    shown = json.loads(context(file, "show", "--json").stdout)
    assert shown == {"name": "prod", "current": True, "server": URL, "ca": None, "certificate": None, "key": None}
    assert [row["name"] for row in json.loads(context(file, "list", "--json").stdout)] == ["dev", "lab", "prod"]
    assert context(file, "use", "--none").exit_code == 0
    assert file.read().current is None
    context(file, "use", "dev")
    for name in ("prod", "lab", "dev"):
        assert context(file, "remove", name).exit_code == 0
    assert file.read() == Contexts()
    assert context(file, "remove", "dev").code == "unknown_context"


def test_token_is_printed_nowhere(file: ContextFile) -> None:
    calls = [context(file, "add", "prod", "--server", URL, stdin="hush")]
    calls += [context(file, *words) for words in (["use", "prod"], ["list", "-o", "wide"], ["show", "-o", "yaml"])]
    assert [it for it in calls if it.exit_code or "hush" in it.stdout + it.stderr + it.message] == []
    assert "hush" not in repr(file.read())


def test_context_of_the_same_name_is_replaced_only_if_asked_for(file: ContextFile) -> None:
    context(file, "add", "prod", "--server", URL, stdin="old")
    assert context(file, "add", "prod", "--server", URL, stdin="new").code == "context_exists"
    context(file, "add", "prod", "--server", URL, "--replace", stdin="new")
    assert file.read().contexts["prod"].token == "new"


@pytest.mark.parametrize(
    ("words", "stdin", "code"),
    [
        (["add", "a b", "--server", URL], "t", "invalid_name"),
        (["add", "prod", "--server", "http://ops.example.org"], "t", "insecure_url"),
        (["add", "prod", "--server", URL, "--ca", "/dev/null"], "t", "bad_ca_file"),
        (["add", "prod", "--server", URL, "--ca", "/nonexistent"], "t", "bad_ca_file"),
        (["add", "prod", "--server", URL, "--token-file", "/nonexistent"], "t", "unreadable_file"),
        (["add", "prod", "--server", URL], "", "malformed_token"),
        (["add", "prod", "--server", URL, "--certificate", "/dev/null"], "t", "certificate_without_key"),
        (["add", "prod", "--server", URL, "--key", "/dev/null"], "t", "certificate_without_key"),
        (["add", "prod", "--server", "http://127.0.0.1:1", *PAIR], "t", "certificate_needs_tls"),
        (["add", "prod", "--server", URL, *PAIR], "t", "bad_certificate_files"),
        (["use"], "", "name_or_none"),
        (["use", "prod", "--none"], "", "name_or_none"),
        (["use", "prod"], "", "unknown_context"),
    ],
)
def test_what_cannot_be_right_changes_nothing(file: ContextFile, words: list[str], stdin: str, code: str) -> None:
    assert context(file, *words, stdin=stdin).code == code
    assert file.read() == Contexts()


def test_file_is_for_its_user_alone(file: ContextFile) -> None:
    context(file, "add", "prod", "--server", URL, stdin="t")
    assert file.path is not None
    assert (file.path.stat().st_mode & 0o777, file.path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    file.path.chmod(0o644)
    with raises_code(ExposedFileError, "readable_by_others"):
        file.read()
    assert context(file, "list").code == "readable_by_others"


@pytest.mark.parametrize(
    "text", ["current = 1\n", "= 1", "[contexts.x]\nserver = 'https://x'\n", "unknown = 1\n", "\xff"]
)
def test_file_that_is_not_as_acm_writes_it_is_refused(file: ContextFile, text: str) -> None:
    assert file.path is not None
    file.path.parent.mkdir(parents=True)
    file.path.touch(0o600)
    file.path.write_text(text, encoding="latin-1")
    with raises_code(ContextError, "contexts_malformed"):
        file.read()


def test_any_text_is_read_as_it_was_written(file: ContextFile) -> None:
    contexts = Contexts("a.b", {"a.b": ApiContext("https://[::1]:1", '"\\t', "/with space/ü.pem")})
    file.change(lambda _: contexts)
    assert file.read() == contexts


def test_contexts_that_are_added_at_the_same_time_are_all_there(file: ContextFile) -> None:
    def add(name: str) -> None:
        file.change(lambda it: Contexts(None, {**it.contexts, name: ApiContext(URL, name)}))

    threads = [Thread(target=add, args=(f"c{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(file.read().contexts) == 8


def test_user_without_a_home_has_no_contexts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    file = contexts_file({})
    assert file.read() == Contexts()
    with raises_code(ContextError, "no_home_for_contexts"):
        file.change(lambda it: it)
