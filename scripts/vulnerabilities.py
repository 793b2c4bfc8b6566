"""Asks OSV (https://osv.dev) by pip-audit what is known to be wrong with the packages of uv.lock and scripts/uv.txt.

    python -m scripts.vulnerabilities [--service URL]

Exit status: 0 when nothing is known, or every finding is answered in SECURITY.md; 1 for a finding that is not, or an
answer to what nobody finds any more; 2 when OSV could not be asked about every package: then nothing is known at all.
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

from broker.text import counted

__all__ = [
    "ANSWERED",
    "Answer",
    "AuditFailed",
    "Finding",
    "answers",
    "audit",
    "findings_in",
    "judge",
    "layers_of",
    "main",
]

ROOT = Path(__file__).resolve().parent.parent
ANSWERED = ROOT / "scripts" / "answered-vulnerabilities.toml"
UV_PIN = ROOT / "scripts" / "uv.txt"
_OSV = "https://api.osv.dev/v1/query"
_UV = str(Path(sys.executable).with_name("uv"))


class AuditFailed(Exception):
    """The packages were not all looked up; the text says why."""


@dataclass(frozen=True)
class Answer:
    """A known vulnerability that does not reach us, and why in one sentence."""

    id: str
    package: str
    reason: str


@dataclass(frozen=True)
class Finding:
    """A vulnerability of a locked package; `ids` are all the names that it goes by."""

    package: str
    version: str
    ids: frozenset[str]
    fixed_in: tuple[str, ...]

    def in_words(self) -> str:
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
    """Return what is answered."""
    return [Answer(**entry) for entry in tomllib.loads(ANSWERED.read_text(encoding="utf-8"))["answered"]]


def layers_of(requirements: str) -> list[dict[str, str]]:
    """Return the requirements in as many parts as one package has versions, each by `name==version`.

    Their conditions are left out: what is locked for another platform or Python is looked up, too.
    """
    layers: list[dict[str, str]] = []
    for block in re.findall(r"^[^\s#].*(?:\n[ \t].*)*", requirements, re.MULTILINE):
        text = re.sub(r" ; [^\\\n]*", " ", block)
        pin = re.match(r"([\w.-]+)(?:\[.*?\])?==([^\s\\]+)", text)
        if pin is None:
            raise AuditFailed(f"{block.splitlines()[0]!r} is no package of one version.")
        name = f"{_canonical(pin[1])}=={pin[2]}"
        if any(name in layer for layer in layers):
            continue
        taken = [name.partition("==")[0] in {other.partition("==")[0] for other in layer} for layer in layers]
        if all(taken):
            layers.append({})
            taken.append(False)
        layers[taken.index(False)][name] = text
    return layers


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def findings_in(report: bytes, asked: Collection[str]) -> list[Finding]:
    """Read a report of pip-audit in JSON; raises AuditFailed when it is none, or leaves out one of `asked`.

    They are written `name==version`.
    """
    try:
        packages = msgspec.json.decode(report, type=_Report).dependencies
    except msgspec.DecodeError as error:
        raise AuditFailed(f"pip-audit has written no report: {error}.") from error
    skipped = next((package for package in packages if package.skip_reason is not None), None)
    if skipped is not None or not packages:
        raise AuditFailed(skipped.skip_reason or "" if skipped else "The report names no package.")
    missing = sorted(set(asked) - {f"{_canonical(package.name)}=={package.version}" for package in packages})
    if missing:
        raise AuditFailed(f"The report leaves out {', '.join(missing)}.")
    return [
        Finding(package.name, package.version, frozenset({it.id, *it.aliases}), tuple(it.fix_versions))
        for package in packages
        for it in package.vulns
    ]


def judge(findings: Sequence[Finding], answered: Sequence[Answer]) -> list[str]:
    """Return what must be mended, a line each: findings without an answer, and answers without a finding."""
    found = {(finding.package, name) for finding in findings for name in finding.ids}
    known = {(answer.package, answer.id) for answer in answered}
    open_ones = [it for it in findings if not any((it.package, name) in known for name in it.ids)]
    stale = [it for it in answered if (it.package, it.id) not in found]
    return [
        *(f"not answered: {it.in_words()}" for it in open_ones),
        *(f"answered but not found any more, so remove it: {it.package} {it.id}" for it in stale),
    ]


def audit(service: str) -> list[Finding]:
    """Return what the service knows of what is locked, and of the uv that installs it; raises AuditFailed."""
    export = [_UV, "export", "--frozen", "--all-groups", "--no-emit-project", "--quiet"]
    exported = run(export, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    layers = layers_of(exported + UV_PIN.read_text(encoding="utf-8"))
    return [finding for layer in layers for finding in _audit(layer, service)]


def _audit(layer: Mapping[str, str], service: str) -> list[Finding]:
    with tempfile.TemporaryDirectory() as name:
        requirements, report = Path(name, "requirements.txt"), Path(name, "report.json")
        requirements.write_text("\n".join([*layer.values(), ""]), encoding="utf-8")
        argv = [_UV, "run", "--quiet", "--frozen", "--isolated", "--only-group", "audit", "pip-audit", "--strict"]
        argv += ["--vulnerability-service", "osv", "--osv-url", service, "--disable-pip", "--require-hashes"]
        argv += ["--progress-spinner", "off", "--format", "json", "--output", str(report)]
        done = run([*argv, "--requirement", str(requirements)], cwd=ROOT, check=False, capture_output=True, text=True)
        if not report.exists():  # its exit status is 1 for findings and failures alike
            last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
            raise AuditFailed(f"pip-audit has written no report: {last}")
        return findings_in(report.read_bytes(), layer)


def main(argv: Sequence[str]) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="vulnerabilities", description="Look the locked packages up in OSV.")
    parser.add_argument("--service", default=_OSV, metavar="URL", help="where OSV's API is (default: %(default)s)")
    service = parser.parse_args(argv).service
    try:
        findings = audit(service)
    except AuditFailed as error:
        print(f"vulnerabilities: nothing is known, for {service} could not be asked: {error}", file=sys.stderr)
        return 2
    answered = answers()
    problems = judge(findings, answered)
    for problem in problems:
        print(problem)
    print(
        f"{counted(len(findings), 'finding')}, {len(answered)} answered in SECURITY.md, {len(problems)} to be mended."
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
