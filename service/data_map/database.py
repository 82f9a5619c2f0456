"""The columns of the database: SQLite in the home, or PostgreSQL."""

from service.data_map.places import DataKind, DataPlace, DataStore, GoesAt, impersonal, places

_RECORD = "The record of the request stays, with its times and counts, so that a deadline kept can be shown."


def _columns(
    table: str, names: str, holds: DataKind | tuple[DataKind, ...], goes: GoesAt, kept: str, gap: str | None = None
) -> tuple[DataPlace, ...]:
    return places(DataStore.DATABASE, [f"{table}.{name}" for name in names.split()], holds, goes, kept, gap)


def _nothing(table: str, names: str) -> tuple[DataPlace, ...]:
    return impersonal(DataStore.DATABASE, [f"{table}.{name}" for name in names.split()])


_USER_ROW = "The row of a user who is erased, or of whom nothing is left once single interactions are, goes whole."
_ITEM_ROW = "The row of an item that is erased goes; one that single erased interactions name stays in the catalogue."
_VOCABULARY = (
    *_columns("users", "key", DataKind.KEY, GoesAt.ERASED, _USER_ROW),
    *_columns("users", "id", DataKind.ID, GoesAt.ERASED, _USER_ROW),
    *_columns("users", "digest", DataKind.DIGEST, GoesAt.ERASED, _USER_ROW),
    *_columns("items", "key", DataKind.KEY, GoesAt.ERASED, _ITEM_ROW),
    *_columns("items", "id", DataKind.ID, GoesAt.ERASED, _ITEM_ROW),
    *_columns("items", "digest", DataKind.DIGEST, GoesAt.ERASED, _ITEM_ROW),
    *_columns("items", "title", DataKind.TEXT, GoesAt.ERASED, _ITEM_ROW),
)

_RECORDED = (
    "The rows that an erasure covers are deleted in the transaction that makes it forgotten. What one under legal hold "
    "covers stays, hidden, until that is lifted; what was refused stays hidden."
)
_INTERACTIONS = (
    *_columns(
        "interactions",
        "user_key item_key",
        DataKind.KEY,
        GoesAt.FORGOTTEN,
        _RECORDED,
    ),
    *_columns(
        "interactions",
        "recorded_at",
        DataKind.FACT,
        GoesAt.FORGOTTEN,
        _RECORDED,
    ),
)

_ERASURES = (
    *_columns("erasures", "id", DataKind.REQUEST, GoesAt.NEVER, _RECORD),
    *_columns(
        "erasures",
        "reason",
        DataKind.TEXT,
        GoesAt.FORGOTTEN,
        "Cleared in the transaction that makes it forgotten, cancelled or refused; one that needs attention keeps it.",
    ),
    *_columns(
        "erasures",
        "extension_reason",
        DataKind.TEXT,
        GoesAt.ERASED,
        "Cleared when it is cancelled, ended by a decision, or purged.",
    ),
    *_columns(
        "erasures",
        "commitment",
        DataKind.COMMITMENT,
        GoesAt.NEVER,
        "Opened only by whoever holds the salt, which the caller got once.",
    ),
    *_columns(
        "erasures",
        "salt",
        DataKind.COMMITMENT,
        GoesAt.ERASED,
        "Cleared when it is purged: from then on the commitment says nothing to anybody here.",
    ),
    *_columns(
        "erasures",
        "status mode requested matched received_at due_at forgotten_at erased_at cancelled_at stages batch_id "
        "version_before version_after extended_at extension_ground decision decision_ground decided_at held_since "
        "purged_at",
        DataKind.FACT,
        GoesAt.NEVER,
        _RECORD,
    ),
    *_nothing("erasures", "seq attempts needs key_id owner compaction_id"),
    *_columns("erasure_evidence", "erasure_id", DataKind.REQUEST, GoesAt.NEVER, _RECORD),
    *_columns(
        "erasure_evidence",
        "body",
        (DataKind.COMMITMENT, DataKind.DIGEST, DataKind.FACT),
        GoesAt.NEVER,
        "What the purge and the search found, and that the base never learnt what was erased: by digests, keyed for "
        "that base alone, of users and items that it was trained on and that stand next to the erased ones in order; "
        "where a pair is erased and its user stays, of that user and the user's items. None of who is gone.",
    ),
    *_columns(
        "erasure_targets",
        "user_key item_key",
        DataKind.KEY,
        GoesAt.ERASED,
        "The targets of an erasure go when it is purged; until then each new version is made from them. Those of one "
        "that was cancelled go with the next purge.",
    ),
    *_columns("erasure_targets", "erasure_id", DataKind.REQUEST, GoesAt.ERASED, "Goes with the row."),
    *_columns("erasure_targets", "matched", DataKind.FACT, GoesAt.ERASED, "Goes with the row."),
    *_nothing("erasure_targets", "ordinal kind"),
    *_columns(
        "suppressions",
        "user_digest item_digest",
        DataKind.DIGEST,
        GoesAt.RETENTION,
        "What refuses a late write. Lifted when the erasure is cancelled, and once it is erased by new consent "
        "(POST /v1/consents). Mode forget: a tombstone then, for EXPUNGE_TOMBSTONE_DAYS. Mode dislike: until consent.",
    ),
    *_columns(
        "suppressions",
        "erasure_id",
        DataKind.REQUEST,
        GoesAt.RETENTION,
        "Goes with the row.",
    ),
    *_columns(
        "suppressions",
        "created_at",
        DataKind.FACT,
        GoesAt.RETENTION,
        "Goes with the row.",
    ),
    *_columns("suppressions", "until", DataKind.FACT, GoesAt.RETENTION, "Goes with the row."),
    *_columns(
        "outbox",
        "erasure_id",
        DataKind.REQUEST,
        GoesAt.FORGOTTEN,
        "The row is pruned at a sweep (EXPUNGE_SWEEP_SECONDS) after the erasure is forgotten or cancelled.",
    ),
    *_nothing("outbox", "seq created_at published_at"),
    *_columns(
        "idempotency",
        "key_sha256",
        DataKind.DIGEST,
        GoesAt.RETENTION,
        "SHA-256 of the caller's Idempotency-Key, unkeyed: a key that names a person could be guessed. Goes after "
        "EXPUNGE_IDEMPOTENCY_DAYS, or when its erasure is purged.",
    ),
    *_columns(
        "idempotency",
        "body_sha256",
        DataKind.DIGEST,
        GoesAt.RETENTION,
        "SHA-256 over keyed digests of the targets, the mode and the reason. Goes with the row.",
    ),
    *_columns(
        "idempotency",
        "erasure_id",
        DataKind.REQUEST,
        GoesAt.RETENTION,
        "Goes with the row.",
    ),
    *_nothing("idempotency", "key_id created_at"),
)

_LOG = (
    *_columns(
        "audit_entries",
        "erasure_id",
        DataKind.REQUEST,
        GoesAt.NEVER,
        "The log is append-only. What the request was about is in no entry.",
    ),
    *_columns(
        "audit_entries",
        "body",
        (DataKind.COMMITMENT, DataKind.REQUEST, DataKind.FACT),
        GoesAt.NEVER,
        "Commitment, counts, modes, versions, the gate's figures: of a batch of one, how that one's targets score. "
        "The commitment is opened with the salt alone.",
    ),
    *_columns("audit_entries", "leaf_hash", DataKind.COMMITMENT, GoesAt.NEVER, "The hash of the entry."),
    *_nothing("audit_entries", "seq at event version"),
    *_columns("audit_nodes", "hash", DataKind.COMMITMENT, GoesAt.NEVER, "A hash over 256 entries or nodes."),
    *_nothing("audit_nodes", "level position"),
    *_columns("audit_checkpoints", "note", DataKind.COMMITMENT, GoesAt.NEVER, "The hash of the whole log, signed."),
    *_columns(
        "audit_checkpoints", "timestamp", DataKind.COMMITMENT, GoesAt.NEVER, "That hash, and when, signed by others."
    ),
    *_nothing("audit_checkpoints", "size signed_at"),
    *_nothing("audit_keys", "vkey since until"),
    *_nothing("audit_head", "id size"),
)

_MODELS = (
    *_columns(
        "versions",
        "manifest gate",
        (DataKind.COMMITMENT, DataKind.FACT),
        GoesAt.NEVER,
        "Settings, counts, the gate's figures (of a batch of one: how that one's targets score), hashes of its files, "
        "of what it learnt from and of the ids of the erasures that it forgot. The lineage stays when the version's "
        "bytes are purged.",
    ),
    *_nothing("versions", "version kind status base parent erasure_seq created_at"),
    *_nothing("batches", "id epoch version step size created_at finished_at outcome"),
    *_nothing("aliases", "name version moved_at"),
    *_nothing(
        "compactions",
        "id trigger status step attempt key_id requested_at started_at finished_at base_before base_after snapshot_seq "
        "erasures steps progress problem facts",
    ),
)

_OPERATION = (
    *_nothing("leases", "name epoch beat seen_at trouble"),
    *_nothing("leases", "holder"),
    *_columns(
        "api_keys",
        "label",
        DataKind.TEXT,
        GoesAt.NEVER,
        "What an operator called the key: name the system, not a person. Revoked keys stay on record.",
    ),
    *_columns("api_keys", "token_sha256", DataKind.DIGEST, GoesAt.NEVER, "SHA-256 of 256 random bits: no person's."),
    *_nothing("api_keys", "id owner scopes created_at revoked_at expires_at last_used_at"),
    *_nothing("secret_check", "id value made_at"),
)

DATABASE = (*_VOCABULARY, *_INTERACTIONS, *_ERASURES, *_LOG, *_MODELS, *_OPERATION)
"""Every column of every table of `service.platform.tables`."""

BELOW_SQL = (
    *impersonal(DataStore.DATABASE, ["alembic_version", "sqlite_sequence"], "Counters, the schema's number."),
    *places(
        DataStore.DATABASE,
        ["write-ahead log", "PostgreSQL: pg_wal"],
        (DataKind.ID, DataKind.DIGEST, DataKind.KEY, DataKind.TEXT, DataKind.FACT),
        GoesAt.ERASED,
        "Every page and row as it was written, deleted ones and cleared reasons too, until it is written over. A purge "
        "empties SQLite's -wal file, and has PostgreSQL write over old segments (EXPUNGE_PURGE_WAL_MB at most). What "
        "keeps them, a reader, a replication slot, a missing privilege, is told, and nothing is `erased` before.",
    ),
    *places(
        DataStore.DATABASE,
        ["PostgreSQL: pg_statistic"],
        (DataKind.KEY, DataKind.FACT),
        GoesAt.ERASED,
        "Samples of columns, none of ids, digests, words or salts (statistics 0). A purge has the tables analysed "
        "anew, and vacuums the samples of before where its role owns the database.",
    ),
    *places(
        DataStore.DATABASE,
        ["free pages", "PostgreSQL: dead tuples, index pages"],
        (DataKind.ID, DataKind.DIGEST, DataKind.KEY, DataKind.TEXT, DataKind.FACT),
        GoesAt.ERASED,
        "SQLite writes zeros over what it deletes (secure_delete). Of PostgreSQL's tables a purge vacuums all and "
        "writes small ones anew; large ones where bytes were found in them.",
    ),
)
"""Where bytes linger that no query shows."""
