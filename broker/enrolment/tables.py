"""The tables of enrolment, in the database of the ledger. Times are seconds since 1970 (UTC)."""

import sqlalchemy as sa

from broker.ledger.tables import METADATA

__all__ = [
    "CERTIFICATES",
    "ENROLMENTS",
    "ENROLMENTS_ENDED",
    "METADATA",
    "TOKENS",
]


# One enrolment for each used token: its first certificate, and the renewals of it.
ENROLMENTS = sa.Table(
    "enrolments",
    METADATA,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("agent", sa.String(64), nullable=False, index=True),
    sa.Column("enrolled_at", sa.Float, nullable=False),
    sa.Column("revoked_at", sa.Float, index=True),
    sa.Column("reason", sa.String(32)),
)
# The revoked enrolments whose sessions at the broker have been ended.
ENROLMENTS_ENDED = sa.Table(
    "enrolments_ended",
    METADATA,
    sa.Column("enrolment_id", sa.String(36), sa.ForeignKey("enrolments.id"), primary_key=True),
    sa.Column("ended_at", sa.Float, nullable=False),
)
CERTIFICATES = sa.Table(
    "certificates",
    METADATA,
    sa.Column("serial", sa.String(40), primary_key=True),
    sa.Column("enrolment_id", sa.String(36), sa.ForeignKey("enrolments.id"), nullable=False, index=True),
    sa.Column("key", sa.String(64), nullable=False),
    sa.Column("not_before", sa.Float, nullable=False),
    sa.Column("not_after", sa.Float, nullable=False),
    sa.Column("pem", sa.Text, nullable=False),
)
# The secret of a token is not stored. `key` is the fingerprint of the key that used the token.
TOKENS = sa.Table(
    "enrolment_tokens",
    METADATA,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("agent", sa.String(64), nullable=False, index=True),
    sa.Column("secret_hash", sa.String(64), nullable=False, unique=True),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
    sa.Column("revoked_at", sa.Float),
    sa.Column("used_at", sa.Float),
    sa.Column("key", sa.String(64)),
    sa.Column("enrolment_id", sa.String(36), sa.ForeignKey("enrolments.id")),
)
