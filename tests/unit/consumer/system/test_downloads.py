"""Fetching files: over HTTPS from a real server and from this machine, and each way in which a file is not believed."""

import gzip
import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from broker.contract.artifacts import Artifact, blob_url
from broker.contract.messages import RunningProgress
from consumer.errors import DownloadError
from consumer.settings import DownloadConfig
from consumer.system.clock import SystemClock
from consumer.system.downloads import Downloader
from consumer.system.progress import HandlerProgress
from tests.support.errors import raises_code
from tests.support.https_server import HttpsServer, content_of, redirect_to

CONTENT = b"interval = 5\n" * 50_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpsServer]:
    with HttpsServer.running(tmp_path_factory.mktemp("https")) as server:
        yield server


def artifact(url: str, content: bytes = CONTENT, **members: Any) -> Artifact:
    return Artifact(**{"url": url, "sha256": hashlib.sha256(content).hexdigest(), "size": len(content), **members})


Fetch = Callable[..., Path]


@pytest.fixture
def fetch(server: HttpsServer, tmp_path: Path) -> Fetch:
    def fetch(
        wanted: Artifact, *, within_s: float = 20.0, cancelled: threading.Event | None = None, **config: Any
    ) -> Path:
        settings = DownloadConfig(**{"ca_file": str(server.ca_file), **config})
        to = tmp_path / "fetched"
        Downloader(settings, SystemClock(), monotonic() + within_s, cancelled or threading.Event()).fetch(wanted, to)
        return to

    return fetch


def test_download_reports_how_much_it_has(tmp_path: Path) -> None:
    reports: list[RunningProgress | None] = []

    class Blobs:
        def read(self, name: str, offset: int, size: int) -> Iterator[bytes]:
            for start in range(offset, size, size // 4):
                yield CONTENT[start : start + size // 4]
                reports.append(progress.current)

    progress = HandlerProgress()
    wanted = artifact(blob_url(hashlib.sha256(CONTENT).hexdigest()))
    deadline = monotonic() + 20.0
    download = Downloader(
        DownloadConfig(), SystemClock(), deadline, threading.Event(), blobs=Blobs(), progress=progress
    )
    download.fetch(wanted, tmp_path / "fetched")
    assert reports == [RunningProgress("download", percent) for percent in (25, 50, 75, 100)]


def test_a_file_over_https_and_one_on_this_machine(server: HttpsServer, fetch: Fetch, tmp_path: Path) -> None:
    assert fetch(artifact(server.serve("/good", CONTENT))).read_bytes() == CONTENT
    here = tmp_path / "with space"
    here.write_bytes(CONTENT)
    assert fetch(artifact(here.as_uri())).read_bytes() == CONTENT
    assert fetch(artifact(server.serve("/empty", b""), b"")).read_bytes() == b""


def test_a_redirect_is_followed_to_https_and_not_to_http(server: HttpsServer, fetch: Fetch) -> None:
    server.answers["/moved"] = redirect_to(server.serve("/good", CONTENT))
    assert fetch(artifact(server.url("/moved"))).read_bytes() == CONTENT
    server.answers["/downgraded"] = redirect_to("http://127.0.0.1:9/good")
    with raises_code(DownloadError, "http_failed") as caught:
        fetch(artifact(server.url("/downgraded")))
    assert "redirects to http:, which is not encrypted" in str(caught.value)
    server.answers["/round"] = redirect_to(server.url("/round"))
    with raises_code(DownloadError, "http_failed") as caught:
        fetch(artifact(server.url("/round")))
    assert "redirects" in str(caught.value)


def cut_short(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(CONTENT)))
    request.end_headers()
    request.wfile.write(CONTENT[:1000])
    request.close_connection = True


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (content_of(CONTENT + b"x"), "file_too_long"),
        (content_of(CONTENT[:-1]), "file_too_short"),
        (content_of(b"x" + CONTENT[1:]), "wrong_sha256"),
        (content_of(gzip.compress(CONTENT), Content_Encoding="gzip"), "file_too_short"),
        (cut_short, "http_failed"),
        (lambda request: request.send_error(503), "http_status"),
        (lambda request: request.send_response_only(204), "http_failed"),
        (lambda request: request.wfile.write(b"not HTTP\r\n\r\n"), "http_failed"),
    ],
)
def test_wrong_response_of_the_server_is_refused(
    server: HttpsServer, fetch: Fetch, tmp_path: Path, answer: Any, code: str
) -> None:
    server.answers["/wrong"] = answer
    with raises_code(DownloadError, code):
        fetch(artifact(server.url("/wrong")))
    assert list(tmp_path.iterdir()) == []


def test_server_with_an_untrusted_certificate_is_refused(server: HttpsServer, fetch: Fetch, tmp_path: Path) -> None:
    url = server.serve("/good", CONTENT)
    with raises_code(DownloadError, "http_failed") as caught:
        fetch(artifact(url), ca_file=None)
    assert "certificate verify failed" in str(caught.value)
    with raises_code(DownloadError, "ca_file_unusable") as caught:
        fetch(artifact(url), ca_file=str(tmp_path / "nowhere"))
    assert "No such file" in str(caught.value)
    (tmp_path / "ca.pem").write_text("nothing")
    with raises_code(DownloadError, "ca_file_unusable") as caught:
        fetch(artifact(url), ca_file=str(tmp_path / "ca.pem"))
    assert "ca.pem (download.ca_file)" in str(caught.value)


def stalls_before_its_answer(server: HttpsServer) -> Any:
    return lambda request: server.ended.wait(30)


def stalls_within_its_answer(server: HttpsServer) -> Any:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(CONTENT)))
        request.end_headers()
        request.wfile.write(CONTENT[:1000])
        server.ended.wait(30)

    return answer


def drips(server: HttpsServer) -> Any:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(CONTENT)))
        request.end_headers()
        while not server.ended.wait(0.01):
            request.wfile.write(b"x")

    return answer


def drips_headers(server: HttpsServer) -> Any:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        while not server.ended.wait(0.01):
            request.wfile.write(b"x")

    return answer


@pytest.mark.parametrize(
    "answer", [stalls_before_its_answer, stalls_within_its_answer, drips, drips_headers], ids=lambda made: made.__name__
)
def test_slow_download_ends_at_the_deadline(server: HttpsServer, fetch: Fetch, tmp_path: Path, answer: Any) -> None:
    server.answers["/slow"] = answer(server)
    with raises_code(DownloadError, "timed_out"):
        fetch(artifact(server.url("/slow")), within_s=0.5)
    assert list(tmp_path.iterdir()) == []


def test_a_cancel_ends_a_download_that_waits(server: HttpsServer, fetch: Fetch, tmp_path: Path) -> None:
    cancelled = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        cancelled.set()
        server.ended.wait(30)

    server.answers["/cancelled"] = answer
    with raises_code(DownloadError, "cancelled"):
        fetch(artifact(server.url("/cancelled")), cancelled=cancelled)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "codes"),
    [
        ("http://127.0.0.1/x", {"unknown_scheme"}),
        ("ftp://127.0.0.1/x", {"unknown_scheme"}),
        ("x", {"unknown_scheme"}),
        ("https://[::1/x", {"invalid_url"}),
        ("https://127.0.0.1/\x7f", {"invalid_url"}),
        ("https:///x", {"http_failed", "invalid_url"}),
        ("https://u:12#34@127.0.0.1/x", {"invalid_url"}),
        ("https://u:12?34@127.0.0.1", {"invalid_url"}),
        ("https://u:p#x@127.0.0.1/x", {"invalid_url"}),
        ("https://127.0.0.1:1/x", {"http_failed"}),
        ("https://127.0.0.1:99999/x", {"http_failed", "invalid_url"}),
        ("file:///nowhere/at/all", {"not_a_file"}),
        ("file:///tmp", {"not_a_file"}),
        ("file:///dev/zero", {"not_a_file"}),
        ("file://elsewhere/etc/passwd", {"not_a_file"}),
    ],
)
def test_unusable_url_is_refused_with_a_code(fetch: Fetch, url: str, codes: set[str]) -> None:
    with pytest.raises(DownloadError) as caught:
        fetch(artifact(url))
    assert caught.value.code in codes


def test_secrets_in_a_url_are_not_repeated(fetch: Fetch) -> None:
    with pytest.raises(DownloadError) as caught:
        fetch(artifact("https://me:hush@127.0.0.1:1/x?token=hush#hush"))
    assert "hush" not in str(caught.value)
    assert "https://127.0.0.1:1/x" in str(caught.value)


def test_too_large_file_is_refused_before_the_request(server: HttpsServer, fetch: Fetch) -> None:
    url = server.serve("/large", CONTENT)
    with raises_code(DownloadError, "too_large") as caught:
        fetch(artifact(url), max_bytes=1000)
    assert "1000 (download.max_bytes)" in str(caught.value)
    with raises_code(DownloadError, "disk_full"):
        fetch(artifact(url, size=1 << 60), max_bytes=1 << 61)
    assert "/large" not in server.requests


def test_a_pipe_is_not_read(fetch: Fetch, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with raises_code(DownloadError, "not_a_file"):
        fetch(artifact((tmp_path / "pipe").as_uri()))


def test_unwritable_target_is_an_error(server: HttpsServer, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.write_bytes(CONTENT)
    download = Downloader(DownloadConfig(), SystemClock(), monotonic() + 20, threading.Event())
    with raises_code(DownloadError, "not_written"):
        download.fetch(artifact(here.as_uri()), tmp_path / "nowhere" / "x")
