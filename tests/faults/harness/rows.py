"""The rows A1 to F10: what goes wrong, what must hold, and what stands for each: trials, kills, tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.harness.trial import Script
from tests.faults.harness.world import LARGE, SMALL

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Row:
    """One row of the list of faults.

    Args:
        what: the fault, in a few words.
        kills: names of the points at which processes are killed for it.
        script: what a trial of it is.
        tests: pytest nodes, below `tests/`, that are this fault.
        impossible: why it cannot happen here; then nothing else is given.
    """

    what: str
    kills: Sequence[str] = ()
    script: Script | None = None
    tests: Sequence[str] = ()
    impossible: str = ""

    @property
    def nodes(self) -> list[str]:
        """Its pytest nodes, from the root on; those whose module is not there are left out."""
        return [f"tests/{node}" for node in self.tests if (ROOT / "tests" / node.partition("::")[0]).exists()]


_HEAVY: Mapping[str, int] = {"erase_pair": 40, "recommend": 4, "subject_access": 4, "erase_user": 1, "erase_many": 1}
_CONTENDED: Mapping[str, int] = {
    "erase_pair": 10,
    "late_write": 20,
    "record": 10,
    "recommend": 30,
    "subject_access": 25,
    "cancel": 5,
    "promote": 5,
    "retry": 5,
}


def _trial(*troubles: str, seconds: float = 8.0, pause_s: float = 1.0, own_disk: bool = False) -> Script:
    return Script([troubles], seconds=seconds, pause_s=pause_s, own_disk=own_disk)


STORE = "faults/test_model_store.py::test_"
REDIS = "unit/platform/test_redis.py::test_"
DATABASE = "unit/platform/test_database.py::test_"
RECOMMEND = "api/test_recommendations.py::test_"
PIPELINE = "unit/worker/test_pipeline.py::test_"
SERVER = "unit/platform/test_http_server.py::test_"

ROWS: dict[str, Row] = {
    "A1": Row(
        "API killed before the commit", ["api.before_commit"], tests=["faults/test_api_kills.py::test_killed_before"]
    ),
    "A2": Row(
        "API killed after the commit, before the 202",
        ["api.after_commit"],
        tests=["faults/test_api_kills.py::test_killed_after_the_commit"],
    ),
    "A3": Row("relay killed between publishing and marking", ["relay.after_xadd"]),
    "A4": Row("worker killed after it claimed a batch", ["worker.after_claim"]),
    "A5": Row("worker killed while it forgets", ["worker.during_apply", "worker.after_apply", "worker.after_gate"]),
    "A6": Row(
        "worker killed after a file is written, before its rename",
        ["worker.after_file", "worker.before_rename"],
        tests=[STORE + "a_publisher_killed_at_any_step"],
    ),
    "A7": Row("worker killed after the rename, before the commit", ["worker.after_publish", "worker.before_settle"]),
    "A8": Row("worker killed after the commit, before the alias", ["worker.after_settle"]),
    "A9": Row(
        "worker killed after the alias moved",
        ["worker.after_alias"],
        tests=[RECOMMEND + "an_erased_pair_stays_hidden_through_swap_rollback_and_restart"],
    ),
    "A10": Row(
        "worker killed before it acknowledges",
        ["worker.before_ack"],
        tests=["faults/test_worker_streams.py::test_deliveries_that_a_killed_worker_left"],
    ),
    "A11": Row(
        "killed while the log grows or a receipt is made",
        ["worker.before_settle", "worker.after_settle"],
        tests=[
            "attacks/test_receipts.py::test_made_again_it_has_the_same_bytes",
            "unit/audit/test_audit.py::test_a_transaction_that_fails_leaves_no_gap",
            "unit/audit/test_checkpoints.py::test_a_log_that_grows_and_is_signed_meanwhile",
        ],
    ),
    "A12": Row(
        "API killed while it loads a version", ["api.during_load"], _trial("die_while_loading", "kill_api", pause_s=2)
    ),
    "A13": Row(
        "a crash loop under load",
        script=_trial("crash_loop", seconds=60, pause_s=0.2),
        tests=["faults/test_worker_nemesis.py::test_a_crash_loop_under_load_loses_nothing"],
    ),
    "B1": Row(
        "stream server killed, back with its log",
        script=_trial("redis_killed"),
        tests=["faults/test_embedded_server.py::test_entries_survive_a_restart"],
    ),
    "B2": Row(
        "stream server back empty, flushed, its group gone",
        script=_trial("redis_emptied", "redis_flushed", "redis_group_lost"),
        tests=["faults/test_worker_streams.py::test_losing_the_stream_while_a_worker_waits"],
    ),
    "B3": Row(
        "the stream server's log torn, or a byte of it flipped",
        script=_trial("redis_log_torn", "redis_log_flipped"),
        tests=["faults/test_embedded_server.py::test_a_damaged_log_does_not_keep_the_service_down"],
    ),
    "B4": Row(
        "stream server away",
        script=_trial("redis_away", seconds=12),
        tests=["unit/platform/test_health.py::test_without_redis_the_service_is_degraded_and_ready"],
    ),
    "B5": Row(
        "stream server slow: half a second a command",
        script=_trial("redis_slow"),
        tests=[REDIS + "a_server_that_never_answers_costs_no_more_than_the_time_limit"],
    ),
    "B6": Row(
        "stream server refuses writes: out of memory, a replica",
        script=_trial("redis_refuses"),
        tests=[REDIS + "a_server_out_of_memory_is_unavailable_for_now"],
    ),
    "B7": Row(
        "stream server that evicts, or is too old",
        tests=[
            REDIS + "a_server_that_evicts_is_refused",
            REDIS + "a_server_before_version_7_is_refused",
            "api/test_application.py::test_a_redis_that_evicts_is_refused_at_the_start",
        ],
    ),
    "B8": Row("connections cut, answers lost", script=_trial("redis_cut", "redis_answers_lost")),
    "B9": Row(
        "deliveries a hundred times, out of order, late",
        script=_trial("duplicates", pause_s=0.5),
        tests=["faults/test_worker_streams.py::test_deliveries_repeated_out_of_order_and_late"],
    ),
    "C1": Row(
        "database restarted or failed over in a transaction",
        script=_trial("database_cut", "database_killed", seconds=14, pause_s=3),
    ),
    "C2": Row(
        "serialization failure, deadlock, busy",
        script=_trial("database_busy"),
        tests=[
            DATABASE + "a_transient_error_runs_the_whole_unit_again",
            DATABASE + "retries_come_to_an_end",
            DATABASE + "two_transactions_that_deadlock_both_end_stored",
            DATABASE + "another_process_that_holds_the_file_is_waited_for",
        ],
    ),
    "C3": Row(
        "outcome of a commit unknown",
        ["api.after_commit"],
        tests=[
            DATABASE + "a_commit_whose_outcome_is_unknown_is_not_repeated",
            "unit/erasures/test_accepting.py::test_what_fails_after_the_commit_is_stored_and_a_retry_finds_it",
        ],
    ),
    "C4": Row(
        "the database's disk full",
        script=_trial("disk_full", own_disk=True),
        tests=[DATABASE + "a_full_disk_is_told_and_reads_go_on"],
    ),
    "C5": Row(
        "schema up, down, up with data; old code beside a new schema",
        tests=[
            "unit/migrations/test_migrations.py::test_up_down_up_works_with_rows_in_every_table",
            "unit/platform/test_health.py::test_a_newer_schema_is_ready",
        ],
    ),
    "C6": Row(
        "a backup from before an erasure restored",
        ["replay.chunk", "replay.before_ledger", "replay.after_fork", "replay.before_watermark"],
        tests=[
            "faults/test_restore_drill.py::test_a_restored_backup_brings_nobody_back",
            "unit/erasures/test_replay.py::test_a_database_that_lost_its_last_commits_is_the_same_case",
        ],
    ),
    "C7": Row(
        "a long reader pins what was deleted",
        tests=["unit/residue/test_servers.py::test_a_dead_row_is_found_with_what_pins_it"],
    ),
    "D1": Row(
        "model file torn, empty, flipped, malformed, not finite, of another shape",
        script=_trial("model_damaged", pause_s=1.5),
        tests=[
            STORE + "a_file_damaged_on_disk_is_refused_by_name",
            STORE + "a_damaged_manifest_is_refused",
            STORE + "a_file_that_agrees_with_its_checksum_still_has_to_be_right",
            "unit/model_store/test_tensors.py::test_a_header_out_of_bounds_is_refused",
            "unit/model_store/test_tensors.py::test_each_difference_from_the_manifest_has_its_name",
            "property/test_model_store.py::test_any_single_bit_flip_in_any_file_is_refused",
            "faults/test_damaged_live.py::test_a_worker_that_is_told_makes_it_again_at_once",
        ],
    ),
    "D2": Row("a pickle in the store", tests=[STORE + "a_pickle_in_the_store_is_never_opened"]),
    "D3": Row(
        "store read-only, out of inodes, slow to sync, full at each write",
        script=_trial("disk_full", "inodes_full", "slow_disk", seconds=12, own_disk=True),
        tests=[
            STORE + "a_write_refused_at_any_call_leaves_no_half_version",
            STORE + "a_read_only_folder_refuses_by_name",
            STORE + "a_limit_on_file_size_refuses_by_name",
        ],
    ),
    "D4": Row(
        "an operator goes back to a version from before an erasure",
        script=Script([[]], seconds=8, weights=_CONTENDED),
        tests=[
            "unit/models/test_models.py::test_a_version_from_before_a_settled_erasure_is_fenced",
            "api/test_models.py::test_a_version_that_holds_an_accepted_erasure_cannot_be_made_live",
        ],
    ),
    "D5": Row(
        "two versions with one number",
        tests=[
            "unit/model_store/test_store.py::test_a_publisher_beaten_to_the_number_fails_cleanly",
            "unit/model_store/test_store.py::test_a_number_is_never_given_to_other_content",
            "unit/models/test_models.py::test_the_next_number_is_above_all_that_were_ever_given",
        ],
    ),
    "D6": Row(
        "symlinks and names that lead out of the store",
        tests=[
            STORE + "a_symlink_in_the_place_of_anything_is_refused",
            STORE + "an_alias_that_is_a_symlink_is_refused",
            STORE + "no_name_leads_out_of_the_store",
        ],
    ),
    "E1": Row(
        "the clock steps an hour, or a second, forth and back",
        script=_trial("clock_stepped"),
        tests=[
            "unit/erasures/test_relay.py::test_a_clock_that_was_set_back_does_not_delay_the_sweep",
            "unit/platform/test_gauges.py::test_a_clock_that_stepped_back_shows_no_negative_age",
        ],
    ),
    "E2": Row(
        "a worker asleep past its lease, beside another",
        script=_trial("pause_worker", pause_s=0.5, seconds=12),
        tests=[
            "faults/test_worker_kills.py::test_a_worker_that_slept_through_its_lease_is_fenced",
            "unit/worker/test_worker.py::test_two_workers_share_the_work_without_doing_it_twice",
            "faults/test_worker_nemesis.py::test_no_random_trouble_breaks_a_promise",
        ],
    ),
    "E3": Row(
        "erasing, writing, reading, cancelling, promoting the same at once",
        script=Script([[]], seconds=10, rate=150, weights=_CONTENDED, world=SMALL),
        tests=["property/test_erasures.py::test_no_sequence_of_calls_breaks_a_promise"],
    ),
    "E4": Row(
        "the last of a user, of an item; the unknown; the erased already",
        tests=[
            RECOMMEND + "who_erased_all_of_it_pair_by_pair_is_unknown_at_once",
            PIPELINE + "a_whole_user_is_reset",
            PIPELINE + "a_whole_item_is_reset",
            PIPELINE + "what_the_model_never_learnt_makes_no_version",
            PIPELINE + "an_erasure_that_is_asked_for_twice_makes_one_version",
            "unit/models/test_models.py::test_an_erasure_that_matched_nothing_fences_nothing",
        ],
    ),
    "E5": Row(
        "ten thousand erasures at once, a third of all data",
        script=Script([[]], seconds=150, rate=1e6, most=12_000, weights=_HEAVY, world=LARGE),
        tests=[
            "unit/erasures/test_accepting.py::test_ten_thousand_targets_are_one_erasure",
            "unit/erasures/test_accepting.py::test_the_backlog_is_bounded",
        ],
    ),
    "E6": Row(
        "an erasure that cannot be done",
        script=_trial("fail_at_a_point", pause_s=2),
        tests=[
            PIPELINE + "a_poisonous_erasure_is_set_aside_and_the_rest_goes_on",
            PIPELINE + "a_lone_failure_is_tried_again_before_it_is_set_aside",
            "unit/worker/test_worker.py::test_an_erasure_with_which_the_process_died_each_time_is_set_aside",
        ],
    ),
    "E7": Row(
        "callers that go away, drip, send too much",
        tests=[
            SERVER + "a_head_that_never_ends_is_cut_off_however_it_drips",
            SERVER + "a_body_that_goes_on_after_its_answer_ends",
            SERVER + "the_connection_that_waits_the_longest_makes_room",
            "unit/platform/test_middleware.py::test_a_streamed_body_over_the_limit_is_refused",
            "unit/platform/test_middleware.py::test_a_body_that_never_ends_is_given_up",
            "faults/test_strangers.py::test_endless_headers_do_not_fill_the_memory",
        ],
    ),
    "E8": Row(
        "SIGTERM under load",
        script=_trial("stop_in_order", pause_s=2),
        tests=[
            "faults/test_strangers.py::test_who_waits_while_the_service_stops_is_told_of_the_acceptance",
            "faults/test_worker_kills.py::test_the_command_drains_and_ends_with_status_zero",
            "cli/test_serve.py::test_sigterm_ends_all_in_order",
        ],
    ),
    "F1": Row(
        "a key asks for what is another's",
        tests=[
            "api/test_erasure_access.py::test_a_key_sees_its_own_erasures_alone",
            "api/test_erasure_access.py::test_an_idempotency_key_belongs_to_its_api_key",
            "api/test_receipts.py::test_a_key_gets_its_own_receipts_and_an_officer_all",
        ],
    ),
    "F2": Row(
        "a caller sets what is not his to set",
        tests=[
            "api/test_declared.py::test_every_body_is_closed_at_every_depth",
            "api/test_declared.py::test_every_route_refuses_what_it_does_not_declare",
            "property/test_openapi.py::test_every_answer_is_as_it_is_described_for_long",
        ],
    ),
    "F3": Row(
        "a key without the scope",
        tests=[
            "api/test_http.py::test_each_route_takes_its_scope_alone",
            "api/test_models.py::test_reading_needs_audit_and_moving_needs_admin",
        ],
    ),
    "F4": Row(
        "a callback to an address inside",
        impossible="The service calls no address that a caller names: there are no callbacks. Witnesses are settings.",
    ),
    "F5": Row(
        "receipts and logs forged, cut, forked, replayed",
        tests=[
            "attacks/test_receipts.py::test_a_lie_is_refused_by_its_name",
            "attacks/test_receipts.py::test_a_receipt_replayed_for_another_erasure_is_refused",
            "attacks/test_logs.py::test_a_log_that_is_not_what_was_signed_is_refused",
            "attacks/test_logs.py::test_a_log_with_another_beginning_is_refused_by_who_kept_a_head",
            "attacks/test_logs.py::test_a_log_that_shrank_is_refused",
        ],
    ),
    "F6": Row(
        "line ends, terminal codes, markup, homoglyphs in ids",
        tests=[
            "unit/platform/test_logging.py::test_no_value_can_begin_a_line_or_move_the_cursor",
            "unit/platform/test_ids.py::test_what_is_no_id_is_refused_without_repeating_it",
            "unit/platform/test_middleware.py::test_a_path_id_with_control_characters_is_refused_without_repeating_it",
            "api/test_receipts.py::test_people_read_a_page_without_scripts",
            "api/test_docs_page.py::test_its_policy_lets_nothing_in_from_elsewhere",
        ],
    ),
    "F7": Row(
        "membership inference on what is served",
        tests=[
            "unit/evaluation/test_gate.py::test_a_version_that_forgot_nothing_is_held_back",
            "unit/evaluation/test_gate.py::test_a_version_that_overshoots_is_held_back",
            "unit/evaluation/test_gate.py::test_membership_figures_by_hand",
        ],
    ),
    "F8": Row(
        "was this pair ever there? the answer tells nothing",
        tests=[
            "api/test_declared.py::test_a_stranger_learns_nothing_of_what_is_known",
            "api/test_interactions.py::test_somebody_unknown_is_answered_like_somebody_without_interactions",
        ],
    ),
    "F9": Row(
        "ids and secrets in logs, metrics, errors",
        tests=[
            "canaries/test_nobody_is_named.py",
            "api/test_application.py::test_no_canary_reaches_logs_or_metrics",
        ],
    ),
    "F10": Row(
        "erasing as an attack on the model",
        tests=[
            "unit/evaluation/test_gate.py::test_a_version_that_ruins_the_ranking_is_held_back",
            "unit/worker/test_escalation.py::test_a_group_that_never_passes_costs_a_bounded_number_of_tries",
            "api/test_keys.py::test_the_targets_of_a_label_are_limited_and_what_is_refused_stores_nothing",
        ],
    ),
}
