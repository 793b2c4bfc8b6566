"""The access tokens of a ledger, for who may do everything with it."""

from collections.abc import Sequence
from datetime import timedelta

from broker.access.access_tokens import AccessTokenStore, view_of_token, with_text
from broker.access.models import AccessTokenView, CreatedAccessToken, RoleName
from broker.fleet.models import MAX_PAGE, PageOf, Principal, Role

__all__ = [
    "LedgerAccessTokens",
]


class LedgerAccessTokens:
    """The `AccessTokens` of a ledger; `creator` is who makes new ones."""

    def __init__(self, store: AccessTokenStore, creator: str) -> None:
        self._store = store
        self._creator = creator

    def access_tokens(self, *, cursor: str | None = None, limit: int = 100) -> PageOf[AccessTokenView]:
        """Return a page of tokens, newest first."""
        found, end = self._store.page(cursor, min(limit, MAX_PAGE))
        return PageOf(tuple(map(view_of_token, found)), end)

    def create_access_token(
        self, principal: str, role: RoleName, *, groups: Sequence[str] | None = None, ttl_s: float
    ) -> CreatedAccessToken:
        """Create a token, for all agents or for those in `groups`."""
        who = Principal(principal, Role(role), None if groups is None else frozenset(groups))
        return with_text(self._store.add(who, timedelta(seconds=ttl_s), self._creator))

    def revoke_access_token(self, token_id: str) -> AccessTokenView:
        """Revoke a token."""
        return view_of_token(self._store.revoke(token_id))
