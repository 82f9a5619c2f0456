"""What erasures wait for: when the worker was last heard of, and its trouble; the test part of what was imported.

Revision: 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _set_lock_timeout()
    op.add_column("leases", sa.Column("seen_at", sa.DateTime(timezone=True)))
    op.add_column("leases", sa.Column("trouble", sa.String(128)))
    op.create_table(
        "test_interactions",
        sa.Column("user_key", KEY, nullable=False),
        sa.Column("item_key", KEY, nullable=False),
        sa.PrimaryKeyConstraint("user_key", "item_key", name="pk_test_interactions"),
        sa.ForeignKeyConstraint(["user_key"], ["users.key"], name="fk_test_interactions_user_key_users"),
        sa.ForeignKeyConstraint(["item_key"], ["items.key"], name="fk_test_interactions_item_key_items"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_test_interactions_item_key", "test_interactions", ["item_key"])


def downgrade() -> None:
    _set_lock_timeout()
    op.drop_table("test_interactions")
    op.drop_column("leases", "trouble")
    op.drop_column("leases", "seen_at")


def _set_lock_timeout() -> None:
    # A migration that waits for a lock makes everybody behind it wait too: better that it fails and is run again.
    if op.get_bind().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '5s'")
