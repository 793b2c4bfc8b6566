"""Everything installed is locked and has its hash checked; known vulnerabilities are assessed."""

import re
import tomllib
from email.message import Message
from pathlib import Path

import msgspec
import pytest

from scripts.sbom import licences_of
from scripts.vulnerabilities import (
    UV_PIN,
    Answer,
    AuditFailed,
    Finding,
    answers,
    findings_in,
    open_problems,
    split_by_version,
)
from tests.support.errors import raises_code

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [*(ROOT / "scripts").glob("*.sh"), *(ROOT / "docker").glob("*.Dockerfile"), ROOT / "Makefile"]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*/*.md")]
# Packages that are built here have no known hash.
OURS = {".", '"$PARTS"/*.whl', "/wheels/agent_command_manager-*.whl", "build/plug-ins/acm_rotate_logs-*.whl"}
PIP = re.compile(r"\bpip[\d.]*\"?\s(?:.*\s)?(?:install|download|wheel)\s(.*)")
UV = re.compile(r"\buv\"?\s(?:-\S+\s+)*(\w+)(.*)")
WITHOUT_HASHES = re.compile(r"\b(?:pipx|uvx|easy_install)\s|\buv\"?\s(?:-\S+\s+)*(?:tool|pip|add)\s+(?!compile)")
UV_NEEDS = {"sync": "--frozen", "run": "--frozen", "export": "--frozen", "build": "--no-build-isolation"}
CVE, GHSA = "CVE-2025-69872", "GHSA-w8v5-vhqr-4h9v"


def commands_in(text: str) -> list[str]:
    """Return each command of a script or a document, those on several lines joined, without comments."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return [part.strip() for part in re.split(r"&&|[;|`\n]", re.sub(r"(?m)(^|\s)# .*$", "", joined))]


def is_checked(command: str) -> bool:
    """Return whether everything that the command installs has its hash checked, or is built here."""
    if WITHOUT_HASHES.search(command):
        return False
    if pip := PIP.search(command):
        words = re.sub(r"--target \S+", "", pip[1]).split()
        isolated = "--no-build-isolation" in words or "--no-index" in words
        ours = {word for word in words if not word.startswith("-")} <= OURS
        return "--require-hashes" in words or (ours and isolated and "--no-deps" in words)
    uv = UV.search(command)
    return uv is None or UV_NEEDS.get(uv[1], "") in uv[2]


def test_every_install_command_checks_hashes() -> None:
    commands = [command for path in SCRIPTS + DOCUMENTS for command in commands_in(path.read_text(encoding="utf-8"))]
    assert sum(bool(PIP.search(command)) for command in commands) > 8
    assert [command for command in commands if not is_checked(command)] == []


def test_what_users_start_is_compiled_when_it_is_installed() -> None:
    paths = [ROOT / "scripts/install.sh", *(ROOT / "docker").glob("*.Dockerfile")]
    installing = [it for path in paths for it in commands_in(path.read_text(encoding="utf-8")) if "pip" in it]
    installing = [command for command in installing if PIP.search(command)]
    assert len(installing) == 6
    assert [command for command in installing if "--compile" not in command] == []


@pytest.mark.parametrize(
    "command",
    [
        "RUN pip3 install evil",
        "RUN pip install --no-deps evil",
        "pip install --no-index --no-deps ./x.whl",
        "pip install --no-deps .",
        "RUN pip --quiet install evil",
        "python3 -m pip --log x install evil",
        "pip install evil; pip install --require-hashes -r r",
        "pip install evil # --require-hashes",
        "RUN pip install evil | tee --require-hashes",
        "pipx install evil",
        "uv tool install evil",
        '"$BIN/uv" pip install evil',
        "uv --quiet add evil",
        "uvx evil",
        "uv sync",
        "uv build --wheel",
        "Install it (`pip install ./examples/rotate-logs`).",
    ],
)
def test_install_command_without_hashes_is_found(command: str) -> None:
    assert not all(is_checked(part) for part in commands_in(command))


def test_every_file_in_the_lock_file_has_a_hash() -> None:
    locked = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    others = [package for package in locked if package["source"] != {"editable": "."}]
    files = [file for package in others for file in [*package.get("wheels", []), package.get("sdist")] if file]
    assert len(files) > len(others)
    assert [file["url"] for file in files if not file.get("hash", "").startswith("sha256:")] == []
    assert {package["source"]["registry"] for package in others} == {"https://pypi.org/simple"}


def test_build_requirements_are_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    locked = {package["name"] for package in tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]}
    assert set(project["build-system"]["requires"]) <= locked
    assert project["tool"]["uv"]["no-build-isolation-package"] == [project["project"]["name"]]


def test_answers_and_security_md_agree() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    sections = re.findall(r"^### ((?:CVE|GHSA|PYSEC)-\S+): (\S+)", text, re.MULTILINE)
    assert sections == [(answer.id, answer.package) for answer in answers()]
    assert all(answer.reason for answer in answers())


def test_findings_and_answers_must_match() -> None:
    finding = Finding("diskcache", "5.6.3", frozenset({CVE, GHSA}), ())
    assert open_problems([finding], [Answer(CVE, "diskcache", "why")]) == []
    assert open_problems([finding], []) == [f"not answered: diskcache 5.6.3: {CVE}, {GHSA}; no fix is known"]
    other = Answer(CVE, "other", "why")
    assert len(open_problems([finding], [other])) == 2
    assert open_problems([], [other]) == [f"answered but not found any more, remove the answer: other {CVE}"]


def test_finding_has_all_identifiers_of_the_report() -> None:
    vulnerability = {"id": GHSA, "aliases": [CVE], "fix_versions": ["6"], "description": "It unpickles."}
    packages = [{"name": "httpx", "version": "1", "vulns": []}, {"name": "x", "version": "5", "vulns": [vulnerability]}]
    report = msgspec.json.encode({"dependencies": packages, "fixes": []})
    assert findings_in(report, {"httpx==1", "x==5"}) == [Finding("x", "5", frozenset({CVE, GHSA}), ("6",))]


@pytest.mark.parametrize(
    ("report", "code", "named"),
    [
        ({"dependencies": [{"name": "x", "skip_reason": "x was not found"}]}, "package_skipped", "x was not found"),
        ({"dependencies": []}, "report_empty", "package"),
        ({"dependencies": [{"name": "x", "version": "1"}]}, "report_incomplete", "httpx==1"),
        ({}, "report_unreadable", "dependencies"),
    ],
)
def test_incomplete_report_is_an_error(report: dict[str, object], code: str, named: str) -> None:
    with raises_code(AuditFailed, code) as caught:
        findings_in(msgspec.json.encode(report), {"httpx==1"})
    assert named in str(caught.value)


def test_packages_for_other_platforms_and_second_versions_are_looked_up() -> None:
    text = """
# by uv
a==1 ; sys_platform == 'win32' \\
    --hash=sha256:0
a==2 \\
    --hash=sha256:1 \\
    --hash=sha256:2
B_c[extra]==3 \\
    --hash=sha256:3
a==1 \\
    --hash=sha256:0
"""
    first, second = split_by_version(text)
    assert (list(first), list(second)) == (["a==1", "b-c==3"], ["a==2"])
    assert first["a==1"].split() == ["a==1", "\\", "--hash=sha256:0"]
    with raises_code(AuditFailed, "not_pinned"):
        split_by_version("a>=1")


def test_uv_itself_is_looked_up() -> None:
    (layer,) = split_by_version(UV_PIN.read_text(encoding="utf-8"))
    assert [pin.partition("==")[0] for pin in layer] == ["uv"]


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
def test_licences_come_from_package_metadata(members: list[tuple[str, str]], licences: list[object]) -> None:
    package = Message()
    for name, value in members:
        package[name] = value
    assert licences_of(package) == licences  # type: ignore[arg-type] - what importlib.metadata gives is a Message
