"""The database schema, in SQLAlchemy Core: one table per fact, surrogate keys everywhere but in the vocabulary.

Outside ids live in `users.id` and `items.id` alone. Everything else names people by surrogate key or keyed digest, so
erasing a subject's id means erasing one row.
"""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)

# Named constraints let alembic move them on both databases.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite autoincrements INTEGER PRIMARY KEY only; PostgreSQL needs eight bytes.
Key = BigInteger().with_variant(Integer, "sqlite")


class UtcInstant(TypeDecorator[datetime]):
    """An aware UTC instant on both databases; SQLite keeps no time zone, so this puts it back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the database: UTC; naive instants are refused, they would be read in some other zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            msg = "Instants are aware (UTC)."
            raise ValueError(msg)
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From the database: aware, UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


Instant = UtcInstant()

users = Table(
    "users",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    sqlite_autoincrement=True,  # a key is never given out twice: model files still hold those of erased users
)

items = Table(
    "items",
    metadata,
    Column("key", Key, primary_key=True, autoincrement=True),
    Column("id", Text, nullable=False, unique=True),
    Column("digest", LargeBinary(32), nullable=False, unique=True),
    Column("title", Text),
    sqlite_autoincrement=True,
)

interactions = Table(
    "interactions",
    metadata,
    Column("user_key", Key, ForeignKey("users.key"), primary_key=True),
    Column("item_key", Key, ForeignKey("items.key"), primary_key=True),
    Column("recorded_at", Instant, nullable=False),
    Index("ix_interactions_item_key", "item_key"),
    sqlite_with_rowid=False,
)

erasures = Table(
    "erasures",
    metadata,
    Column("id", String(36), primary_key=True),  # UUIDv7
    Column("seq", BigInteger, nullable=False, unique=True),  # the audit seq of its acceptance: the order of accepting
    Column("status", String(16), nullable=False),
    Column("mode", String(8), nullable=False),
    Column("reason", String(500)),
    Column("requested", Integer, nullable=False),
    Column("matched", Integer, nullable=False),
    Column("commitment", String(64), nullable=False),  # SHA-256(salt || canonical subjects), hex
    Column("salt", String(64)),  # hex; null once erased
    Column("received_at", Instant, nullable=False),
    Column("due_at", Instant, nullable=False),
    Column("forgotten_at", Instant),
    Column("erased_at", Instant),
    Column("cancelled_at", Instant),
    Column("version_before", BigInteger),
    Column("version_after", BigInteger),
    Column("batch_id", BigInteger, ForeignKey("batches.id")),
    Column("attempts", Integer, nullable=False, default=0, server_default="0"),
    Column("needs", String(64)),  # problem code while status is needs_attention; fine_tuning while accepted
    Column("stages", JSON, nullable=False, default=dict, server_default="{}"),  # stage -> {at, seconds}
    Column("key_id", String(36), nullable=False),  # the API key that asked
    Column("owner", String(36), nullable=False, server_default=""),  # whose it is: see api_keys.owner
    Column("extended_at", Instant),  # null: due_at is as it was at the acceptance
    Column("extension_ground", String(24)),
    Column("extension_reason", String(500)),
    Column("decision", String(8)),  # null: it is to be erased whole
    Column("decision_ground", String(8)),
    Column("decided_at", Instant),
    Column("held_since", Instant),  # legal hold: nothing of it may be erased; null: none
    Column("compaction_id", String(36), ForeignKey("compactions.id")),  # the one that is to erase it, or did
    Column(
        "purged_at", Instant
    ),  # its rows in other tables are gone, and its salt: there is no way back to `forgotten`
    CheckConstraint(
        "status IN ('accepted','forgotten','erased','cancelled','needs_attention','refused')", name="status"
    ),
    CheckConstraint("mode IN ('forget','dislike')", name="mode"),
    Index("ix_erasures_status_seq", "status", "seq"),
    Index("ix_erasures_owner_seq", "owner", "seq"),
    Index("ix_erasures_held_since", "held_since"),
    Index("ix_erasures_compaction_id", "compaction_id"),
)

# What the receipt of an erased erasure rests on beyond the log: see `service.receipts`.
erasure_evidence = Table(
    "erasure_evidence",
    metadata,
    Column("erasure_id", String(36), ForeignKey("erasures.id"), primary_key=True),
    Column("body", Text, nullable=False),  # canonical JSON; its SHA-256 is in the entry erasure.erased
)

erasure_targets = Table(
    "erasure_targets",
    metadata,
    Column("erasure_id", String(36), ForeignKey("erasures.id"), primary_key=True),
    Column("ordinal", Integer, primary_key=True),
    Column("kind", String(11), nullable=False),
    Column("user_key", BigInteger),  # null: not known when accepted
    Column("item_key", BigInteger),
    Column("matched", Integer, nullable=False),
    CheckConstraint("kind IN ('interaction','user','item')", name="kind"),
)

suppressions = Table(
    "suppressions",
    metadata,
    Column("user_digest", LargeBinary(32), primary_key=True),  # empty: every user
    Column("item_digest", LargeBinary(32), primary_key=True),  # empty: every item
    Column("erasure_id", String(36), ForeignKey("erasures.id"), primary_key=True),
    Column("created_at", Instant, nullable=False),
    Column("until", Instant),  # a tombstone: its erasure is erased, late writes are refused until then; null: no end
    Index("ix_suppressions_item_digest", "item_digest", "user_digest"),
    Index("ix_suppressions_erasure_id", "erasure_id"),
    Index("ix_suppressions_until", "until"),
    sqlite_with_rowid=False,
)

outbox = Table(
    "outbox",
    metadata,
    Column("seq", Key, primary_key=True, autoincrement=True),
    Column("erasure_id", String(36), ForeignKey("erasures.id"), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("published_at", Instant),
    Index("ix_outbox_unpublished", "published_at", "seq"),
    Index("ix_outbox_erasure_id", "erasure_id"),
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("key_id", String(36), primary_key=True),  # the owner: a retry with the label's other key finds it, too
    Column("key_sha256", LargeBinary(32), primary_key=True),
    Column("body_sha256", LargeBinary(32), nullable=False),
    Column("erasure_id", String(36), ForeignKey("erasures.id"), nullable=False),
    Column("created_at", Instant, nullable=False),
    sqlite_with_rowid=False,
)

secret_check = Table(
    "secret_check",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("value", LargeBinary(32), nullable=False),  # keyed digest of a constant: which key the digests are made with
    Column("made_at", Instant, nullable=False),
    CheckConstraint("id = 1", name="single"),
)

audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("size", BigInteger, nullable=False),
    CheckConstraint("id = 1", name="single"),
)

audit_entries = Table(
    "audit_entries",
    metadata,
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("at", Instant, nullable=False),
    Column("event", String(40), nullable=False),
    Column("erasure_id", String(36)),
    Column("version", BigInteger),
    Column("body", Text, nullable=False),  # canonical JSON (RFC 8785): the bytes that leaf_hash covers
    Column("leaf_hash", LargeBinary(32), nullable=False),
    Index("ix_audit_entries_erasure_id", "erasure_id"),
)

# What the log's proofs are made of beyond its entries: hashes over full tiles, the heads that were signed, the keys.
audit_nodes = Table(
    "audit_nodes",
    metadata,
    Column("level", Integer, primary_key=True, autoincrement=False),  # covers 256^level leaves, from 1
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary(32), nullable=False),
    sqlite_with_rowid=False,
)

audit_checkpoints = Table(
    "audit_checkpoints",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    Column("note", Text, nullable=False),  # signed note: what was signed cannot be signed otherwise
    Column("signed_at", Instant, nullable=False),
    Column("timestamp", LargeBinary),  # TimeStampResp (RFC 3161, DER) over the note's text; null: none was asked for
)

audit_keys = Table(
    "audit_keys",
    metadata,
    Column("vkey", String(300), primary_key=True),
    Column("since", Instant, nullable=False),
    Column("until", Instant),  # null: signs now
)

# One retraining on what remains, with the purge and the search that follow it: a journal, written before each step.
compactions = Table(
    "compactions",
    metadata,
    Column("id", String(36), primary_key=True),  # UUIDv7
    Column("trigger", String(12), nullable=False),
    Column("status", String(16), nullable=False),
    Column("step", String(16), nullable=False),  # journal: written before the step begins
    Column("attempt", Integer, nullable=False, default=1, server_default="1"),  # from 1; each has a seed of its own
    Column("key_id", String(36)),  # the API key that asked; null: a command of the machine, or nobody
    Column("requested_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("finished_at", Instant),
    Column("base_before", BigInteger),
    Column("base_after", BigInteger),
    Column("snapshot_seq", BigInteger),  # the audit log's size when its training data were read
    Column("erasures", Integer, nullable=False, default=0, server_default="0"),  # how many it is to erase, or erased
    Column("steps", JSON, nullable=False, default=dict, server_default="{}"),  # step -> {at, seconds}
    Column("progress", JSON, nullable=False, default=dict, server_default="{}"),  # share in [0, 1], left_s, note
    Column("problem", String(64)),  # code of what stopped it, or keeps it waiting
    Column("facts", JSON, nullable=False, default=dict, server_default="{}"),  # gate, dataset hash, purge, residue
    CheckConstraint("status IN ('waiting','running','done','refused','failed','cancelled')", name="status"),
    Index("ix_compactions_status", "status"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", Key, primary_key=True, autoincrement=True),
    Column("epoch", BigInteger, nullable=False),
    Column("version", BigInteger, unique=True),
    Column("step", String(16), nullable=False),  # journal: written before the step begins
    Column("size", Integer, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("finished_at", Instant),
    Column("outcome", String(16)),
)

versions = Table(
    "versions",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(9), nullable=False),
    Column("status", String(10), nullable=False),
    Column("base", BigInteger, nullable=False),
    Column("parent", BigInteger),
    Column("erasure_seq", BigInteger, nullable=False),  # every erasure up to this audit seq is forgotten in it
    Column("manifest", JSON, nullable=False),
    Column("gate", JSON),
    Column("created_at", Instant, nullable=False),
    CheckConstraint("kind IN ('base','forgotten')", name="kind"),
    CheckConstraint("status IN ('ready','held','retired','purged')", name="status"),
)

aliases = Table(
    "aliases",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("version", BigInteger, ForeignKey("versions.version"), nullable=False),
    Column("moved_at", Instant, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("holder", String(64), nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("seen_at", Instant),  # the latest beat; told to people, never compared to decide who works
    Column("trouble", String(128)),  # what keeps the holder from its work: see platform.obstacles
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("token_sha256", LargeBinary(32), nullable=False),
    Column("label", String(100), nullable=False),
    Column("scopes", String(100), nullable=False),  # space separated
    Column("created_at", Instant, nullable=False),
    Column("revoked_at", Instant),
    Column("expires_at", Instant),
    Column("last_used_at", Instant),  # right to about a minute
    Column("owner", String(36), nullable=False, server_default=""),  # id of the label's first key, or its own
    UniqueConstraint("token_sha256"),
    Index("ix_api_keys_label", "label"),
)
