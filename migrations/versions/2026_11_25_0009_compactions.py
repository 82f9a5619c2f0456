"""Compactions, the evidence of erased erasures, and until when a tombstone refuses late writes.

Taken back, tombstones stay as suppressions without an end: nothing that was erased comes back by it.

Revision: 0009, after 0008.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
# PostgreSQL would keep samples of these columns' values beside its tables, where no deletion reaches them.
SAMPLED = {
    "users": ("id", "digest"),
    "items": ("id", "digest", "title"),
    "suppressions": ("user_digest", "item_digest"),
    "erasures": ("reason", "extension_reason", "salt"),
    "idempotency": ("key_sha256", "body_sha256"),
}


def upgrade() -> None:
    _set_lock_timeout()
    op.create_table(
        "compactions",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("trigger", sa.String(12), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("step", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="1"),
        sa.Column("key_id", sa.String(36)),
        sa.Column("requested_at", INSTANT, nullable=False),
        sa.Column("started_at", INSTANT),
        sa.Column("finished_at", INSTANT),
        sa.Column("base_before", sa.BigInteger),
        sa.Column("base_after", sa.BigInteger),
        sa.Column("snapshot_seq", sa.BigInteger),
        sa.Column("erasures", sa.Integer, nullable=False, server_default="0"),
        sa.Column("steps", sa.JSON, nullable=False, server_default="{}"),
        sa.Column("progress", sa.JSON, nullable=False, server_default="{}"),
        sa.Column("problem", sa.String(64)),
        sa.Column("facts", sa.JSON, nullable=False, server_default="{}"),
        sa.CheckConstraint(
            "status IN ('waiting','running','done','refused','failed','cancelled')", name=op.f("ck_compactions_status")
        ),
    )
    op.create_index("ix_compactions_status", "compactions", ["status"])
    op.create_table(
        "erasure_evidence",
        sa.Column("erasure_id", sa.String(36), sa.ForeignKey("erasures.id"), primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.add_column("suppressions", sa.Column("until", INSTANT))
    op.add_column("audit_checkpoints", sa.Column("timestamp", sa.LargeBinary))
    op.create_index("ix_suppressions_until", "suppressions", ["until"])
    if _on_postgresql():
        op.add_column("erasures", sa.Column("compaction_id", sa.String(36)))
        op.create_foreign_key(None, "erasures", "compactions", ["compaction_id"], ["id"])
        for table, columns in SAMPLED.items():
            for column in columns:
                op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS 0")
        _drop_samples()
    else:  # SQLite takes the constraint with the column; the table is referred to, so it cannot be made anew
        op.execute(
            "ALTER TABLE erasures ADD COLUMN compaction_id VARCHAR(36) "
            "CONSTRAINT fk_erasures_compaction_id_compactions REFERENCES compactions (id)"
        )
    op.create_index("ix_erasures_compaction_id", "erasures", ["compaction_id"])
    op.add_column("erasures", sa.Column("purged_at", INSTANT))


def downgrade() -> None:
    _set_lock_timeout()
    op.drop_column("erasures", "purged_at")
    op.drop_index("ix_erasures_compaction_id", "erasures")
    if _on_postgresql():
        for table, columns in SAMPLED.items():
            for column in columns:
                op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET STATISTICS -1")
        op.drop_constraint("fk_erasures_compaction_id_compactions", "erasures", type_="foreignkey")
    else:  # SQLite drops no column that refers to another table
        _forget_reference()
    op.drop_column("erasures", "compaction_id")
    op.drop_index("ix_suppressions_until", "suppressions")
    op.drop_column("suppressions", "until")
    op.drop_column("audit_checkpoints", "timestamp")
    op.drop_table("erasure_evidence")
    op.drop_index("ix_compactions_status", "compactions")
    op.drop_table("compactions")


def _forget_reference() -> None:
    connection = op.get_bind()
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    change = "UPDATE sqlite_schema SET sql = replace(sql, ?, '') WHERE type = 'table' AND name = 'erasures'"
    reference = " CONSTRAINT fk_erasures_compaction_id_compactions REFERENCES compactions (id)"
    connection.exec_driver_sql(change, (reference,))
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")


def _drop_samples() -> None:
    # ANALYZE leaves a column of statistics 0 alone, with the samples of before. A change of its type, be it to the one
    # that it has, drops them; no row is written for it.
    columns = sa.inspect(op.get_bind())
    for table, sampled in SAMPLED.items():
        types = {column["name"]: column["type"].compile(op.get_bind().dialect) for column in columns.get_columns(table)}
        for column in sampled:
            op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {types[column]}")


def _on_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def _set_lock_timeout() -> None:
    # A migration that waits for a lock makes everybody behind it wait too: better that it fails and is run again.
    if _on_postgresql():
        op.execute("SET LOCAL lock_timeout = '5s'")
