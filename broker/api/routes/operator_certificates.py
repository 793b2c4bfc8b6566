"""/v1/operator-certificates: the certificates by which the API knows operators. They are made beside the authority."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from starlette.requests import Request
from starlette.responses import Response

from broker.access.grants import Credential
from broker.access.models import OperatorCertificateView
from broker.access.operator_certificates import OperatorCertificateStore, view_of_certificate
from broker.api.access import Access
from broker.api.changes import IdempotencyKey, Requests, Wanted
from broker.api.documented import Shapes, json_response, problems
from broker.api.lists import Cursor, Limit
from broker.fleet.models import PageOf, Role
from broker.ledger.also import Also

__all__ = [
    "operator_certificates_router",
]


_EXAMPLE = "0190f5b2-7b7a-7cc3-98c4-dc0c0c07398f"
_CertificateId = Annotated[str, Path(description="The id of the certificate.", max_length=64, examples=[_EXAMPLE])]


def operator_certificates_router(
    requests: Requests, certificates: OperatorCertificateStore, access: Access, shapes: Shapes
) -> APIRouter:
    """Return the routes of operators' certificates. A principal with groups sees those for some of these alone."""
    router = APIRouter(prefix="/v1/operator-certificates", tags=["operator-certificates"])
    admin = Annotated[Credential, Depends(access.requires(Role.ADMIN))]

    @router.get("", responses=shapes.returned(PageOf[OperatorCertificateView], "A page of certificates.") | problems())
    def list_certificates(who: admin, cursor: Cursor = None, limit: Limit = 100) -> Response:
        """List the certificates of operators, newest first.

        A page may have fewer than `limit`, also none, while `next` is there.
        """
        found, end = certificates.page(cursor, limit, who.principal.groups)
        return json_response(PageOf(tuple(map(view_of_certificate, found)), end))

    @router.post(
        "/{certificate_id}/revoke",
        responses=shapes.returned(OperatorCertificateView, "The certificate.") | problems(404, 422),
    )
    def revoke(
        request: Request, who: admin, certificate_id: _CertificateId, idempotency_key: IdempotencyKey = None
    ) -> Response:
        """Revoke the certificate of an operator: its holder is refused from now on. What it has sent stays."""
        change = Wanted(request, who, idempotency_key, "revoke operator certificate", certificate_id)
        return requests.once(change, lambda also: _revoke(who, certificate_id, also))

    def _revoke(who: Credential, certificate_id: str, also: Also[Any]) -> OperatorCertificateView:
        revoked = certificates.revoke(
            certificate_id, who.principal.groups, lambda connection, it: also(connection, view_of_certificate(it))
        )
        return view_of_certificate(revoked)

    return router
