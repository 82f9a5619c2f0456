"""Extensions, decisions and legal holds of erasures; the status `refused`.

What was refused goes back to an operator when this is taken back: it stays hidden, and the older schema knows no word
for it. Deadlines stay where they were moved to.

Revision: 0008, after 0007.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
COLUMNS = (
    ("extended_at", INSTANT),
    ("extension_ground", sa.String(24)),
    ("extension_reason", sa.String(500)),
    ("decision", sa.String(8)),
    ("decision_ground", sa.String(8)),
    ("decided_at", INSTANT),
    ("held_since", INSTANT),
)
BEFORE = "status IN ('accepted','forgotten','erased','cancelled','needs_attention')"
AFTER = "status IN ('accepted','forgotten','erased','cancelled','needs_attention','refused')"


def upgrade() -> None:
    _set_lock_timeout()
    for name, kind in COLUMNS:
        op.add_column("erasures", sa.Column(name, kind))
    op.create_index("ix_erasures_held_since", "erasures", ["held_since"])
    _check_status(BEFORE, AFTER)


def downgrade() -> None:
    _set_lock_timeout()
    erasures = sa.table("erasures", sa.column("status", sa.String), sa.column("needs", sa.String))
    refused = sa.update(erasures).where(erasures.c.status == "refused")
    op.execute(refused.values(status="needs_attention", needs="refused"))
    _check_status(AFTER, BEFORE)
    op.drop_index("ix_erasures_held_since", "erasures")
    for name, _ in reversed(COLUMNS):
        op.drop_column("erasures", name)


def _check_status(before: str, after: str) -> None:
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        op.drop_constraint("ck_erasures_status", "erasures", type_="check")
        op.create_check_constraint("ck_erasures_status", "erasures", after)
        return
    # The table is referred to, so it cannot be made anew within a transaction. SQLite's own way for a change of
    # constraints that keeps the rows as they are (lang_altertable, section 7) is to change the schema's text.
    version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
    connection.exec_driver_sql("PRAGMA writable_schema = ON")
    change = "UPDATE sqlite_schema SET sql = replace(sql, ?, ?) WHERE type = 'table' AND name = 'erasures'"
    connection.exec_driver_sql(change, (before, after))
    connection.exec_driver_sql(f"PRAGMA schema_version = {version + 1}")
    connection.exec_driver_sql("PRAGMA writable_schema = OFF")
    text = connection.exec_driver_sql("SELECT sql FROM sqlite_schema WHERE name = 'erasures'").scalar_one()
    if after not in text:
        msg = "The table erasures has another check of its status than the migrations made: nothing was changed."
        raise RuntimeError(msg)


def _set_lock_timeout() -> None:
    # A migration that waits for a lock makes everybody behind it wait too: better that it fails and is run again.
    if op.get_bind().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '5s'")
