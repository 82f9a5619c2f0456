"""The first schema: vocabulary, interactions, erasures and their outbox, audit log, versions, leases, keys.

Revision: 0001, the first.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    _set_lock_timeout()
    _vocabulary()
    _erasures()
    _delivery()
    _audit()
    _models()
    _keys()


def downgrade() -> None:
    _set_lock_timeout()
    for table in (
        "api_keys",
        "leases",
        "aliases",
        "versions",
        "audit_entries",
        "audit_head",
        "idempotency",
        "outbox",
        "suppressions",
        "erasure_targets",
        "erasures",
        "batches",
        "interactions",
        "items",
        "users",
    ):
        op.drop_table(table)


def _set_lock_timeout() -> None:
    # A migration that waits for a lock makes everybody behind it wait too: better that it fails and is run again.
    if op.get_bind().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '5s'")


def _vocabulary() -> None:
    op.create_table(
        "users",
        sa.Column("key", KEY, autoincrement=True, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_users"),
        sa.UniqueConstraint("id", name="uq_users_id"),
        sa.UniqueConstraint("digest", name="uq_users_digest"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "items",
        sa.Column("key", KEY, autoincrement=True, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("title", sa.Text()),
        sa.PrimaryKeyConstraint("key", name="pk_items"),
        sa.UniqueConstraint("id", name="uq_items_id"),
        sa.UniqueConstraint("digest", name="uq_items_digest"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "interactions",
        sa.Column("user_key", KEY, nullable=False),
        sa.Column("item_key", KEY, nullable=False),
        sa.Column("recorded_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("user_key", "item_key", name="pk_interactions"),
        sa.ForeignKeyConstraint(["user_key"], ["users.key"], name="fk_interactions_user_key_users"),
        sa.ForeignKeyConstraint(["item_key"], ["items.key"], name="fk_interactions_item_key_items"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_interactions_item_key", "interactions", ["item_key"])


def _erasures() -> None:
    op.create_table(
        "batches",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger()),
        sa.Column("step", sa.String(16), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT),
        sa.Column("outcome", sa.String(16)),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
        sa.UniqueConstraint("version", name="uq_batches_version"),
    )
    op.create_table(
        "erasures",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("mode", sa.String(8), nullable=False),
        sa.Column("reason", sa.String(500)),
        sa.Column("requested", sa.Integer(), nullable=False),
        sa.Column("matched", sa.Integer(), nullable=False),
        sa.Column("commitment", sa.String(64), nullable=False),
        sa.Column("salt", sa.String(64)),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.Column("due_at", INSTANT, nullable=False),
        sa.Column("forgotten_at", INSTANT),
        sa.Column("erased_at", INSTANT),
        sa.Column("cancelled_at", INSTANT),
        sa.Column("version_before", sa.BigInteger()),
        sa.Column("version_after", sa.BigInteger()),
        sa.Column("batch_id", sa.BigInteger()),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("needs", sa.String(64)),
        sa.Column("stages", sa.JSON(), server_default="{}", nullable=False),
        sa.Column("key_id", sa.String(36), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_erasures"),
        sa.UniqueConstraint("seq", name="uq_erasures_seq"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_erasures_batch_id_batches"),
        sa.CheckConstraint(
            "status IN ('accepted','forgotten','erased','cancelled','needs_attention')", name="ck_erasures_status"
        ),
        sa.CheckConstraint("mode IN ('forget','dislike')", name="ck_erasures_mode"),
    )
    op.create_index("ix_erasures_status_seq", "erasures", ["status", "seq"])
    op.create_table(
        "erasure_targets",
        sa.Column("erasure_id", sa.String(36), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(11), nullable=False),
        sa.Column("user_key", sa.BigInteger()),
        sa.Column("item_key", sa.BigInteger()),
        sa.Column("matched", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("erasure_id", "ordinal", name="pk_erasure_targets"),
        sa.ForeignKeyConstraint(["erasure_id"], ["erasures.id"], name="fk_erasure_targets_erasure_id_erasures"),
        sa.CheckConstraint("kind IN ('interaction','user','item')", name="ck_erasure_targets_kind"),
    )
    op.create_table(
        "suppressions",
        sa.Column("user_digest", sa.LargeBinary(32), nullable=False),
        sa.Column("item_digest", sa.LargeBinary(32), nullable=False),
        sa.Column("erasure_id", sa.String(36), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("user_digest", "item_digest", "erasure_id", name="pk_suppressions"),
        sa.ForeignKeyConstraint(["erasure_id"], ["erasures.id"], name="fk_suppressions_erasure_id_erasures"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_suppressions_item_digest", "suppressions", ["item_digest", "user_digest"])
    op.create_index("ix_suppressions_erasure_id", "suppressions", ["erasure_id"])


def _delivery() -> None:
    op.create_table(
        "outbox",
        sa.Column("seq", KEY, autoincrement=True, nullable=False),
        sa.Column("erasure_id", sa.String(36), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("published_at", INSTANT),
        sa.PrimaryKeyConstraint("seq", name="pk_outbox"),
        sa.ForeignKeyConstraint(["erasure_id"], ["erasures.id"], name="fk_outbox_erasure_id_erasures"),
    )
    op.create_index("ix_outbox_unpublished", "outbox", ["published_at", "seq"])
    op.create_index("ix_outbox_erasure_id", "outbox", ["erasure_id"])
    op.create_table(
        "idempotency",
        sa.Column("key_id", sa.String(36), nullable=False),
        sa.Column("key_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("body_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("erasure_id", sa.String(36), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("key_id", "key_sha256", name="pk_idempotency"),
        sa.ForeignKeyConstraint(["erasure_id"], ["erasures.id"], name="fk_idempotency_erasure_id_erasures"),
        sqlite_with_rowid=False,
    )


def _audit() -> None:
    head = op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_head"),
        sa.CheckConstraint("id = 1", name="ck_audit_head_single"),
    )
    # The row that writers lock: without it nothing can be appended.
    op.bulk_insert(head, [{"id": 1, "size": 0}])
    op.create_table(
        "audit_entries",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("event", sa.String(40), nullable=False),
        sa.Column("erasure_id", sa.String(36)),
        sa.Column("version", sa.BigInteger()),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit_entries"),
    )
    op.create_index("ix_audit_entries_erasure_id", "audit_entries", ["erasure_id"])


def _models() -> None:
    op.create_table(
        "versions",
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(9), nullable=False),
        sa.Column("status", sa.String(10), nullable=False),
        sa.Column("base", sa.BigInteger(), nullable=False),
        sa.Column("parent", sa.BigInteger()),
        sa.Column("erasure_seq", sa.BigInteger(), nullable=False),
        sa.Column("manifest", sa.JSON(), nullable=False),
        sa.Column("gate", sa.JSON()),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_versions"),
        sa.CheckConstraint("kind IN ('base','forgotten')", name="ck_versions_kind"),
        sa.CheckConstraint("status IN ('ready','held','retired','purged')", name="ck_versions_status"),
    )
    op.create_table(
        "aliases",
        sa.Column("name", sa.String(16), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("moved_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_aliases"),
        sa.ForeignKeyConstraint(["version"], ["versions.version"], name="fk_aliases_version_versions"),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("holder", sa.String(64), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )


def _keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("token_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("label", sa.String(100), nullable=False),
        sa.Column("scopes", sa.String(100), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("revoked_at", INSTANT),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("token_sha256", name="uq_api_keys_token_sha256"),
    )
