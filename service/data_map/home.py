"""The files below the home: paths with `*` for one name; `#` names a tensor in a file."""

from service.data_map.places import DataKind, DataPlace, DataStore, GoesAt, impersonal, places

_VERSION = "store/versions/*"
_BASE_KEPT = "The base of an erased person's vectors is purged once a new base, trained without them, is in use."


def _files(
    names: str, holds: DataKind | tuple[DataKind, ...], goes: GoesAt, kept: str, gap: str | None = None
) -> tuple[DataPlace, ...]:
    return places(DataStore.HOME, names.split(), holds, goes, kept, gap)


_MODEL_STORE = (
    *_files(
        f"{_VERSION}/embeddings.safetensors#users {_VERSION}/embeddings.safetensors#items",
        DataKind.VECTOR,
        GoesAt.FORGOTTEN,
        "The next version is made without the erased pairs; a row without an interaction left is zero. Versions before "
        "it are purged but for EXPUNGE_KEEP_VERSIONS of them; these, and the base, when it is erased.",
    ),
    *_files(
        f"{_VERSION}/embeddings.safetensors#user_keys {_VERSION}/embeddings.safetensors#item_keys",
        DataKind.KEY,
        GoesAt.ERASED,
        "Which row is whose. The key of an erased person is in no version of the base that was trained without them.",
    ),
    *_files(
        f"{_VERSION}/embeddings.safetensors#user_degrees {_VERSION}/embeddings.safetensors#item_degrees",
        DataKind.FACT,
        GoesAt.FORGOTTEN,
        "How many interactions a row has left in this version. Older counts go with their versions.",
    ),
    *_files(f"{_VERSION}/base.safetensors#e0", DataKind.VECTOR, GoesAt.ERASED, _BASE_KEPT),
    *_files(
        f"{_VERSION}/base.safetensors#edges {_VERSION}/base.safetensors#validation",
        DataKind.KEY,
        GoesAt.ERASED,
        "The pairs that the base was trained and measured on, as rows of the key tensors beside it. " + _BASE_KEPT,
    ),
    *_files(
        f"{_VERSION}/manifest.json store/encoders/*/manifest.json",
        DataKind.COMMITMENT,
        GoesAt.ERASED,
        "As versions.manifest in the database. Purged with its version.",
    ),
    *_files(
        "store/encoders/*/encoder.safetensors#h0",
        DataKind.VECTOR,
        GoesAt.ERASED,
        "One row a user and an item. Purged with its base.",
    ),
    *_files(
        "store/encoders/*/encoder.safetensors#weight store/encoders/*/encoder.safetensors#mlp0 "
        "store/encoders/*/encoder.safetensors#mlp1 store/encoders/*/encoder.safetensors#mlp2 "
        "store/encoders/*/encoder.safetensors#mlp3 "
        "store/encoders/*/encoder.safetensors#expectation_mean store/encoders/*/encoder.safetensors#expectation_scale "
        "store/encoders/*/encoder.safetensors#expectation_weight",
        DataKind.VECTOR,
        GoesAt.ERASED,
        "Weights shared by all, learnt from all: no row is one person's. Purged with its base.",
    ),
    *_files(
        "store/versions/.tmp-* store/versions/.gone-* store/encoders/.tmp-* store/encoders/.gone-*",
        (DataKind.VECTOR, DataKind.KEY),
        GoesAt.RETENTION,
        "What an interrupted publish or purge left; the worker takes it away when it takes the lease, a purge, too.",
    ),
    *impersonal(
        DataStore.HOME,
        [
            "store/aliases/*",
            "store/aliases/.tmp-*",
            "store/.tmp-*",
            "store/.markers.lock",
            "store/ledger/.lock",
            "store/key.check",
        ],
        "Numbers of versions, a check value of the secret key.",
    ),
    *_files(
        "store/watermark.json",
        DataKind.COMMITMENT,
        GoesAt.NEVER,
        "How far the database had come: sizes, and hashes of the log's entries.",
    ),
    *_files(
        "store/ledger/*.jsonl store/ledger.damaged-*/*.jsonl",
        (DataKind.DIGEST, DataKind.REQUEST, DataKind.COMMITMENT, DataKind.FACT),
        GoesAt.NEVER,
        "The erasures that were accepted, in keyed digests: by it a database restored from before one is cleaned.",
    ),
)

_DATABASE_FILES = (
    *_files(
        "expunge.db",
        (DataKind.ID, DataKind.DIGEST, DataKind.KEY, DataKind.TEXT, DataKind.FACT),
        GoesAt.ERASED,
        "SQLite: the tables above, column by column.",
    ),
    *_files(
        "expunge.db-wal expunge.db-journal",
        (DataKind.ID, DataKind.DIGEST, DataKind.KEY, DataKind.TEXT, DataKind.FACT),
        GoesAt.ERASED,
        "SQLite's write-ahead log; see `write-ahead log` above. Emptied by a purge; gone after a clean stop.",
    ),
    *impersonal(DataStore.HOME, ["expunge.db-shm"], "An index of page numbers."),
)

_LEARNING = (
    *_files(
        "checkpoints/compaction-*.npz",
        (DataKind.VECTOR, DataKind.KEY),
        GoesAt.RETENTION,
        "What a compaction under way trains on, in surrogate keys, and how far that training is. Taken away when the "
        "compaction ends, or by the next compactor where one died.",
    ),
    *_files(
        "checkpoints/*.npz",
        (DataKind.VECTOR, DataKind.COMMITMENT),
        GoesAt.RETENTION,
        "A training or pre-training under way. Taken away when it ends well, and by each purge.",
    ),
    *_files(
        "purge/*.evidence purge/.*.evidence.part",
        (DataKind.COMMITMENT, DataKind.DIGEST, DataKind.REQUEST),
        GoesAt.RETENTION,
        "As erasure_evidence.body, made before the purge. Taken away when the compaction is done.",
    ),
    *_files(
        "imported.json",
        DataKind.TEXT,
        GoesAt.NEVER,
        "Where the latest import was read from and how: a path, no id. The next import writes over it.",
    ),
    *_files(
        "datasets/*/*",
        (DataKind.ID, DataKind.TEXT),
        GoesAt.NEVER,
        "MovieLens 100K, which `expunge demo` downloads: public, its ids are numbers of unknown people.",
    ),
)

_KEYS = impersonal(
    DataStore.HOME,
    ["secret.key", ".secret.key-*", "log.key", ".log.key-*"],
    "Secrets of the service, of no person. Whoever has secret.key can test guesses of ids against every digest.",
)

_STREAM_FILES = (
    *_files(
        "valkey/appendonlydir/*",
        DataKind.REQUEST,
        GoesAt.RETENTION,
        "Commands of the embedded server: ids of erasures, also of those taken out. Written anew by each purge, and by "
        "the server at 8 MB and twice the size.",
    ),
    *_files(
        "valkey/appendonlydir.damaged-*/*",
        DataKind.REQUEST,
        GoesAt.RETENTION,
        "A file of commands that could not be read, set aside; the latest is kept until a purge.",
    ),
    *impersonal(
        DataStore.HOME,
        ["valkey/server.log", "valkey/lock", "valkey/address", "valkey/server.sock"],
        "The embedded server's warnings, its lock, its address and password.",
    ),
)

_TEMPORARY = (
    *_files(
        "purge/*.needles purge/.*.needles.*",
        (DataKind.ID, DataKind.DIGEST, DataKind.KEY, DataKind.VECTOR, DataKind.TEXT, DataKind.COMMITMENT),
        GoesAt.ERASED,
        "What a purge looks for, of the erasures that it completes: mode 0600, from before the purge until the search "
        "found nothing; then written over and unlinked.",
    ),
    *impersonal(
        DataStore.HOME, ["serve.log"], "The log of `expunge demo --keep`: the fields of the log, as listed below."
    ),
)

HOME = (*_DATABASE_FILES, *_MODEL_STORE, *_LEARNING, *_KEYS, *_STREAM_FILES, *_TEMPORARY)
"""Every file that the service writes below its home."""
