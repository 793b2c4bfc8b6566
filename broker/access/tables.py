"""The tables of the API's principals, in the database of the ledger. Times are seconds since 1970 (UTC)."""

import sqlalchemy as sa

from broker.enrolment.tables import METADATA

__all__ = [
    "ACCESS_TOKENS",
    "ANSWERS",
    "AUDIT_LOG",
    "METADATA",
    "OPERATOR_CERTIFICATES",
    "PAGE_SESSIONS",
]


# The secret of a token is not stored. `groups` is JSON; without it the token is for all agents.
ACCESS_TOKENS = sa.Table(
    "access_tokens",
    METADATA,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("principal", sa.String(64), nullable=False, index=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("groups", sa.Text),
    sa.Column("secret_hash", sa.String(64), nullable=False, unique=True),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
    sa.Column("revoked_at", sa.Float),
    sa.Column("used_at", sa.Float),
)
# The certificates of operators; an API takes no other ones. `fingerprint` is the SHA-256 of the certificate.
OPERATOR_CERTIFICATES = sa.Table(
    "operator_certificates",
    METADATA,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("principal", sa.String(64), nullable=False, index=True),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("groups", sa.Text),
    sa.Column("fingerprint", sa.String(64), nullable=False, unique=True),
    sa.Column("serial", sa.String(40), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
    sa.Column("revoked_at", sa.Float),
    sa.Column("used_at", sa.Float),
)
# The sessions of the page. `id` is a hash of the secret in the cookie; `credential` is what its principal has logged in
# with, and `credential_expires_at` the end of one of an issuer.
PAGE_SESSIONS = sa.Table(
    "page_sessions",
    METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("principal", sa.String(64), nullable=False),
    sa.Column("role", sa.String(16), nullable=False),
    sa.Column("groups", sa.Text),
    sa.Column("credential", sa.String(64), nullable=False),
    sa.Column("credential_expires_at", sa.Float),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False, index=True),
)
# The answers to requests that had an Idempotency-Key. `key` is a hash of it, and `body` is sealed with it. `id` tells
# who of several that ask at once was first.
ANSWERS = sa.Table(
    "api_answers",
    METADATA,
    sa.Column("principal", sa.String(64), primary_key=True),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("id", sa.String(36), nullable=False),
    sa.Column("request_hash", sa.String(64), nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False, index=True),
)
# What principals have changed by the API: `target` as they named it, `subject` is the id of what came of it.
AUDIT_LOG = sa.Table(
    "audit_log",
    METADATA,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("at", sa.Float, nullable=False, index=True),
    sa.Column("principal", sa.String(64), nullable=False),
    sa.Column("credential", sa.String(64), nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("subject", sa.String(128), nullable=False),
)
