"""The page as a client without scripts sees it."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx

from broker.fleet.models import Role
from tests.support.api import RunningApi

__all__ = ["Visitor", "visitor"]


class Visitor:
    """Who is logged in, with the cookie of its session."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.http.get(path, headers=headers)

    def post(self, path: str, form: Mapping[str, str], **headers: str) -> httpx.Response:
        """Send a form as a page of this origin does, without its token unless the form has one."""
        origin = str(self.http.base_url).rstrip("/")
        return self.http.post(path, data=dict(form), headers={"Origin": origin, **headers})

    def csrf(self, path: str = "/") -> str:
        """Return the token in the forms of a page."""
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', self.get(path).text)
        assert found, path
        return found[1]


@contextmanager
def visitor(api: RunningApi, role: Role, *groups: str, name: str | None = None) -> Iterator[Visitor]:
    """Log a principal in, for a block."""
    with httpx.Client(base_url=api.url, timeout=60, trust_env=False) as http:
        found = Visitor(http)
        token = api.as_(role, *groups, name=name)["Authorization"].split()[1]
        answer = found.post("/login", {"token": token, "next": "/"})
        assert (answer.status_code, answer.headers["Location"]) == (303, "/"), answer.text
        yield found
