"""Keys that expire, tell when they were used last, and belong together by their label.

Each key that is there stays an owner of its own, whatever its label: what it asked for is shown to no other key.
Erasures and Idempotency-Keys keep the key that asked as their owner.

Revision: 0007, after 0006.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_keys = sa.table("api_keys", sa.column("id", sa.String), sa.column("owner", sa.String))
_erasures = sa.table("erasures", sa.column("key_id", sa.String), sa.column("owner", sa.String))


def upgrade() -> None:
    _set_lock_timeout()
    op.add_column("api_keys", sa.Column("expires_at", sa.DateTime(timezone=True)))
    op.add_column("api_keys", sa.Column("last_used_at", sa.DateTime(timezone=True)))
    op.add_column("api_keys", sa.Column("owner", sa.String(36), nullable=False, server_default=""))
    op.execute(sa.update(_keys).values(owner=_keys.c.id))
    op.create_index("ix_api_keys_label", "api_keys", ["label"])
    op.add_column("erasures", sa.Column("owner", sa.String(36), nullable=False, server_default=""))
    op.execute(sa.update(_erasures).values(owner=_erasures.c.key_id))
    op.create_index("ix_erasures_owner_seq", "erasures", ["owner", "seq"])
    op.drop_index("ix_erasures_key_id_seq", "erasures")


def downgrade() -> None:
    _set_lock_timeout()
    op.create_index("ix_erasures_key_id_seq", "erasures", ["key_id", "seq"])
    op.drop_index("ix_erasures_owner_seq", "erasures")
    op.drop_column("erasures", "owner")
    op.drop_index("ix_api_keys_label", "api_keys")
    op.drop_column("api_keys", "owner")
    op.drop_column("api_keys", "last_used_at")
    op.drop_column("api_keys", "expires_at")


def _set_lock_timeout() -> None:
    # A migration that waits for a lock makes everybody behind it wait too: better that it fails and is run again.
    if op.get_bind().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '5s'")
