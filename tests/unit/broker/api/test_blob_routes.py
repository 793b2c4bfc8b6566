"""Files that are streamed to the ledger and from it."""

import hashlib
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa

from broker.api.ranges import range_of
from broker.fleet.models import Role
from broker.ledger.blob_errors import MAX_BLOB_BYTES
from broker.ledger.tables import BLOB_CHUNKS
from tests.support.api import RunningApi, assert_problem
from tests.support.waiting import wait_for

CONTENT = random.Random(1).randbytes(2_500_000)
NAME = hashlib.sha256(CONTENT).hexdigest()
PATH = f"/v1/blobs/{NAME}"


def put(api: RunningApi, content: bytes = CONTENT, path: str = PATH, who: dict[str, str] | None = None) -> Any:
    return api.http.put(path, content=content, headers=who or api.as_(Role.OPERATOR), params={"file_name": "a b.tar"})


def get(api: RunningApi, path: str = PATH, **headers: str) -> Any:
    return api.http.get(path, headers=api.as_(Role.VIEWER) | headers)


def chunks(api: RunningApi) -> int:
    with api.ledger.database.reading() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(BLOB_CHUNKS)) or 0


def test_file_is_stored_once_listed_read_back_and_removed(api: RunningApi) -> None:
    stored = put(api).json()
    assert stored == {"url": f"blob:{NAME}", "sha256": NAME, "size": len(CONTENT)}
    before = chunks(api)
    assert put(api).json() == stored
    assert chunks(api) == before
    (listed,) = get(api, "/v1/blobs").json()["items"]
    assert (listed["sha256"], listed["file_name"]) == (NAME, "a b.tar")
    read = get(api)
    assert read.content == CONTENT
    assert read.headers["Content-Disposition"] == "attachment; filename*=UTF-8''a%20b.tar"
    operator = api.as_(Role.OPERATOR)
    removed = api.http.post(f"{PATH}/remove", headers=operator | {"Idempotency-Key": "k"})
    assert removed.json() == listed
    again = api.http.post(f"{PATH}/remove", headers=operator | {"Idempotency-Key": "k"})
    assert (again.content, again.headers["Idempotent-Replayed"]) == (removed.content, "true")
    assert chunks(api) == 0
    assert_problem(get(api), 404, "unknown_blob")
    log = api.http.get("/v1/audit-log", headers=api.as_(Role.ADMIN)).json()["items"]
    assert sorted((it["action"], it["target"]) for it in log) == [("remove blob", NAME), ("store blob", NAME)]


def test_empty_file_is_a_file(api: RunningApi) -> None:
    path = f"/v1/blobs/{hashlib.sha256(b'').hexdigest()}"
    assert put(api, b"", path).json()["size"] == 0
    assert get(api, path).content == b""


def test_file_with_another_hash_is_refused_and_not_kept(api: RunningApi) -> None:
    assert_problem(put(api, CONTENT + b"x"), 400, "wrong_sha256")
    assert (chunks(api), get(api, "/v1/blobs").json()["items"]) == (0, [])
    assert_problem(put(api, path="/v1/blobs/ABC"), 400, "invalid_request")


@contextmanager
def sending(api: RunningApi, length: int) -> Iterator[socket.socket]:
    """Yield a connection on which the head of an upload of this length was sent."""
    parts, credential = urlsplit(api.url), api.as_(Role.OPERATOR)["Authorization"]
    head = f"PUT {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nAuthorization: {credential}\r\n\r\n"
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=60) as connection:
        connection.sendall(head.encode())
        yield connection


def test_file_that_says_it_is_too_long_is_refused_before_it_is_sent(api: RunningApi) -> None:
    with sending(api, MAX_BLOB_BYTES + 1) as connection:
        answer = connection.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 413 ")


def test_upload_that_ends_early_leaves_nothing(api: RunningApi) -> None:
    with sending(api, len(CONTENT)) as connection:
        connection.sendall(CONTENT[:-1])
        wait_for(lambda: chunks(api) > 0, "the first chunks")
    wait_for(lambda: chunks(api) == 0, "their removal")


def test_part_of_a_file_is_read(api: RunningApi) -> None:
    put(api)
    part = get(api, Range="bytes=1000000-1999999")
    assert (part.status_code, part.content) == (206, CONTENT[1_000_000:2_000_000])
    assert part.headers["Content-Range"] == f"bytes 1000000-1999999/{len(CONTENT)}"
    beyond = get(api, Range=f"bytes={len(CONTENT)}-")
    assert_problem(beyond, 416, "no_such_range")
    assert beyond.headers["Content-Range"] == f"bytes */{len(CONTENT)}"


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, None),
        ("bytes=0-0", range(1)),
        ("bytes=3-", range(3, 10)),
        ("bytes=3-99", range(3, 10)),
        ("bytes=-4", range(6, 10)),
        ("bytes=-40", range(10)),
        ("bytes=5-4", None),
        ("bytes=0-1,3-4", None),
        ("lines=1-2", None),
        ("bytes=-", None),
    ],
)
def test_range_is_one_of_bytes_or_none(header: str | None, wanted: range | None) -> None:
    assert range_of(header, 10) == wanted


def test_file_that_an_open_command_needs_is_not_removed(api: RunningApi) -> None:
    parameters = {"package": put(api).json()}
    body = {"type": "upgrade-agent", "parameters": parameters, "agents": ["web-01"]}
    sent = api.http.post("/v1/commands", json=body, headers=api.as_(Role.OPERATOR))
    assert sent.status_code == 201, sent.text
    assert_problem(api.http.post(f"{PATH}/remove", headers=api.as_(Role.OPERATOR)), 409, "in_use")


def test_stored_file_becomes_the_configuration_of_a_group_once_for_each_key(api: RunningApi) -> None:
    put(api)
    body, headers = {"sha256": NAME}, api.as_(Role.ADMIN, "edge") | {"Idempotency-Key": "k"}
    done = api.http.post("/v1/groups/edge/configure", json=body, headers=headers)
    assert (done.status_code, done.json()["target"], done.json()["size"]) == (201, "group edge", 2)
    again = api.http.post("/v1/groups/edge/configure", json=body, headers=headers)
    assert (again.json(), len(api.ledger.operations.page(None, 9).operations)) == (done.json(), 1)
    log = api.http.get("/v1/audit-log", headers=api.as_(Role.ADMIN)).json()["items"]
    assert (log[0]["action"], log[0]["target"], log[0]["subject"]) == ("configure group edge", NAME, done.json()["id"])
    assert_problem(api.http.post(f"{PATH}/remove", headers=api.as_(Role.OPERATOR)), 409, "in_use")


def test_configuration_of_a_group_needs_a_stored_file_an_admin_and_members(api: RunningApi) -> None:
    def refused(path: str, headers: dict[str, str], sha256: str = NAME) -> Any:
        return api.http.post(f"/v1/groups/{path}/configure", json={"sha256": sha256}, headers=headers)

    admin = api.as_(Role.ADMIN)
    assert_problem(refused("edge", admin), 404, "unknown_blob")
    put(api)
    assert_problem(refused("none", admin), 404, "no_agent_matches")
    assert_problem(refused("core", api.as_(Role.ADMIN, "edge")), 404, "unknown_group")
    assert_problem(refused("edge", api.as_(Role.OPERATOR)), 403, "forbidden")
    assert_problem(refused("edge", admin, "x"), 400, "invalid_member")
    assert api.ledger.commands() == []


def test_operator_of_groups_stores_files_and_sees_none(api: RunningApi) -> None:
    edge = api.as_(Role.OPERATOR, "edge")
    assert put(api, who=edge).status_code == 200
    for answer in (
        api.http.get("/v1/blobs", headers=edge),
        api.http.get(PATH, headers=edge),
        api.http.post(f"{PATH}/remove", headers=edge),
    ):
        assert_problem(answer, 403, "forbidden")
