"""Memory that the process no longer uses."""

from pathlib import Path

from broker.system.memory import return_free_memory

PAGES = 20_000


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


def test_memory_below_what_is_in_use_is_returned() -> None:
    blocks = [bytes(4000) for _ in range(PAGES)]
    used = resident_pages()
    del blocks[:-1]  # the last one keeps the C library from lowering the end of its heap
    return_free_memory()
    assert resident_pages() < used - PAGES / 2
