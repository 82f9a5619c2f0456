"""What a running service leaves besides its stores: stream, log lines, metrics; and what lies outside its reach."""

from service.data_map.places import DataKind, DataStore, GoesAt, impersonal, places

STREAM = (
    *places(
        DataStore.STREAM,
        ["<stream>#id"],
        DataKind.REQUEST,
        GoesAt.FORGOTTEN,
        "One entry an erasure, deleted when the worker acknowledges it; its bytes stay while its block of up to 100 "
        "entries has one that waits. EXPUNGE_STREAM names the key.",
    ),
    *places(
        DataStore.STREAM,
        ["<stream>:dead#id"],
        DataKind.REQUEST,
        GoesAt.RETENTION,
        "Erasures that were set aside; the latest 10,000 or so. An entry goes when its erasure is purged.",
    ),
    *impersonal(DataStore.STREAM, ["<stream>:dead#code"], "The code of a problem."),
    *impersonal(
        DataStore.STREAM,
        ["expunge:limits*"],
        "What the keys of a label asked for within a minute or a day, by the id of an API key; each key expires.",
    ),
)
"""Every key in Redis and the fields of its entries."""

LOG = (
    *places(
        DataStore.LOG,
        ["erasure_id", "erasures"],
        DataKind.REQUEST,
        GoesAt.NEVER,
        "Ids of erasures, or how many there were. Lines go to standard error; whoever collects them keeps them.",
    ),
    *places(
        DataStore.LOG,
        ["request_id"],
        DataKind.TEXT,
        GoesAt.NEVER,
        "A random id, or the caller's own X-Request-Id of up to 64 letters, digits, `.`, `_`, `-`: callers must put no "
        "id of a person there.",
    ),
    *impersonal(DataStore.LOG, ["event", "time", "level", "process", "logger"], "What happened, when, where."),
    *impersonal(DataStore.LOG, ["error", "at", "cause"], "Types of errors and lines of code, never their texts."),
    *impersonal(
        DataStore.LOG,
        ["detail", "next_step", "code", "rule", "reasons"],
        "Sentences, codes and names of checks of this program; paths of its own files.",
    ),
    *impersonal(
        DataStore.LOG,
        [
            "alias",
            "attempt",
            "base",
            "batch",
            "compaction",
            "encoder",
            "epoch",
            "epochs",
            "lease",
            "leftover",
            "live",
            "live_version",
            "previous",
            "step",
            "trigger",
            "version",
        ],
        "Numbers and names of versions, batches, steps; ids of compactions.",
    ),
    *impersonal(
        DataStore.LOG,
        [
            "count",
            "failed_starts",
            "failures",
            "lost",
            "pid",
            "port",
            "retry_s",
            "seconds",
            "signed",
            "size",
            "violations",
            "waiting",
        ],
        "Counts, sizes, times, numbers of processes and ports.",
    ),
    *impersonal(DataStore.LOG, ["method", "route", "status"], "The route's template: a path is never logged."),
    *impersonal(
        DataStore.LOG,
        ["server", "witness", "key_id", "counted"],
        "What another server calls itself; the id of an API key; where limits are counted.",
    ),
)
"""Every field of a log line. `service.platform.logging.REDACTED` never leave the process."""

METRICS = (
    *impersonal(
        DataStore.METRICS, ["method", "route", "status_class"], "A route's template, bounded; a path is no label."
    ),
    *impersonal(
        DataStore.METRICS,
        ["code", "error", "figure", "kind", "outcome", "reason", "rule", "source", "stage", "step", "used"],
        "Words of this program, a bounded set each.",
    ),
    *impersonal(
        DataStore.METRICS,
        [
            "version",
            "algorithm",
            "checksum",
            "python",
            "implementation",
            "major",
            "minor",
            "patchlevel",
            "generation",
            "le",
        ],
        "Numbers of versions and of software, bounds of buckets.",
    ),
)
"""Every label of every metric, of the API and of the worker; values are counts over everybody."""

_ALL = (DataKind.ID, DataKind.DIGEST, DataKind.KEY, DataKind.VECTOR, DataKind.TEXT, DataKind.FACT)

OUTSIDE = (
    *places(
        DataStore.OUTSIDE,
        ["backups of the database and of the home"],
        _ALL,
        GoesAt.RETENTION,
        "Yours to make, encrypt and delete: keep none longer than you may. A database that is restored from before an "
        "erasure is cleaned from the ledger in the store before it answers, or refused (database_behind).",
    ),
    *places(
        DataStore.OUTSIDE,
        ["files that were imported from"],
        (DataKind.ID, DataKind.TEXT, DataKind.FACT),
        GoesAt.NEVER,
        "Read in place, never copied, never changed: delete there what is erased here.",
    ),
    *places(
        DataStore.OUTSIDE,
        ["logs of proxies and load balancers"],
        DataKind.ID,
        GoesAt.NEVER,
        "Paths of the REST calls hold ids. POST /v1/erasures has them in its body.",
    ),
    *places(
        DataStore.OUTSIDE,
        ["logs of PostgreSQL and of your Redis"],
        (DataKind.ID, DataKind.REQUEST),
        GoesAt.NEVER,
        "A server that logs statements or parameters logs ids: leave that off.",
    ),
    *places(
        DataStore.OUTSIDE,
        ["answers that callers keep"],
        (DataKind.ID, DataKind.COMMITMENT),
        GoesAt.NEVER,
        "Lists, histories, the salt of the 202, receipts. A receipt names nobody; with the salt it can be opened.",
    ),
    *places(
        DataStore.OUTSIDE,
        ["exports: expunge audit export, --json files"],
        (DataKind.COMMITMENT, DataKind.REQUEST),
        GoesAt.NEVER,
        "What a person at a terminal wrote to a file. `expunge erase --json` holds what was asked for.",
    ),
    *places(
        DataStore.OUTSIDE,
        ["witnesses of the log", "authority that stamps heads with the time"],
        DataKind.COMMITMENT,
        GoesAt.NEVER,
        "Sizes and root hashes of the log; the authority has a hash of these.",
    ),
    *places(
        DataStore.OUTSIDE,
        ["temporary homes of expunge demo (expunge-demo-*)"],
        _ALL,
        GoesAt.RETENTION,
        "A home of its own below the system's temporary folder, taken away at the end unless --keep is given.",
    ),
    *places(
        DataStore.OUTSIDE,
        ["files of expunge evaluate (results, model cache)"],
        (DataKind.VECTOR, DataKind.KEY),
        GoesAt.NEVER,
        "Figures, and models trained on the data set that was named. Not part of the service: delete "
        "them with the data set.",
    ),
    *places(
        DataStore.OUTSIDE,
        ["memory, swap and core dumps of the processes"],
        _ALL,
        GoesAt.NEVER,
        "A process holds ids while it answers, and the live version. Encrypt swap; leave core dumps off.",
    ),
    *places(
        DataStore.OUTSIDE,
        ["blocks of the disk that files were deleted from"],
        _ALL,
        GoesAt.NEVER,
        "Files are unlinked, not overwritten: flash memory and copy-on-write file systems would not obey. Encrypt the "
        "disk.",
    ),
)
"""What the service does not hold, or cannot reach. No receipt speaks for it."""
