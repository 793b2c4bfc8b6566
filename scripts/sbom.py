"""Writes build/sbom.cdx.json: what is shipped, as CycloneDX 1.5 (https://cyclonedx.org), validated by its schema.

Packages, versions and hashes come from the lock file, licences from the metadata of the installed packages.
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
_MAX_NAME_LENGTH = 80  # some packages have the whole licence text in this field
_CHECK = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(sys.stdin.read())
sys.exit(f"{error}"[:1000] if error else 0)
"""


def licences_of(package: PackageMetadata) -> list[dict[str, Any]]:
    """Return the licences in a package's metadata, in the form of CycloneDX."""
    expressions = package.get_all("License-Expression") or []
    if expressions:
        return [{"expression": expressions[0]}]
    classifiers = package.get_all("Classifier") or []
    names = [line.rpartition(" :: ")[2] for line in classifiers if line.startswith("License ::")]
    if not names:
        names = [name for name in package.get_all("License") or [] if 0 < len(name) <= _MAX_NAME_LENGTH]
    return [{"license": {"name": name}} for name in names]


def _with_licences(component: dict[str, Any]) -> dict[str, Any]:
    try:
        licences = licences_of(metadata(component["name"]))
    except PackageNotFoundError:  # for another platform
        licences = []
    return {**component, "licenses": licences} if licences else component


def bill() -> dict[str, Any]:
    """Return the bill of materials: the project and its runtime dependencies."""
    export = [_UV, "export", "--frozen", "--no-dev", "--format", "cyclonedx1.5", "--quiet"]
    exported = subprocess.run(export, cwd=ROOT, check=True, capture_output=True).stdout
    document: dict[str, Any] = msgspec.json.decode(exported)
    document["components"] = [_with_licences(component) for component in document["components"]]
    metadata_section = document["metadata"]
    metadata_section["component"] = {**_with_licences(metadata_section["component"]), "type": "application"}
    return document


def main() -> int:
    """Write and validate the file; return the exit status."""
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
