"""Partly received files, and those that were never received to the end."""

from pathlib import Path

from structlog.testing import capture_logs

from consumer.system.partial_files import drop_stale_files
from tests.support.makers import NOW


def test_stale_file_that_cannot_be_dropped_is_only_a_warning(tmp_path: Path) -> None:
    (tmp_path / "gone.part").symlink_to("missing")
    with capture_logs() as logs:
        drop_stale_files(tmp_path, NOW)
    assert [entry["event"] for entry in logs] == ["stale_files_not_dropped"]
