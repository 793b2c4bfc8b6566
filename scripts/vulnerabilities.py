"""Looks up the packages of uv.lock and scripts/uv.txt in OSV (https://osv.dev), with pip-audit.

    python -m scripts.vulnerabilities [--service URL]

Exit status: 0 if there are no findings, or SECURITY.md assesses each; 1 for a finding without an assessment, or an
assessment without a finding; 2 if not every package could be looked up: then the result is unknown.
"""

import argparse
import re
import sys
import tempfile
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import run

import msgspec

from broker.errors import CodedError
from broker.text import counted

__all__ = [
    "ANSWERED",
    "Answer",
    "AuditFailed",
    "Finding",
    "answers",
    "audit",
    "findings_in",
    "main",
    "open_problems",
    "split_by_version",
]

ROOT = Path(__file__).resolve().parent.parent
ANSWERED = ROOT / "scripts" / "answered-vulnerabilities.toml"
UV_PIN = ROOT / "scripts" / "uv.txt"
_OSV = "https://api.osv.dev/v1/query"
_UV = str(Path(sys.executable).with_name("uv"))


class AuditFailed(CodedError):
    """Not every package could be looked up; the text is the reason."""

    code = "audit_failed"


@dataclass(frozen=True)
class Answer:
    """A known vulnerability that does not affect this project, and the reason in one sentence."""

    id: str
    package: str
    reason: str


@dataclass(frozen=True)
class Finding:
    """A vulnerability of a locked package; `ids` are all its identifiers."""

    package: str
    version: str
    ids: frozenset[str]
    fixed_in: tuple[str, ...]

    def summary(self) -> str:
        """Return the finding in one line."""
        fixed = f"fixed in {', '.join(self.fixed_in)}" if self.fixed_in else "no fix is known"
        return f"{self.package} {self.version}: {', '.join(sorted(self.ids))}; {fixed}"


class _Vulnerability(msgspec.Struct):
    id: str
    aliases: list[str] = []
    fix_versions: list[str] = []


class _Package(msgspec.Struct):
    name: str
    version: str = ""
    vulns: list[_Vulnerability] = []
    skip_reason: str | None = None


class _Report(msgspec.Struct):
    dependencies: list[_Package]


def answers() -> list[Answer]:
    """Return the assessed vulnerabilities."""
    return [Answer(**entry) for entry in tomllib.loads(ANSWERED.read_text(encoding="utf-8"))["answered"]]


def split_by_version(requirements: str) -> list[dict[str, str]]:
    """Split requirements, by `name==version`, into parts that each have at most one version of a package.

    Their markers are dropped: packages locked for another platform or Python are looked up, too. Raises AuditFailed.
    """
    parts: list[dict[str, str]] = []
    for block in re.findall(r"^[^\s#].*(?:\n[ \t].*)*", requirements, re.MULTILINE):
        text = re.sub(r" ; [^\\\n]*", " ", block)
        pin = re.match(r"([\w.-]+)(?:\[.*?\])?==([^\s\\]+)", text)
        if pin is None:
            raise AuditFailed(f"{block.splitlines()[0]!r} is not a pinned package.", code="not_pinned")
        name = f"{_canonical(pin[1])}=={pin[2]}"
        if any(name in part for part in parts):
            continue
        taken = [name.partition("==")[0] in {other.partition("==")[0] for other in part} for part in parts]
        if all(taken):
            parts.append({})
            taken.append(False)
        parts[taken.index(False)][name] = text
    return parts


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def findings_in(report: bytes, asked: Collection[str]) -> list[Finding]:
    """Return the findings in a JSON report of pip-audit. `asked` are the packages, as `name==version`.

    Raises AuditFailed if it is not a report, or lacks one of the packages.
    """
    try:
        packages = msgspec.json.decode(report, type=_Report).dependencies
    except msgspec.DecodeError as error:
        raise AuditFailed(f"The report of pip-audit cannot be read: {error}.", code="report_unreadable") from error
    skipped = next((package for package in packages if package.skip_reason is not None), None)
    if skipped is not None or not packages:
        reason = skipped.skip_reason or "" if skipped else "The report names no package."
        raise AuditFailed(reason, code="package_skipped" if skipped else "report_empty")
    missing = sorted(set(asked) - {f"{_canonical(package.name)}=={package.version}" for package in packages})
    if missing:
        raise AuditFailed(f"The report lacks {', '.join(missing)}.", code="report_incomplete")
    return [
        Finding(package.name, package.version, frozenset({it.id, *it.aliases}), tuple(it.fix_versions))
        for package in packages
        for it in package.vulns
    ]


def open_problems(findings: Sequence[Finding], answered: Sequence[Answer]) -> list[str]:
    """Return the open problems, one line each: findings without an answer, and answers without a finding."""
    found = {(finding.package, name) for finding in findings for name in finding.ids}
    known = {(answer.package, answer.id) for answer in answered}
    open_ones = [it for it in findings if not any((it.package, name) in known for name in it.ids)]
    stale = [it for it in answered if (it.package, it.id) not in found]
    return [
        *(f"not answered: {it.summary()}" for it in open_ones),
        *(f"answered but not found any more, remove the answer: {it.package} {it.id}" for it in stale),
    ]


def audit(service: str) -> list[Finding]:
    """Return the findings for all locked packages and for uv. Raises AuditFailed."""
    export = [_UV, "export", "--frozen", "--all-groups", "--no-emit-project", "--quiet"]
    exported = run(export, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    parts = split_by_version(exported + UV_PIN.read_text(encoding="utf-8"))
    return [finding for part in parts for finding in _audit(part, service)]


def _audit(part: Mapping[str, str], service: str) -> list[Finding]:
    with tempfile.TemporaryDirectory() as name:
        requirements, report = Path(name, "requirements.txt"), Path(name, "report.json")
        requirements.write_text("\n".join([*part.values(), ""]), encoding="utf-8")
        argv = [_UV, "run", "--quiet", "--frozen", "--isolated", "--only-group", "audit", "pip-audit", "--strict"]
        argv += ["--vulnerability-service", "osv", "--osv-url", service, "--disable-pip", "--require-hashes"]
        argv += ["--progress-spinner", "off", "--format", "json", "--output", str(report)]
        done = run([*argv, "--requirement", str(requirements)], cwd=ROOT, check=False, capture_output=True, text=True)
        if not report.exists():  # its exit status is 1 for findings and failures alike
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            raise AuditFailed(f"pip-audit did not write a report: {last}", code="no_report")
        return findings_in(report.read_bytes(), part)


def main(argv: Sequence[str]) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="vulnerabilities", description="Look the locked packages up in OSV.")
    parser.add_argument("--service", default=_OSV, metavar="URL", help="URL of OSV's API (default: %(default)s)")
    service = parser.parse_args(argv).service
    try:
        findings = audit(service)
    except AuditFailed as error:
        print(f"vulnerabilities: the result is unknown, the lookup at {service} failed: {error}", file=sys.stderr)
        return 2
    answered = answers()
    problems = open_problems(findings, answered)
    for problem in problems:
        print(problem)
    print(f"{counted(len(findings), 'finding')}, {len(answered)} answered in SECURITY.md, {len(problems)} to be fixed.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
