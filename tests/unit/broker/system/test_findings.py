"""The findings of a doctor: their JSON, their lines for people, and the error for those that failed."""

import pytest

from broker.console.views import findings_view, print_view
from broker.system.findings import ChecksFailed, Fault, Finding, Level, ok, raise_if_failed
from tests.support.errors import raises_code

AWAY = Fault("broker_away", Level.FAIL, "No broker answers.", "Start it.")
SOON = Fault("ends_soon", Level.WARN, "A certificate ends soon.", "Renew it.")
FINDINGS = [
    ok("ledger", "It answers."),
    SOON.found("certificates", "server.crt ends in 3 days.", fix="acm broker config --out /srv/acm"),
    AWAY.found("broker", "Nothing listens."),
]


def test_finding_has_the_code_level_and_fix_of_its_problem() -> None:
    assert AWAY.found("broker", "Nothing listens.") == Finding(
        "broker", Level.FAIL, "broker_away", "Nothing listens.", "Start it."
    )


def test_json_has_all_members() -> None:
    assert [finding.as_json() for finding in FINDINGS[:2]] == [
        {"check": "ledger", "level": "ok", "code": "ok", "found": "It answers.", "fix": None},
        {
            "check": "certificates",
            "level": "warn",
            "code": "ends_soon",
            "found": "server.crt ends in 3 days.",
            "fix": "acm broker config --out /srv/acm",
        },
    ]


def test_fix_is_a_line_below_each_finding_that_is_not_ok(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")  # no line is folded, so that a command can be copied
    print_view(findings_view(FINDINGS))
    assert capsys.readouterr().out.splitlines() == [
        "OK    ledger        It answers.",
        "WARN  certificates  server.crt ends in 3 days.",
        "                    Fix: acm broker config --out /srv/acm",
        "FAIL  broker        Nothing listens.",
        "                    Fix: Start it.",
    ]


def test_text_from_others_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_view(findings_view([AWAY.found("broker", "It said \x1b[2J[bold]\n", fix="\x1b]0;x")]))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "[bold]" in shown
    assert len(shown.splitlines()) == 2


def test_error_names_each_failed_check_once() -> None:
    raise_if_failed(FINDINGS[:2])
    with raises_code(ChecksFailed, "checks_failed") as caught:
        raise_if_failed([*FINDINGS, FINDINGS[-1]])
    assert str(caught.value) == "1 check failed: broker."
