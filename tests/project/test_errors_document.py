"""docs/errors.md is written from the sources."""

from pathlib import Path

import pytest

from scripts.errors import DOCUMENT, rendered

SOURCES = {
    "broker/__init__.py": "",
    "broker/errors.py": '''
class CodedError(Exception):
    """The root."""

    code = "error"

class BrokerError(CodedError):
    """The root of broker.

    More of it.
    """
''',
    "broker/contract/states.py": '''
class ErrorCode(StrEnum):
    FAILED = "failed"
    """It failed."""
''',
    "broker/cli/exit_codes.py": '''
class AcmExitCode(IntEnum):
    OK = 0
    """Success."""
''',
    "consumer/__init__.py": "",
    "consumer/cli/exit_codes.py": '''
class AgentExitCode(IntEnum):
    USAGE = 2
    """Wrong usage."""
''',
    "consumer/store.py": '''
from broker.errors import BrokerError as Base

class StoreError(Base):
    """The store failed."""

    code = "store_error"

class _Full(StoreError):
    """The disk is full."""

class NotAnError(ValueError):
    code = "other"

def store(path, size, full):
    raise _Full(f"{path} has no room for {size + 1} bytes"
                " | free some.", code="disk_full" if full else "quota")
''',
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in SOURCES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_document_lists_classes_specific_codes_and_exit_codes(root: Path) -> None:
    lines = rendered(root).splitlines()
    for row in (
        "| `failed` | It failed. |",
        "| 0 | Success. |",
        "| 2 | Wrong usage. |",
        "| `error` | `BrokerError` (CodedError) | The root of broker. | `broker.errors` |",
        "| `store_error` | `StoreError` (BrokerError) | The store failed. | `consumer.store` |",
        r"| `disk_full` | `_Full` | {path} has no room for … bytes \| free some. | `consumer.store` |",
        r"| `quota` | `_Full` | {path} has no room for … bytes \| free some. | `consumer.store` |",
    ):
        assert row in lines
    assert not any("NotAnError" in line or "The disk is full." in line for line in lines)


def test_enumeration_member_without_docstring_is_an_error(root: Path) -> None:
    (root / "broker/cli/exit_codes.py").write_text("class AcmExitCode(IntEnum):\n    OK = 0\n")
    with pytest.raises(ValueError, match=r"AcmExitCode\.OK"):
        rendered(root)


def test_document_is_current() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == rendered(), "docs/errors.md is not current: run `make errors`"
