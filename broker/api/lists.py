"""The parameters of lists, and what is refused in every query."""

from typing import Annotated, Any

from fastapi import Query
from starlette.requests import Request

from broker.api.problems import InvalidRequest
from broker.fleet.models import MAX_PAGE

__all__ = [
    "Cursor",
    "Limit",
    "refuse_unclear",
]


Cursor = Annotated[str | None, Query(description="`next` of the page before, with the same filter.", max_length=1000)]
Limit = Annotated[int, Query(description="At most so many items.", ge=1, le=MAX_PAGE)]


def refuse_unclear(request: Request) -> None:
    """Refuse parameters of the query that the route does not have: a misspelled filter would be no filter.

    Also a parameter that is there twice, of which one would be ignored, and control characters in the path and the
    query. Raises InvalidRequest.
    """
    route: Any = request.scope["route"]
    known = sorted(parameter.alias for parameter in route.dependant.query_params)
    for name in request.query_params:
        if name not in known:
            allowed = f"allowed are {', '.join(known)}" if known else "this route has none"
            raise InvalidRequest(f"Unknown parameter {name[:80]!r} in the query; {allowed}.", code="unknown_parameter")
    if len(request.query_params.multi_items()) > len(request.query_params):
        raise InvalidRequest(
            "The query has a parameter more than once, and each takes one value.", code="repeated_parameter"
        )
    for text in (*request.path_params.values(), *request.query_params.values()):
        if any(character < " " for character in text):
            raise InvalidRequest("The path and the query must not have control characters.", code="control_character")
