"""Renders the templates. Every text in them is escaped, and characters that could deceive a reader are replaced."""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from broker.durations import rough_duration
from broker.ledger.event_types import EventType
from broker.page.assets import Assets
from broker.page.picture import bar_of, spent_of
from broker.text import counted, printable

__all__ = [
    "Rendering",
]


_TEMPLATES = Path(__file__).parent / "templates"
_THEMES = ("light", "dark")
_THEME_COOKIE = "acm-theme"


class Rendering:
    """The templates of the page; `now` is the clock of the ledger."""

    def __init__(self, assets: Assets, now: Callable[[], datetime]) -> None:
        self._now = now
        self._templates = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_shown,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        self._templates.filters |= {"duration": _duration, "moment": _moment, "counted": counted}
        self._templates.filters |= {"pretty": _pretty, "ticks": _ticks, "unchanged": escape}
        self._templates.globals |= {"asset": assets.url, "bar_of": bar_of, "spent_of": spent_of}
        self._templates.globals["event_types"] = " ".join(EventType)

    def page(
        self,
        request: Request,
        template: str,
        http_status: int = HTTPStatus.OK,
        headers: Mapping[str, str] | None = None,
        **values: Any,
    ) -> Response:
        """Return a page, made of a template and values."""
        theme = request.cookies.get(_THEME_COOKIE)
        values = {"visit": None, "now": self._now(), "theme": theme if theme in _THEMES else "auto"} | values
        text = self._templates.get_template(template).render(path=request.url.path, **values)
        return HTMLResponse(text, http_status, headers)

    def problem(
        self, request: Request, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Return a page that says what is wrong."""
        visit = getattr(request.state, "visit", None)
        facts = {"title": status.phrase, "detail": detail}
        return self.page(request, "problem.html", int(status), headers, visit=visit, **facts)


def _shown(value: Any) -> Any:
    """Return what a template shows of a value: nothing of None, and no controls of a text."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return printable(value)
    return "" if value is None else value


def _duration(seconds: float) -> str:
    """Return a duration for people: exact to the millisecond below two minutes."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else rough_duration(seconds)


def _moment(at: datetime | None, now: datetime) -> Markup:
    """Return a time as its distance from now, with the time itself where a pointer or a reader looks."""
    if at is None:
        return Markup('<span class="none">never</span>')
    seconds = (now - at).total_seconds()
    distance = f"{rough_duration(seconds)} ago" if seconds >= 0 else f"in {rough_duration(-seconds)}"
    exact, text = at.isoformat().replace("+00:00", "Z"), f"{at:%Y-%m-%d %H:%M:%S} UTC"
    return Markup('<time datetime="{}" title="{}" data-distance>{}</time>').format(exact, text, distance)


def _ticks(text: str) -> Markup:
    """Return a sentence with what is between backquotes in it as code."""
    forms = Markup("{}"), Markup("<code>{}</code>")
    return Markup("").join(forms[place % 2].format(it) for place, it in enumerate(printable(text).split("`")))


def _pretty(value: Any) -> str:
    """Return JSON in lines."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
