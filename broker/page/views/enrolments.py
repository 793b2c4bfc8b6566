"""/enrolments and /enrolment-tokens: who is enrolled, with which certificate, and who may enroll."""

from starlette.responses import Response
from starlette.routing import Route

from broker.enrolment.enrolment_states import EnrolmentState
from broker.enrolment.listings import EnrolmentListing, EnrolmentOrder, TokenListing
from broker.enrolment.tokens import TokenState
from broker.fleet.enrolment_listings import LedgerEnrolmentListings
from broker.fleet.models import Role
from broker.page.lists import Numbered, asked_page, chosen
from broker.page.routing import Pages, Visit

__all__ = [
    "enrolments_routes",
]


_PAGE = 50


def enrolments_routes(pages: Pages) -> list[Route]:
    """Return the routes of enrolments and of the tokens for them."""
    return [
        pages.shown("/enrolments", _enrolments),
        pages.shown("/enrolments/{id}", _enrolment),
        pages.shown("/enrolment-tokens", _tokens, Role.ADMIN),
    ]


def _enrolments(visit: Visit) -> Response:
    which = EnrolmentListing(
        visit.asked("name"),
        chosen(EnrolmentState, visit.asked("state")),
        chosen(EnrolmentOrder, visit.asked("sort")) or EnrolmentOrder.ENROLLED,
        visit.asked("order") != "asc",
    )
    number = asked_page(visit.asked("page"))
    found = _listings(visit).enrolments(which, skip=(number - 1) * _PAGE, limit=_PAGE)
    paging = Numbered(visit.request.url, number, _PAGE, found.total)
    return visit.page("enrolments.html", which=which, enrolments=found.items, paging=paging, states=EnrolmentState)


def _enrolment(visit: Visit) -> Response:
    enrolment = visit.parts.enrolling.of(visit.who).enrolment(visit.request.path_params["id"])
    return visit.page("enrolment.html", enrolment=enrolment)


def _tokens(visit: Visit) -> Response:
    which = TokenListing(visit.asked("name"), chosen(TokenState, visit.asked("state")))
    number = asked_page(visit.asked("page"))
    found = _listings(visit).tokens(which, skip=(number - 1) * _PAGE, limit=_PAGE)
    paging = Numbered(visit.request.url, number, _PAGE, found.total)
    return visit.page("enrolment_tokens.html", which=which, tokens=found.items, paging=paging, states=TokenState)


def _listings(visit: Visit) -> LedgerEnrolmentListings:
    return LedgerEnrolmentListings(visit.parts.ledger.database, visit.parts.now, visit.principal.groups)
