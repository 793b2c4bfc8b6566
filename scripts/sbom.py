"""Writes build/sbom.cdx.json: what is shipped, as CycloneDX 1.5 (https://cyclonedx.org), checked against its schema.

Packages, versions and hashes are those of the lock file, licences those that the installed packages name.
"""

import subprocess
import sys
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["bill", "licences_of", "main"]

ROOT = Path(__file__).resolve().parent.parent
SBOM = ROOT / "build" / "sbom.cdx.json"
_UV = str(Path(sys.executable).with_name("uv"))
_MAX_NAME_LENGTH = 80  # some packages put the whole text where the name belongs
_CHECK = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(sys.stdin.read())
sys.exit(f"{error}"[:1000] if error else 0)
"""


def licences_of(package: PackageMetadata) -> list[dict[str, Any]]:
    """Return the licences that a package's metadata names, as CycloneDX writes them."""
    expressions = package.get_all("License-Expression") or []
    if expressions:
        return [{"expression": expressions[0]}]
    classifiers = package.get_all("Classifier") or []
    names = [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License ::")]
    if not names:
        names = [said for said in package.get_all("License") or [] if 0 < len(said) <= _MAX_NAME_LENGTH]
    return [{"license": {"name": name}} for name in names]


def _with_licences(component: dict[str, Any]) -> dict[str, Any]:
    try:
        licences = licences_of(metadata(component["name"]))
    except PackageNotFoundError:  # of another platform
        licences = []
    return {**component, "licenses": licences} if licences else component


def bill() -> dict[str, Any]:
    """Return the bill of materials of what is shipped: the project and what it needs when it runs."""
    export = [_UV, "export", "--frozen", "--no-dev", "--format", "cyclonedx1.5", "--quiet"]
    said = subprocess.run(export, cwd=ROOT, check=True, capture_output=True).stdout
    written: dict[str, Any] = msgspec.json.decode(said)
    written["components"] = [_with_licences(component) for component in written["components"]]
    about = written["metadata"]
    about["component"] = {**_with_licences(about["component"]), "type": "application"}
    return written


def main() -> int:
    """Write and check the file; return the exit status."""
    content = msgspec.json.format(msgspec.json.encode(bill()), indent=2)
    SBOM.parent.mkdir(exist_ok=True)
    SBOM.write_bytes(content + b"\n")
    checker = [_UV, "run", "--quiet", "--frozen", "--isolated", "--only-group", "audit", "python", "-c", _CHECK]
    done = subprocess.run(checker, cwd=ROOT, input=content, check=False)
    if done.returncode == 0:
        print(f"{SBOM.relative_to(ROOT)} is valid CycloneDX 1.5.")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
