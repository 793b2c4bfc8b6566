"""The standard streams, in processes of their own."""

import fcntl
import json
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[4]
SECURED = "from broker.system.standard_streams import secure_standard_streams as secure; import os, sys; secure();"
LOGGING = SECURED + "from broker.system.logging import configure_logs as c; c('info'); import structlog as s;"
LOGGING += "log = s.get_logger();"


def python(code: str, redirection: str = "", **options: object) -> subprocess.CompletedProcess[bytes]:
    shell = ["sh", "-c", f'exec "$0" -c "$1" {redirection}', sys.executable, code]
    return subprocess.run(shell, cwd=ROOT, timeout=30, check=False, capture_output=True, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- 2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors_become_dev_null(tmp_path: Path, closed: str) -> None:
    found = tmp_path / "found"
    code = f"{LOGGING} sys.stdout.write('out'); sys.stdout.flush(); log.info('logged'); sys.stdin.read();"
    code += (
        f"links = [os.readlink(f'/proc/self/fd/{{n}}') for n in range(3)]; open({str(found)!r}, 'w').write(repr(links))"
    )
    done = python(code, closed, input=b"")
    assert done.returncode == 0
    links = eval(found.read_text())
    assert [link == "/dev/null" for link in links] == ["<" in closed, " >" in f" {closed}", "2>" in closed]


def test_child_of_a_program_without_descriptors_has_them(tmp_path: Path) -> None:
    found = tmp_path / "found"
    links = "[os.readlink(f'/proc/self/fd/{n}') for n in range(3)]"
    child = f"import os; open({str(found)!r}, 'w').write(repr({links}))"
    done = python(f"{SECURED} import subprocess; subprocess.run([sys.executable, '-c', {child!r}])", "<&- >&- 2>&-")
    assert done.returncode == 0
    assert eval(found.read_text()) == ["/dev/null"] * 3


def test_log_comes_back_when_its_disk_has_room_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = LOGGING + (
        "full = os.open('/dev/full', os.O_WRONLY); kept = os.dup(2); os.dup2(full, 2); log.info('lost');"
        "os.dup2(kept, 2); log.info('kept')"
    )
    assert python(code, f"2>{log}").returncode == 0
    assert [json.loads(line)["event"] for line in log.read_text().splitlines()] == ["kept"]


def test_log_does_not_wait_for_a_reader_that_stands_still() -> None:
    reading, writing = os.pipe()
    size = fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    code = LOGGING + "[log.info('line', agent=str(n), text='x' * 200) for n in range(100)]; print('continues')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=writing, timeout=30, check=True
    )
    assert done.stdout == b"continues\n"
    assert 0 < len(os.read(reading, 1 << 20)) <= size
    assert not select.select([reading], [], [], 0)[0]
    os.close(reading)
    os.close(writing)


def test_text_that_the_encoding_lacks_is_escaped() -> None:
    code = f"{LOGGING} print('caf\\u00e9'); log.info('caf\\u00e9')"
    done = python(code, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert done.stdout == b"caf\\xe9\n"
    assert json.loads(done.stderr)["event"] == "caf\xe9"


def test_what_libraries_and_dying_threads_say_is_a_log_line() -> None:
    code = LOGGING + (
        "import logging, threading; logging.getLogger('asyncio').error('no %s', 'files');"
        "thread = threading.Thread(target=lambda: 1 / 0); thread.start(); thread.join()"
    )
    first, second = map(json.loads, python(code).stderr.splitlines())
    assert (first["event"], first["logger"], first["message"]) == ("library_warning", "asyncio", "no files")
    assert second["event"] == "thread_ended"
    assert "ZeroDivisionError" in second["exception"]


def test_error_of_stdout_is_an_output_error(tmp_path: Path) -> None:
    code = SECURED + (
        "from broker.system.standard_streams import OutputError, discard_output\n"
        "try: print('x'); sys.stdout.flush()\n"
        "except OutputError as error: discard_output(); sys.stderr.write(str(error))"
    )
    done = python(code, ">/dev/full")
    assert done.returncode == 0
    assert b"No space left on device" in done.stderr


def test_flood_of_a_library_is_limited() -> None:
    code = LOGGING + "import logging; [logging.getLogger('asyncio').error('x') for _ in range(1000)]"
    wait_for(lambda: len(python(code).stderr.splitlines()) == 10, "ten lines", 1)
