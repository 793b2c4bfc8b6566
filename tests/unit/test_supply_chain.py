"""What is installed is what was locked, and what is known to be wrong with it is answered."""

import re
import tomllib
from email.message import Message
from pathlib import Path

import msgspec
import pytest

from scripts.sbom import licences_of
from scripts.vulnerabilities import Answer, AuditFailed, Finding, answers, findings_in, judge

ROOT = Path(__file__).resolve().parents[2]
INSTALLERS = [*(ROOT / "scripts").glob("*.sh"), *(ROOT / "docker").glob("*.Dockerfile"), ROOT / "docs" / "upgrades.md"]
CVE, GHSA = "CVE-2025-69872", "GHSA-w8v5-vhqr-4h9v"


def commands_of(path: Path) -> list[str]:
    """Return the lines of a file, those that go on joined."""
    return re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8")).splitlines()


def test_whatever_is_installed_has_its_hash_checked() -> None:
    lines = [line for path in INSTALLERS for line in commands_of(path)]
    installs = [part for line in lines for part in line.split("&&") if re.search(r"pip\"? (install|download)", part)]
    ours = [part for part in installs if "--no-deps" in part]
    assert len(installs) > len(ours) > 0
    assert [part for part in installs if part not in ours and "--require-hashes" not in part] == []
    assert [line for line in lines if re.search(r"uv\"? sync", line) and "--frozen" not in line] == []
    assert [line for line in lines if re.search(r"uv\"? build", line) and "--no-build-isolation" not in line] == []


def test_every_file_in_the_lock_file_has_a_hash() -> None:
    locked = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    others = [package for package in locked if package["source"] != {"editable": "."}]
    files = [file for package in others for file in [*package.get("wheels", []), package.get("sdist")] if file]
    assert len(files) > len(others)
    assert [file["url"] for file in files if not file.get("hash", "").startswith("sha256:")] == []
    assert {package["source"]["registry"] for package in others} == {"https://pypi.org/simple"}


def test_the_project_is_built_by_what_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    locked = {package["name"] for package in tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]}
    assert set(project["build-system"]["requires"]) <= locked
    assert project["tool"]["uv"]["no-build-isolation-package"] == [project["project"]["name"]]


def test_each_answer_stands_in_security_md_and_the_other_way_round() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    sections = re.findall(r"^### ((?:CVE|GHSA|PYSEC)-\S+): (\S+)", text, re.MULTILINE)
    assert sections == [(answer.id, answer.package) for answer in answers()]
    assert all(answer.reason for answer in answers())


def test_diskcache_is_imported_by_the_command_store_alone() -> None:
    sources = [path for package in ("broker", "consumer") for path in (ROOT / package).rglob("*.py")]
    importers = [path for path in sources if re.search(r"^\s*(from|import) (diskcache|pickle)", path.read_text(), re.M)]
    assert importers == [ROOT / "consumer" / "command_store.py"]


def test_findings_and_answers_must_match() -> None:
    finding = Finding("diskcache", "5.6.3", frozenset({CVE, GHSA}), ())
    assert judge([finding], [Answer(CVE, "diskcache", "why")]) == []
    assert judge([finding], []) == [f"not answered: diskcache 5.6.3: {CVE}, {GHSA}; no fix is known"]
    other = Answer(CVE, "other", "why")
    assert len(judge([finding], [other])) == 2
    assert judge([], [other]) == [f"answered but not found any more, so remove it: other {CVE}"]


def test_a_report_is_read_with_all_names_of_a_finding() -> None:
    vulnerability = {"id": GHSA, "aliases": [CVE], "fix_versions": ["6"], "description": "It unpickles."}
    packages = [{"name": "httpx", "version": "1", "vulns": []}, {"name": "x", "version": "5", "vulns": [vulnerability]}]
    report = msgspec.json.encode({"dependencies": packages, "fixes": []})
    assert findings_in(report) == [Finding("x", "5", frozenset({CVE, GHSA}), ("6",))]


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ({"dependencies": [{"name": "x", "skip_reason": "x was not found"}]}, "x was not found"),
        ({"dependencies": []}, "names no package"),
        ({}, "has written no report"),
    ],
)
def test_a_report_that_leaves_something_out_is_no_report(report: dict[str, object], said: str) -> None:
    with pytest.raises(AuditFailed, match=said):
        findings_in(msgspec.json.encode(report))


@pytest.mark.parametrize(
    ("members", "licences"),
    [
        ([("License-Expression", "MIT OR Apache-2.0"), ("License", "x")], [{"expression": "MIT OR Apache-2.0"}]),
        ([("Classifier", "License :: OSI Approved :: MIT License")], [{"license": {"name": "MIT License"}}]),
        ([("License", "BSD")], [{"license": {"name": "BSD"}}]),
        ([("License", "Permission is hereby granted" * 9)], []),
        ([], []),
    ],
)
def test_licences_are_those_that_a_package_names(members: list[tuple[str, str]], licences: list[object]) -> None:
    package = Message()
    for name, value in members:
        package[name] = value
    assert licences_of(package) == licences  # type: ignore[arg-type] - what importlib.metadata gives is a Message
