"""Scopes `read` and `write`: a key keeps what it was promised.

Until now `recommend` could record interactions and `erase` could read what is recorded of a user. Both got a scope of
their own; keys that are there get the one that they had without its name. Going down takes the names away again, and
leaves a key of these scopes alone with nothing that it may do.

Revision: 0005, after 0004.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

GAINED = {"recommend": "write", "erase": "read"}

_keys = sa.table("api_keys", sa.column("id", sa.String), sa.column("scopes", sa.String))


def upgrade() -> None:
    _rewrite(lambda scopes: scopes | {GAINED[scope] for scope in scopes & GAINED.keys()})


def downgrade() -> None:
    _rewrite(lambda scopes: scopes - set(GAINED.values()))


def _rewrite(change) -> None:  # type: ignore[no-untyped-def]
    connection = op.get_bind()
    for key_id, text in connection.execute(sa.select(_keys.c.id, _keys.c.scopes)).all():
        scopes = " ".join(sorted(change(set(text.split()))))
        connection.execute(sa.update(_keys).where(_keys.c.id == key_id).values(scopes=scopes))
