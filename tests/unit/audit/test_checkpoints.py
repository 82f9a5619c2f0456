"""Heads of the log: signed once a size, never beside what was signed before, provable from any of them to any other."""

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from sqlalchemy import Connection, delete, func, select, update
from tlog_scales import signing, tlog

from service.audit import keys, proofs, repository, service
from service.audit.checkpoints import CheckpointPublisher
from service.audit.service import AuditEvent
from service.audit.tlog.checkpoint import LogCheckpoint
from service.audit.tlog.merkle import verify_consistency, verify_inclusion
from service.audit.tlog.note import KeyKind, SignedNote, SigningKey
from service.audit.tree import LogDamaged, store_nodes, tree_of
from service.audit.witnesses import Witness, Witnesses
from service.platform.clock import SystemClock
from service.platform.database import Database
from service.platform.problem import InvalidRequest
from service.platform.tables import audit_entries, audit_nodes
from service.settings import SettingsError, load_settings

KEY = SigningKey("test.example/log", b"k" * 32)
AT = datetime(2026, 11, 25, tzinfo=UTC)


def grow(database: Database, count: int) -> None:
    """Append entries."""

    def unit(connection: Connection) -> None:
        first = service.reserve(connection, count)
        entries = [AuditEvent("test.happened", {"n": number}) for number in range(count)]
        service.write(connection, first, entries, AT)

    database.transact(unit)


def publisher(database: Database, key: SigningKey = KEY, witnesses: Witnesses | None = None) -> CheckpointPublisher:
    """What signs."""
    return CheckpointPublisher(database, key, SystemClock(), witnesses)


def head(database: Database) -> tuple[LogCheckpoint, str]:
    """The signed head as it is now."""
    return asyncio.run(publisher(database).latest())


@pytest.mark.P7
def test_an_empty_log_has_a_head(database: Database):
    """Of size 0."""
    checkpoint, note = head(database)

    assert checkpoint.size == 0
    assert LogCheckpoint.verified(note, [KEY.verifier], KEY.verifier.name) == checkpoint


@pytest.mark.P7
def test_every_head_continues_the_one_before(database: Database):
    """Across the edges of tiles, to a verifier that nobody here wrote."""
    heads = [head(database)[0]]
    for count in (1, 254, 1, 1, 300, 200):
        grow(database, count)
        heads.append(head(database)[0])

    assert [each.size for each in heads] == [0, 1, 255, 256, 257, 557, 757]
    for old in heads:
        for new in heads:
            if old.size <= new.size:
                made = asyncio.run(proofs.consistency(database, publisher(database), old.size, new.size or None))
                if made.size == new.size:
                    tlog.ConsistencyProof(old.size, new.size, list(made.hashes)).check(old.root, new.root)


@pytest.mark.P7
def test_proofs_are_the_same_before_and_after_hashes_over_tiles_are_stored(database: Database):
    """They are a help for speed alone."""
    grow(database, 600)
    before = database.query(lambda connection: tree_of(connection, 600).root())
    checkpoint, _ = head(database)
    stored = database.query(lambda connection: connection.scalar(select(func.count()).select_from(audit_nodes)))
    grow(database, 70)

    assert checkpoint.root == before
    assert stored == 2
    after = database.query(lambda connection: tree_of(connection, 600).root())
    assert after == before


def test_hashes_over_tiles_are_stored_in_bounded_steps(database: Database):
    """A log that nobody signed for long is caught up with, step by step, by several at once."""
    grow(database, 256 * 5 + 3)
    steps = 0
    while database.transact(lambda connection: store_nodes(connection, 1283, most=2)):
        steps += 1

    assert steps == 3
    assert not database.transact(lambda connection: store_nodes(connection, 1283))


@pytest.mark.P7
@pytest.mark.parametrize("index", [0, 255, 256, 599])
def test_an_entry_is_proven(database: Database, index: int):
    """With a head that is signed."""
    grow(database, 600)

    made = asyncio.run(proofs.inclusion(database, publisher(database), index))

    checkpoint = LogCheckpoint.verified(made.checkpoint, [KEY.verifier])
    verify_inclusion(made.leaf_hash, index, checkpoint.size, made.hashes, checkpoint.root)
    entry = database.query(lambda connection: repository.entries(connection, index, 1))[0]
    assert made.log_proof().verify(entry, [KEY.verifier]) == checkpoint


def test_a_proof_to_an_older_head_is_the_one_that_was_given_then(database: Database):
    """So that a receipt that is made again has the same bytes."""
    grow(database, 5)
    first = asyncio.run(proofs.inclusion(database, publisher(database), 3))
    grow(database, 500)
    head(database)

    assert asyncio.run(proofs.inclusion(database, publisher(database), 3, first.size)) == first


def test_what_the_log_has_not_is_refused(database: Database):
    """An index or a size beyond its end."""
    grow(database, 3)
    signs = publisher(database)

    for call in (
        proofs.inclusion(database, signs, 3),
        proofs.inclusion(database, signs, 0, 4),
        proofs.consistency(database, signs, 4),
        proofs.consistency(database, signs, 1, 4),
    ):
        with pytest.raises(InvalidRequest) as refused:
            asyncio.run(call)
        assert "3 entries" in refused.value.errors[0].detail


@pytest.mark.P7
def test_a_log_that_lost_or_changed_an_entry_is_not_signed(database: Database):
    """The head that was signed does not follow from what is stored: nothing is signed beside it."""
    grow(database, 10)
    head(database)
    changed = update(audit_entries).where(audit_entries.c.seq == 4).values(leaf_hash=b"x" * 32)
    database.transact(lambda connection: connection.execute(changed))
    grow(database, 1)
    with pytest.raises(LogDamaged):
        head(database)

    lost = delete(audit_entries).where(audit_entries.c.seq == 5)
    database.transact(lambda connection: connection.execute(lost))
    with pytest.raises(LogDamaged):
        head(database)


@pytest.mark.P7
def test_many_that_sign_at_once_sign_one_head(database: Database):
    """The same text and signature, one row."""
    grow(database, 300)

    async def race() -> set[str]:
        return {note for _, note in await asyncio.gather(*(publisher(database).latest() for _ in range(5)))}

    assert len(asyncio.run(race())) == 1


@pytest.mark.P7
@pytest.mark.parametrize("nth", range(1, 5))
def test_a_log_that_grows_and_is_signed_meanwhile_is_not_called_damaged(database: Database, nth: int):
    """Another replica writes and signs between two reads of this one, wherever that is."""
    grow(database, 9)
    slow = publisher(database)
    units = {name: getattr(database, name) for name in ("run_read", "run_write")}
    left = [nth]

    async def signed_meanwhile(name: str, work: Callable[[Connection], object]) -> object:
        done = await units[name](work)
        left[0] -= 1
        if left[0] == 0:
            await asyncio.to_thread(grow, database, 1)
            await publisher(database).latest()
        return done

    with pytest.MonkeyPatch.context() as patched:
        for name in units:
            patched.setattr(database, name, partial(signed_meanwhile, name))
        checkpoint, _ = asyncio.run(slow.latest())

    assert checkpoint.size in (9, 10)
    assert checkpoint.root == head(database)[0].root or checkpoint.size == 9


@pytest.mark.P7
def test_keys_rotate_and_both_stay_published(database: Database):
    """The name stays: old heads verify with the old key, new ones with the new, and growth across is proven."""
    grow(database, 3)
    old, old_note = head(database)
    new_key = SigningKey(KEY.verifier.name, b"n" * 32)
    grow(database, 3)

    signs = publisher(database, new_key)
    new, new_note = asyncio.run(signs.latest())
    rows = asyncio.run(signs.keys())

    assert [row.until is None for row in rows] == [False, True]
    assert keys.verifier_keys(rows) == [KEY.verifier, new_key.verifier]
    assert LogCheckpoint.verified(old_note, [KEY.verifier]) == old
    assert LogCheckpoint.verified(new_note, [new_key.verifier]) == new
    made = asyncio.run(proofs.consistency(database, signs, old.size))
    verify_consistency(old.size, old.root, new.size, new.root, made.hashes)
    assert keys.jwk(rows[1])["kid"] == new_key.verifier.key_id.hex()


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path):
    """Replaced only by who asks for it, under the same name."""
    settings = load_settings(home=tmp_path)
    first, again = keys.load_signing_key(settings), keys.load_signing_key(settings)
    assert first.verifier == again.verifier
    assert (tmp_path / keys.KEY_FILE).stat().st_mode & 0o777 == 0o600

    rotated, in_home = keys.rotate_signing_key(settings)

    assert in_home
    assert rotated.verifier.name == first.verifier.name
    assert keys.load_signing_key(settings).verifier == rotated.verifier != first.verifier
    (tmp_path / keys.KEY_FILE).write_text("nonsense")
    with pytest.raises(SettingsError, match="no signing key"):
        keys.load_signing_key(settings)


def test_hosts_that_share_a_secret_sign_as_one_log(tmp_path):
    """Without a file: their homes may be read-only. A key of its own takes precedence, and is shown to be set."""
    hosts = [load_settings(home=tmp_path / name, secret_key="s" * 40) for name in ("a", "b")]
    first, second = (keys.load_signing_key(host).verifier for host in hosts)
    rotated, in_home = keys.rotate_signing_key(hosts[0])
    own = load_settings(home=tmp_path / "a", secret_key="s" * 40, log_key=rotated.secret_text())

    assert first == second
    assert not in_home
    assert not list(tmp_path.iterdir())
    assert keys.load_signing_key(own).verifier == rotated.verifier
    assert rotated.verifier.name == first.name
    stranger = load_settings(home=tmp_path, secret_key="t" * 40)
    assert keys.load_signing_key(stranger).verifier.name != first.name


class _WitnessServer(BaseHTTPRequestHandler):
    """A witness (C2SP tlog-witness) whose checks are another implementation's."""

    key = signing.PlainEd25519Signer(KEY.verifier.name, b"k" * 32).vkey
    secret = SigningKey("witness.example/w", b"w" * 32, KeyKind.COSIGNATURE)
    seen: tlog.Checkpoint | None = None
    cosigned = 0

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        lines, _, note = body.partition("\n\n")
        old, *hashes = lines.split("\n")
        state = type(self)
        checkpoint = tlog.Checkpoint.from_text(note)
        checkpoint.verify(self.key)
        seen = 0 if state.seen is None else state.seen.size
        if int(old.removeprefix("old ")) != seen:
            self._answer(409, f"{seen}\n")
            return
        if state.seen is not None:
            proof = tlog.ConsistencyProof(seen, checkpoint.size, [base64.b64decode(each) for each in hashes])
            proof.check(state.seen.root_hash, checkpoint.root_hash)
        state.seen = checkpoint
        state.cosigned += 1
        self._answer(200, self.secret.cosign(checkpoint.serialize_body(), 1_700_000_000).line())

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        data = text.encode()
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def witness() -> Iterator[Witness]:
    """A witness that listens."""
    _WitnessServer.seen, _WitnessServer.cosigned = None, 0
    server = HTTPServer(("127.0.0.1", 0), _WitnessServer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield Witness(f"http://127.0.0.1:{server.server_port}", _WitnessServer.secret.verifier)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.P7
def test_a_witness_cosigns_what_it_has_checked(database: Database, witness: Witness):
    """From what it has seen on; a process that does not know how far that is learns it from its answer."""
    grow(database, 5)
    asyncio.run(_cosigned(database, witness))
    grow(database, 500)
    note = asyncio.run(_cosigned(database, Witness(witness.url, witness.key)))

    assert SignedNote.parse(note).verify([KEY.verifier, witness.key]) == [KEY.verifier, witness.key]
    assert _WitnessServer.cosigned == 2
    tlog.Checkpoint.from_text(note).verify(signing.Vkey.from_string(str(witness.key)))
    asyncio.run(_cosigned(database, witness))
    assert _WitnessServer.cosigned == 2


def test_a_witness_that_is_away_or_signs_with_another_key_changes_nothing(database: Database, witness: Witness):
    """The head stands as the log signed it."""
    grow(database, 5)
    stranger = SigningKey("witness.example/w", b"x" * 32, KeyKind.COSIGNATURE)

    for each in (Witness("http://127.0.0.1:9", witness.key), Witness(witness.url, stranger.verifier)):
        note = asyncio.run(_cosigned(database, each))
        assert SignedNote.parse(note).verify([KEY.verifier, each.key]) == [KEY.verifier]


async def _cosigned(database: Database, witness: Witness) -> str:
    witnesses = Witnesses([witness])
    signs = publisher(database, witnesses=witnesses)
    checkpoint, note = await signs.latest()
    await witnesses.cosign(database, checkpoint, note)
    return (await signs.latest())[1]


@pytest.mark.parametrize("text", ["", "ftp://x a+b", "http://x", f"http://x {KEY.verifier}", "http://x a+00+AA=="])
def test_a_witness_that_makes_no_sense_is_refused(text: str):
    """By what is missing; a log's own key is not one of a witness."""
    with pytest.raises(ValueError, match=r"witness|verifier key|kind 4"):
        Witness.parse(text)
