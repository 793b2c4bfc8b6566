"""A renewal that fails with an unforeseen error."""

import threading
from datetime import timedelta
from pathlib import Path

from structlog.testing import capture_logs

from consumer.enrolment.renewal import Renewal
from consumer.enrolment.store import Enrolment, EnrolmentDirectory
from tests.support.fakes.clock import TurnedClock
from tests.unit.consumer.enrolment.test_enrolment_directory import GRANT


def test_unforeseen_error_of_a_renewal_is_reported(tmp_path: Path) -> None:
    (tmp_path / "certificate.pem").write_bytes(b"\xff")
    clock, reports, used = TurnedClock(), list[str | None](), list[Enrolment]()
    clock.turn(timedelta(days=2).total_seconds())
    renewal = Renewal(
        EnrolmentDirectory(tmp_path),
        Enrolment(tmp_path, GRANT),
        clock,
        use=used.append,
        report=reports.append,
        paused=lambda: False,
        waits=lambda: iter([60.0]),
    )
    with capture_logs() as logs:
        renewal.step()
        for thread in threading.enumerate():
            if thread.name == "acm-renewal":
                thread.join(30)
        renewal.step()
    assert (used, len(reports)) == ([], 1)
    assert "UnicodeDecodeError" in str(reports[0])
    assert "renewal_raised" in [entry["event"] for entry in logs]
