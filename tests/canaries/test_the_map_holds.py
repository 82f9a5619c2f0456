"""The data map against what a real service left: files, tensors, keys of the stream, fields of log lines, labels."""

import json
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from service.data_map.home import HOME
from service.data_map.traces import LOG, METRICS, STREAM
from service.settings import load_settings
from tests.canaries.conftest import Story

# Only where something is interrupted, moved or damaged, or another command ran: nothing of these is left here.
RARE = {
    "store/ledger.damaged-*/*.jsonl",
    "expunge.db-journal",
    "store/versions/.tmp-*",
    "store/versions/.gone-*",
    "store/encoders/.tmp-*",
    "store/encoders/.gone-*",
    "store/aliases/.tmp-*",
    "store/.tmp-*",
    "checkpoints/*.npz",
    "checkpoints/compaction-*.npz",
    "purge/*.evidence",
    "purge/.*.evidence.part",
    "datasets/*/*",
    ".secret.key-*",
    ".log.key-*",
    "valkey/appendonlydir.damaged-*/*",
    "valkey/address",
    "valkey/server.sock",
    "serve.log",
    "purge/*.needles",
    "purge/.*.needles.*",
}

# Of an encoder that learnt what a forgotten pair should score; this one saw too little.
RARE_TENSORS = {f"store/encoders/*/encoder.safetensors#expectation_{name}" for name in ("mean", "scale", "weight")}


def matches(path: str, pattern: str) -> bool:
    """Whether a path is of a pattern whose `*` stays within one name."""
    names, wanted = path.split("/"), pattern.split("/")
    return len(names) == len(wanted) and all(map(fnmatchcase, names, wanted))


def without_rule(paths: Iterable[str], declared: Iterable[str]) -> set[str]:
    patterns = set(declared)
    return {path for path in paths if not any(matches(path, pattern) for pattern in patterns)}


def test_every_file_of_a_home_has_a_rule(story: Story) -> None:
    """While it serves and after it ended."""
    declared = {place.name.partition("#")[0] for place in HOME}

    assert without_rule(story.files_while_running | set(story.files), declared) == set()
    assert "expunge.db-wal" in story.files_while_running


def test_every_rule_of_a_file_is_for_one_that_there_is(story: Story) -> None:
    """But for those that only trouble makes."""
    patterns = {place.name.partition("#")[0] for place in HOME}
    seen = story.files_while_running | set(story.files)
    unused = {pattern for pattern in patterns if not any(matches(path, pattern) for path in seen)}

    assert unused <= RARE  # what only a compaction makes may be under way here, or not
    assert patterns >= RARE


def test_every_tensor_of_the_model_store_has_a_rule(story: Story) -> None:
    """A new tensor in a version or an encoder fails here."""
    declared = {place.name for place in HOME if "#" in place.name}
    found = {
        f"{path}#{tensor}"
        for path, data in story.files.items()
        if path.endswith(".safetensors")
        for tensor in json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        if tensor != "__metadata__"
    }

    assert without_rule(found, declared) == set()
    assert {pattern for pattern in declared if not any(matches(tensor, pattern) for tensor in found)} == RARE_TENSORS


def test_every_key_of_the_stream_server_has_a_rule(story: Story) -> None:
    """And every field of an entry."""
    name = load_settings(home=story.home).stream
    declared = {place.name.replace("<stream>", name) for place in STREAM}
    aof = b"".join(data for path, data in story.files.items() if "appendonlydir/" in path)
    # RESP: XADD key id field value; a bound on the length of the stream may stand between.
    fields = re.findall(
        rb"XADD\r\n\$\d+\r\n([^\r]+)\r\n(?:\$\d+\r\n[^\r]+\r\n)*?\$\d+\r\n\d+-\d+\r\n\$\d+\r\n([^\r]+)", aof
    )

    assert set(story.redis) <= {each.partition("#")[0] for each in declared}
    assert {f"{key.decode()}#{field.decode()}" for key, field in fields} == {f"{name}#id"}


def test_every_field_of_a_log_line_has_a_rule(story: Story) -> None:
    """As they were written by API, worker and supervisor."""
    lines = [json.loads(line) for line in story.log.splitlines() if line.startswith(b"{")]

    assert {field for line in lines for field in line} <= {place.name for place in LOG}
    assert {line["process"] for line in lines} >= {"api", "worker"}


def test_every_label_of_the_metrics_has_a_rule(story: Story) -> None:
    """As they were scraped from API and worker."""
    declared = {place.name for place in METRICS}
    for process, page in story.metrics.items():
        labels = set(re.findall(r'[{,]([a-z_]+)="', page.decode()))

        assert {"route", "le"} <= labels or process == "worker"
        assert labels <= declared, process
