"""The style, scripts and pictures of the page, served under a name that changes with their content."""

import hashlib
from http import HTTPStatus
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

__all__ = [
    "Assets",
]


_DIRECTORY = Path(__file__).parent / "static"
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FOREVER = {"Cache-Control": "public, max-age=31536000, immutable"}


class Assets:
    """All files of the directory, in memory. Browsers keep them: with another content they have another address."""

    def __init__(self) -> None:
        self._files = {path.name: path.read_bytes() for path in sorted(_DIRECTORY.iterdir()) if path.suffix in _TYPES}
        self._version = hashlib.sha256(b"\0".join(self._files.values())).hexdigest()[:16]

    def url(self, name: str) -> str:
        """Return the address of a file; scripts import one another by relative ones, so within a version."""
        return f"/static/{self._version}/{name}"

    def route(self) -> Route:
        """Return the route of all files."""
        return Route("/static/{version}/{name}", self._file)

    async def _file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._files:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        is_this_version = request.path_params["version"] == self._version
        headers = _FOREVER if is_this_version else {"Cache-Control": "no-store"}
        return Response(self._files[name], headers=headers, media_type=_TYPES[Path(name).suffix])
