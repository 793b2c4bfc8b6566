"""Makes a release of this tree that uses this machine's virtual environment, for the demonstration and the tests.

A release for other machines contains its libraries; docs/upgrades.md explains how to make one.
"""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """#!{python} -I
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))
from {module} import main

main()
"""


def make_release(directory: Path, version: str, module: str = "consumer.cli.main") -> Path:
    """Fill a new directory with the agent as another version; `module` has its main function."""
    library = directory / "lib"
    for package in ("broker", "consumer"):
        shutil.copytree(ROOT / package, library / package, ignore=shutil.ignore_patterns("__pycache__"))
    metadata = library / f"agent_command_manager-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: agent-command-manager\nVersion: {version}\n")
    write_program(directory, PROGRAM.format(python=sys.executable, module=module))
    return directory


def write_program(directory: Path, text: str) -> None:
    """Write the release's program, bin/acm-agent."""
    program = directory / "bin" / "acm-agent"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(text)
    program.chmod(0o755)
