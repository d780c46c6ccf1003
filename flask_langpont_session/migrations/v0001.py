"""The first tables: one row per signed-in session, one per user with a "log out everywhere"."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql


def upgrade(op: Any) -> None:
    """Create tables and indexes.

    :param op: ``alembic.op``, or an ``alembic.operations.Operations``.
    """
    op.create_table(
        "langpont_sessions",
        sa.Column("digest", _exact_text(43), primary_key=True),
        sa.Column("user_id", _exact_text(255, _NO_PAD), nullable=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("live", sa.Boolean, nullable=False),
        sa.Column("payload", _payload(), nullable=False),
        sa.Column("user_epoch", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("idle_expires_at", sa.BigInteger, nullable=False),
        sa.Column("absolute_expires_at", sa.BigInteger, nullable=False),
        sa.Column("successor", _exact_text(43), nullable=True),
        sa.Column("ended_by", _exact_text(16), nullable=True),
        sa.Column("label", _exact_text(100), nullable=True),
        sa.Column("network", _exact_text(43), nullable=True),
        sa.Column("seen_at", sa.BigInteger, nullable=True),
    )
    for columns in (["user_id", "digest"], ["updated_at", "digest"], ["absolute_expires_at"]):
        op.create_index(f"ix_langpont_sessions_{columns[0]}", "langpont_sessions", columns)
    op.create_table(
        "langpont_users",
        sa.Column("user_id", _exact_text(255, _NO_PAD), primary_key=True),
        sa.Column("epoch", sa.BigInteger, nullable=True),
    )


def downgrade(op: Any) -> None:
    """Drop the tables: every signed-in session ends.

    :param op: as for :func:`upgrade`.
    """
    op.drop_table("langpont_users")
    for column in ("absolute_expires_at", "updated_at", "user_id"):
        op.drop_index(f"ix_langpont_sessions_{column}", table_name="langpont_sessions")
    op.drop_table("langpont_sessions")


_NO_PAD = "utf8mb4_nopad_bin"
"""By which a space at the end counts. MySQL calls it utf8mb4_0900_bin."""


def _exact_text(length: int, collation: str = "utf8mb4_bin") -> sa.String:
    """Return a type of text that is compared exactly: MySQL disregards case unless told otherwise."""
    binary = mysql.VARCHAR(length, charset="utf8mb4", collation=collation)
    return sa.String(length).with_variant(binary, "mysql", "mariadb")


def _payload() -> sa.Text:
    """Return the type of the payload: MySQL's TEXT holds 64 KiB, in the character set of the database."""
    return sa.Text().with_variant(mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
