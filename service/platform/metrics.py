"""Every metric of the service; names in the Prometheus manner, labels bounded, never an id in them."""

from prometheus_client import Counter, Gauge, Histogram

REQUEST_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
STAGE_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 1800, 7200, 21600, 86400)
SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

http_request_duration_seconds = Histogram(
    "expunge_http_request_duration_seconds",
    "Time from the request's head to the last byte of the answer, by route template.",
    ("method", "route", "status_class"),
    buckets=REQUEST_BUCKETS,
)
http_body_refused_total = Counter(
    "expunge_http_body_refused_total", "Bodies refused for their size or slowness.", ("reason",)
)
http_refused_total = Counter(
    "expunge_http_refused_total",
    "Connections refused before any route: large or slow heads, what is malformed, too many of them (crowded).",
    ("reason",),
)
erasure_requests_total = Counter(
    "expunge_erasure_requests_total", "Erasures asked for, by kind of target and outcome.", ("kind", "outcome")
)
erasure_duration_seconds = Histogram(
    "expunge_erasure_duration_seconds",
    "Time that an erasure spent in a stage: accept, queue, apply, gate, publish, settle.",
    ("stage",),
    buckets=STAGE_BUCKETS,
)
unlearn_batch_size = Histogram(
    "expunge_unlearn_batch_size", "Erasures that one unlearning step took together.", buckets=SIZE_BUCKETS
)
unlearn_gate_figure = Gauge("expunge_unlearn_gate_figure", "Figures of the latest gate check.", ("figure",))
unlearn_gate_total = Counter("expunge_unlearn_gate_total", "Gate checks by outcome.", ("outcome",))
fine_tune_epochs_total = Counter("expunge_fine_tune_epochs_total", "Epochs of fine-tuning that the gate asked for.")
worker_batches_total = Counter("expunge_worker_batches_total", "Batches of the worker by outcome.", ("outcome",))
erasures_fine_tuning = Gauge(
    "expunge_erasures_fine_tuning", "Erasures that wait for fine-tuning, counted up to EXPUNGE_BATCH_MAX."
)
worker_lease_held = Gauge("expunge_worker_lease_held", "Whether this worker holds the lease (1) or stands by (0).")
recommend_suppressed_filtered_total = Counter(
    "expunge_recommend_suppressed_filtered_total", "Items kept out of answers because they are suppressed."
)
recommend_unknown_users_total = Counter(
    "expunge_recommend_unknown_users_total", "Recommendations answered with popular items, the user being unknown."
)
model_load_failures_total = Counter(
    "expunge_model_load_failures_total", "Versions that were refused when loading, by named error.", ("error",)
)
relay_published_total = Counter("expunge_relay_published_total", "Outbox rows published to the stream.")
relay_failures_total = Counter("expunge_relay_failures_total", "Publishing attempts that failed.")
retries_total = Counter("expunge_retries_total", "Units of work tried again after a transient error.", ("error",))
database_behind = Gauge(
    "expunge_database_behind", "Whether the database is older than what the model store has seen of it (1) or not (0)."
)
ledger_failing = Gauge(
    "expunge_ledger_failing", "Whether this process found the ledger of erasures damaged, or could not write it (1)."
)
erasures_replayed_total = Counter(
    "expunge_erasures_replayed_total", "Erasures stored again, or cancelled again, in a database that was restored."
)
database_damaged = Gauge("expunge_database_damaged", "Whether a page of the database was found damaged (1) or not (0).")
database_check_seconds = Histogram(
    "expunge_database_check_seconds", "Time to read one table of a SQLite file through.", buckets=STAGE_BUCKETS
)
writer_queue_depth = Gauge("expunge_writer_queue_depth", "Units of work that wait for the SQLite writer.")
auth_failures_total = Counter("expunge_auth_failures_total", "Requests without a valid key or scope.", ("reason",))
limited_total = Counter("expunge_limited_total", "Requests refused by a limit of their key, by problem.", ("code",))
limits_counted_alone = Gauge(
    "expunge_limits_counted_alone", "Whether limits are counted in this process alone for want of Redis (1) or not (0)."
)
invariant_violations_total = Counter(
    "expunge_invariant_violations_total", "Checks that found a promise broken, by rule.", ("rule",)
)
audit_log_size = Gauge("expunge_audit_log_size", "Entries of the audit log that the latest signed head covers.")
audit_checkpoint_failures_total = Counter(
    "expunge_audit_checkpoint_failures_total", "Heads of the audit log that could not be signed."
)
audit_timestamps_total = Counter(
    "expunge_audit_timestamps_total",
    "Answers of the authority that was asked to stamp a head with the time, by outcome.",
    ("outcome",),
)
audit_cosignatures_total = Counter(
    "expunge_audit_cosignatures_total",
    "Answers of witnesses that were asked to cosign a head, by outcome.",
    ("outcome",),
)
