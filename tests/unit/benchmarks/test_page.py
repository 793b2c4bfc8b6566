"""The benchmark of the page reads, by plain statements, what the page shows."""

from pathlib import Path

import pytest

from benchmarks.page.raw import RAW_QUERIES, reading
from benchmarks.page.staged import staged


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory: Path = tmp_path_factory.mktemp("page")
    return f"sqlite:///{directory}/ledger.db"


def test_raw_queries_find_what_was_staged(url: str) -> None:
    with staged(url, 200), reading(url) as read:
        rows = {path: [read(query) for query in queries] for path, queries in RAW_QUERIES.items()}
    states, statuses, groups, open_commands, errors, certificates = rows["/"]
    assert dict(states) == {"online": 190, "offline": 10}
    assert sum('"version":"2.4.1"' in row[0] for row in statuses) == 120
    assert {row[0]: row[1] for row in groups} == {f"site-{number:02d}": 10 for number in range(1, 21)}
    assert dict(open_commands) == {"queued": 20}
    assert (len(errors), len(certificates)) == (8, 100)
    assert [len(it) for it in (*rows["/agents"], *rows["/commands"])] == [50, 1, 50]
