"""The commands of acm: their list, and the libraries that their modules load."""

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from broker.app.factories import open_database
from broker.cli.main import app

_HEAVY = ("cryptography", "httpx", "paho", "sqlalchemy", "starlette", "uvicorn")


def loaded_by(*words: str) -> set[str]:
    """Return the heavy libraries that are loaded after `acm WORDS` in a fresh interpreter."""
    code = (
        "import sys\n"
        "from broker.cli.main import main\n"
        f"sys.argv = ['acm', *{words!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"print(*{{name for name in {_HEAVY!r} if name in sys.modules}}, file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("words", "libraries"),
    [
        (["--help"], set()),
        (["types"], set()),
        (["show", "x"], {"sqlalchemy"}),
        (["agents"], {"sqlalchemy"}),
        (["send", "--all", "restart-agent"], {"sqlalchemy"}),
    ],
)
def test_command_loads_only_the_libraries_that_it_uses(
    words: list[str], libraries: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACM_LEDGER", f"sqlite:///{tmp_path}/ledger.db")
    open_database(f"sqlite:///{tmp_path}/ledger.db").close()
    assert loaded_by(*words) == libraries


def test_list_of_commands_has_the_first_sentence_of_each() -> None:
    group = typer.main.get_command(app)
    for name, listed in group.commands.items():  # type: ignore[attr-defined]
        full = group.load(name).help  # type: ignore[attr-defined]
        assert full.startswith(listed.help.rstrip(".")), name
