"""Views on stdout: complete in a pipe and in a terminal of any width."""

import re

import pytest
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from broker.console.views import print_view

STYLE = re.compile(r"\x1b\[[0-9;]*m")
NAME = "edge-gateway-with-a-name-of-forty-chars1"
CELLS = ("0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f", NAME, "restart-agent", "2026-11-28 10:00:00", "completed", "success")


def printed(capsys: pytest.CaptureFixture[str], message: str) -> list[str]:
    table = Table("id", "agent", "type", "created", "state", "outcome", "message", title="2 commands")
    for _ in range(2):
        table.add_row(*CELLS, message)
    print_view(table)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("columns", [None, "80", "40"])
def test_row_that_does_not_fit_is_one_plain_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str | None
) -> None:
    if columns is not None:
        monkeypatch.setenv("TTY_COMPATIBLE", "1")
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.setenv("TERM", "dumb")
        monkeypatch.setenv("COLUMNS", columns)
    message = "It was restarted. " * 20
    title, _, *rows = printed(capsys, message)
    assert title.rstrip() == "2 commands"
    assert rows == ["  ".join((*CELLS, message)).rstrip()] * 2


def test_long_text_is_folded_where_all_words_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    lines = [STYLE.sub("", line) for line in printed(capsys, "It was restarted. " * 20)]
    assert max(map(len, lines)) <= 200
    assert "".join(lines).count("restarted.") == 40


def test_panel_has_neither_a_border_nor_folded_lines_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    print_view(Panel(Text("It was restarted. " * 20), title=Text("restart-agent on web-01")))
    assert capsys.readouterr().out.splitlines() == ["restart-agent on web-01", ("It was restarted. " * 20).rstrip()]
