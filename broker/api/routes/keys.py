"""/v1/signing-keys: the keys that sign messages to agents. They are changed on the server's machine alone."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from broker.access.grants import Credential
from broker.api.access import Access
from broker.api.documented import Shapes, json_response, problems
from broker.api.installation import ApiInstallation
from broker.fleet.key_models import SigningKeysView
from broker.fleet.keys_on_ledger import LedgerSigningKeys
from broker.fleet.models import Role
from broker.ledger.ledger import Ledger

__all__ = [
    "keys_router",
]


def keys_router(
    ledger: Ledger, installation: ApiInstallation, access: Access, shapes: Shapes, *, now: Callable[[], datetime]
) -> APIRouter:
    """Return the route of the signing keys."""
    router = APIRouter(prefix="/v1", tags=["signing-keys"])
    admin = Annotated[Credential, Depends(access.requires(Role.ADMIN, everywhere=True))]

    @router.get("/signing-keys", responses=shapes.returned(SigningKeysView, "The keys.") | problems(501))
    def list_keys(who: admin) -> Response:
        """List the signing keys, and which enrolled agents have not confirmed the current list of them.

        It reads the last status of every agent. For a principal without groups.
        """
        keys = LedgerSigningKeys(installation.signing_keys(), ledger, now=now)
        return json_response(keys.signing_keys())

    return router
