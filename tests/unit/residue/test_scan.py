"""The search of a home on SQLite: a clean one is GONE, whatever is planted is found where it is."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from safetensors.numpy import save_file
from sqlalchemy import insert, update

from service.platform import tables
from service.platform.database import Database
from service.residue.byte_search import CHUNK_BYTES
from service.residue.needles import Needles
from service.residue.report import Verdict, about_one
from service.residue.scan import ResidueScan
from service.settings import Settings
from tests.factories.domains import Domains
from tests.factories.worlds import AT, World
from tests.unit.residue.conftest import ANN, BEN, GONE_ITEM, ITEM, OTHER_ITEM, REASON, WIDTH, ZOE, Aftermath, publish

pytestmark = pytest.mark.P8


def verdicts(aftermath: Aftermath, needles: Needles | None = None) -> dict[str, str]:
    return {result.store.value: result.verdict.value for result in aftermath.search(needles).stores}


def test_a_home_that_was_purged_is_gone(aftermath: Aftermath) -> None:
    """In every store that can be searched; the digests that tombstones keep are told as such."""
    report = aftermath.search()
    found = {result.store.value: result for result in report.stores}

    assert [place for result in report.stores for place in result.places] == []
    assert not report.present
    assert {name for name, result in found.items() if result.verdict is Verdict.GONE} == {
        *("columns", "database_files", "write_ahead_log", "model_store", "checkpoints", "stream_files", "home"),
    }
    assert {name: result.verdict.value for name, result in found.items() if result.unread} == {
        "process_logs": "NOT_CHECKED",
        "stream": "NOT_CHECKED",
    }
    assert found["database_files"].n_bytes == (aftermath.home / "expunge.db").stat().st_size
    assert {place.place for place in found["columns"].allowed} == {
        "suppressions.user_digest",
        "suppressions.item_digest",
    }
    assert {place.place for place in found["database_files"].allowed} == {"expunge.db"}


def test_the_ids_that_stay_are_no_residue(aftermath: Aftermath) -> None:
    """The user and the item of a pair go on."""
    texts = {text for _, text in aftermath.needles.texts}

    assert {ZOE, GONE_ITEM, REASON} <= texts
    assert not {ANN, BEN, ITEM} & texts


SPELLINGS: dict[str, Callable[[str], bytes]] = {
    "raw": str.encode,
    "json": lambda text: json.dumps(text).encode(),
    "json utf-8": lambda text: json.dumps(text, ensure_ascii=False).encode(),
    "utf-16-le": lambda text: text.encode("utf-16-le"),
    "utf-16-be": lambda text: text.encode("utf-16-be"),
    "percent": lambda text: quote(text, safe="").encode(),
}


def test_ids_and_words_are_found_in_every_spelling(aftermath: Aftermath) -> None:
    """In files that somebody wrote below the home."""
    wanted = set()
    for number, text in enumerate((ZOE, GONE_ITEM, REASON)):
        for spelling, spelled in SPELLINGS.items():
            name = f"{number} {spelling}.log"
            (aftermath.home / name).write_bytes(b"x" * 1000 + spelled(text) + b"y")
            wanted.add(("home", name, "reason" if text == REASON else "id"))

    assert aftermath.places() == wanted


def test_digests_and_salts_are_found(aftermath: Aftermath) -> None:
    """As bytes and as hexadecimal digits of both cases."""
    wanted = set()
    for kind, data in (("salt", aftermath.salt), ("digest", aftermath.world.identity.user(ZOE))):
        for number, spelled in enumerate((data, data.hex().encode(), data.hex().upper().encode())):
            (aftermath.home / f"{kind}-{number}").write_bytes(spelled)
            wanted.add(("home", f"{kind}-{number}", kind))

    assert aftermath.places() == wanted


def test_a_needle_across_the_border_of_two_chunks_is_found_once(aftermath: Aftermath) -> None:
    """Half of it in either."""
    data = bytearray(2 * CHUNK_BYTES)
    wanted = ZOE.encode()
    start = CHUNK_BYTES - len(wanted) // 2
    data[start : start + len(wanted)] = wanted
    (aftermath.home / "big").write_bytes(data)

    (place,) = [place for result in aftermath.search().stores for place in result.places]
    assert (place.place, place.count, place.at) == ("big", 1, start)


def test_the_report_names_no_needle(aftermath: Aftermath) -> None:
    """Not even where a file is named after one."""
    folder = aftermath.home / "tmp" / ANN
    folder.mkdir(parents=True)
    (folder / f"{REASON}.txt").write_text(ZOE)
    text = json.dumps(aftermath.search().as_dict(), ensure_ascii=False)

    assert json.loads(text)["present"]
    assert not [each for each in (ZOE, REASON, aftermath.salt.hex()) if each in text]
    assert aftermath.whole in text


def test_rows_that_were_left_are_found(aftermath: Aftermath) -> None:
    """By what they mean: keys, pairs, targets, salts."""
    with aftermath.database.write() as write:
        digest = aftermath.world.identity.user(ZOE)
        write.execute(insert(tables.users).values(key=1, id=ZOE, digest=digest))
        write.execute(insert(tables.interactions).values(user_key=2, item_key=1, recorded_at=AT))
        write.execute(insert(tables.interactions).values(user_key=1, item_key=2, recorded_at=AT))
        target = {"erasure_id": aftermath.whole, "ordinal": 0, "kind": "user", "user_key": 1, "matched": 2}
        write.execute(insert(tables.erasure_targets).values(target))
        write.execute(update(tables.erasures).values(salt="5a" * 32))

    found = {(place, kind) for store, place, kind in aftermath.places() if store == "columns"}
    assert found == {
        ("users.id", "id"),
        ("users.digest", "digest"),
        ("users.key", "key"),
        ("interactions", "edge"),
        ("interactions.user_key", "key"),
        ("erasure_targets", "target"),
        ("erasures.salt", "salt"),
    }


def test_a_table_that_nobody_knows_is_searched(aftermath: Aftermath) -> None:
    """Also a column without a type."""
    with closing(sqlite3.connect(aftermath.home / "expunge.db")) as other:
        other.execute("CREATE TABLE notes (anything)")
        other.execute("INSERT INTO notes VALUES (?)", (f"about {ZOE}",))
        other.commit()

    assert ("columns", "notes.anything", "id") in aftermath.places()


def test_what_is_left_in_the_file_of_the_database_is_found(aftermath: Aftermath) -> None:
    """In a free page of it, where nothing deleted securely."""
    with closing(sqlite3.connect(aftermath.home / "expunge.db")) as other:
        other.execute("PRAGMA secure_delete=OFF")
        other.execute("CREATE TABLE notes (text)")
        other.execute("INSERT INTO notes VALUES (?)", (f"about {ZOE}" + "." * 9000,))
        other.commit()
        other.execute("DROP TABLE notes")
        other.commit()
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    report = aftermath.search()
    (place,) = [place for result in report.stores for place in result.places]
    assert (place.place, place.kind, place.note) == ("expunge.db", "id", "In free pages.")
    assert place.at is not None


def test_what_is_left_in_the_write_ahead_log_is_found(aftermath: Aftermath) -> None:
    """While a reader pins it, and until it is truncated."""
    with aftermath.database.write() as write:
        write.execute(update(tables.erasures).where(tables.erasures.c.id == aftermath.pair).values(reason=REASON))
    with aftermath.database.write() as write:
        write.execute(update(tables.erasures).values(reason=None))

    found = {place for store, place, kind in aftermath.places() if store == "write_ahead_log"}
    assert found == {"expunge.db-wal"}


def test_digests_beyond_the_pages_of_tombstones_are_found(aftermath: Aftermath) -> None:
    """A digest that a tombstone keeps may stand in its pages, and in no others."""
    with closing(sqlite3.connect(aftermath.home / "expunge.db")) as other:
        other.execute("PRAGMA secure_delete=OFF")
        other.execute("CREATE TABLE notes (data)")
        other.execute("INSERT INTO notes VALUES (?)", (aftermath.world.identity.user(ZOE),))
        other.commit()
        other.execute("DROP TABLE notes")
        other.commit()
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    (files,) = [result for result in aftermath.search().stores if result.store == "database_files"]
    assert [(place.kind, place.count) for place in files.places] == [("digest", 1)]
    assert files.allowed


def test_versions_and_encoders_that_were_left_are_found(aftermath: Aftermath) -> None:
    """By the keys, the pairs and the vectors in them, and by the base that they come from."""
    world = aftermath.world
    shutil.copytree(world.store.root / "versions" / "000003", aftermath.home / "copy")
    publish(world, 7, 1, [1, 2, 3], [1, 2, 3])

    found = {(place.partition("versions/")[2], kind) for store, place, kind in aftermath.places()}
    assert found == {
        ("000007/embeddings.safetensors", "row"),
        ("000007/embeddings.safetensors#user_keys", "key"),
        ("000007/embeddings.safetensors#item_keys", "key"),
        ("000007/embeddings.safetensors#users", "row"),
        ("000007/embeddings.safetensors#items", "row"),
        ("000007/base.safetensors", "row"),
        ("000007/base.safetensors#e0", "row"),
        ("000007/base.safetensors#edges", "edge"),
    }


def test_what_comes_from_an_older_base_is_found_by_that_alone(aftermath: Aftermath) -> None:
    """A version whose vectors were written anew, the folder of an interrupted purge, the shadow of an older base."""
    world = aftermath.world
    versions, checkpoints = world.store.root / "versions", aftermath.home / "checkpoints"
    checkpoints.mkdir()
    publish(world, 8, 9, [2], [2], parent=1)
    (versions / "000008").rename(versions / ".gone-000002-0123456789ab")
    np.savez(checkpoints / "shadow-1-0123456789ab.npz", e0=np.ones((3, 3), np.float32))
    np.savez(checkpoints / "shadow-3-0123456789ab.npz", e0=np.ones((3, 3), np.float32))

    assert aftermath.places() == {
        ("model_store", "store/versions/.gone-000002-0123456789ab/embeddings.safetensors", "lineage"),
        ("checkpoints", "checkpoints/shadow-1-0123456789ab.npz", "lineage"),
    }


def test_a_checkpoint_of_unknown_data_is_not_passed_over(aftermath: Aftermath) -> None:
    """It cannot be told what it was made of, so the store is not GONE."""
    (aftermath.home / "checkpoints").mkdir()
    np.savez(aftermath.home / "checkpoints" / "0123456789abcdef.npz", e0=np.ones((3, 3), np.float32))

    assert verdicts(aftermath)["checkpoints"] == "NOT_CHECKED"


def test_vectors_are_found_exactly_and_nearly(aftermath: Aftermath) -> None:
    """As bytes in any file; in a matrix also rounded to three decimals or kept in 16 bits."""
    noise = np.random.default_rng(5).standard_normal((50, WIDTH), np.float32)
    root, checkpoints = aftermath.world.store.root, aftermath.home / "checkpoints"
    checkpoints.mkdir()
    wanted = set()
    for whose, row in aftermath.rows.items():
        (aftermath.home / f"{whose}.dump").write_bytes(b"abc" + row.tobytes() + b"def")
        wanted.add(f"{whose}.dump")
        for name, kept in (("round", row.round(3)), ("half", row.astype(np.float16)), ("wide", row.astype(float))):
            matrix = np.vstack([noise, kept]).astype(kept.dtype)
            np.savez(checkpoints / f"compaction-{whose}-{name}.npz", m=matrix)
            save_file({"m": matrix}, root / f"{whose}-{name}.safetensors")
            wanted |= {f"checkpoints/compaction-{whose}-{name}.npz#m", f"store/{whose}-{name}.safetensors#m"}

    found = aftermath.places()
    assert {place for _, place, _ in found} == wanted
    assert {kind for _, _, kind in found} == {"row"}


def test_the_data_of_a_compaction_are_searched_by_their_keys(aftermath: Aftermath) -> None:
    """Those that it took hold nobody who is erased; others do."""
    folder = aftermath.home / "checkpoints"
    folder.mkdir()
    keys = {"user_keys": np.array([2, 3]), "item_keys": np.array([1, 2])}
    np.savez(folder / "compaction-a.npz", edges=np.array([[0, 1], [1, 0]], np.int32), **keys)
    assert aftermath.places() == set()

    np.savez(folder / "compaction-b.npz", edges=np.array([[0, 1], [0, 0]], np.int32), **keys)
    np.savez(folder / "compaction-c.npz", user_keys=np.array([1, 2]), item_keys=np.array([3]))
    assert aftermath.places() == {
        ("checkpoints", "checkpoints/compaction-b.npz#edges", "edge"),
        ("checkpoints", "checkpoints/compaction-c.npz#user_keys", "key"),
        ("checkpoints", "checkpoints/compaction-c.npz#item_keys", "key"),
    }


def test_a_damaged_file_of_tensors_is_not_passed_over(aftermath: Aftermath) -> None:
    """Its bytes are searched; that its structure is not is said."""
    path = aftermath.world.store.root / "versions" / "000003" / "embeddings.safetensors"
    path.chmod(0o640)
    path.write_bytes(path.read_bytes()[:50])

    assert verdicts(aftermath)["model_store"] == "NOT_CHECKED"


def test_a_link_is_not_followed_and_that_is_said(aftermath: Aftermath, tmp_path: Path) -> None:
    """What it leads to is not in the home."""
    (tmp_path / "elsewhere").write_text(ZOE)
    (aftermath.home / "link").symlink_to(tmp_path / "elsewhere")

    (home,) = [result for result in aftermath.search().stores if result.store == "home"]
    assert home.verdict is Verdict.NOT_CHECKED
    assert home.unread == ["link is a link, which is not followed."]


def test_the_needles_themselves_are_no_residue(aftermath: Aftermath) -> None:
    """They lie in the home until the purge ends, for nobody else to read; then nothing is left of them."""
    path = aftermath.home / "purge" / "c1.needles"
    aftermath.needles.save(path)

    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert aftermath.places() == set()
    loaded = Needles.load(path)
    assert loaded == aftermath.needles
    (aftermath.home / "purge" / "c1.report").write_text(ZOE)
    assert aftermath.places(loaded) == {("home", "purge/c1.report", "id")}
    (path.parent / f".{path.name}.77").write_bytes(path.read_bytes())
    Needles.destroy(path)
    Needles.destroy(path)
    assert [each.name for each in path.parent.iterdir()] == ["c1.report"]


@pytest.mark.parametrize("content", [b"", b"\xa0", b"nonsense", b"\xa1\x66format\x02"])
def test_a_file_that_holds_no_needles_is_refused(tmp_path: Path, content: bytes) -> None:
    """A search for nothing would find nothing."""
    (tmp_path / "x").write_bytes(content)

    with pytest.raises(ValueError, match="holds no needles"):
        Needles.load(tmp_path / "x")


def test_ids_within_longer_ones_are_no_residue(aftermath: Aftermath) -> None:
    """`Zoe-1` is found by itself and not within `Zoe-12`, which stays."""
    aftermath.world.remember([f"{ZOE} the second"], [f"by {ZOE}"])
    assert {place for _, place, _ in aftermath.places() if not place.startswith("expunge.db")} == set()

    (aftermath.home / "log").write_text(f"{ZOE} the second, {ZOE}, by {ZOE}")
    places = [place for result in aftermath.search().stores for place in result.places]
    assert [(place.place, place.count) for place in places] == [("log", 1)]


def test_a_text_that_another_erasure_has_too_is_no_sign(aftermath: Aftermath) -> None:
    """A reason that a backend gives with every request names nobody."""
    aftermath.domains.accept((BEN, ITEM), reason=REASON)

    report = aftermath.search()
    assert not report.present
    assert any("written by right elsewhere" in note for note in report.notes)


def test_a_user_who_came_back_is_no_residue(aftermath: Aftermath) -> None:
    """With consent the suppression goes; the id has a new key then, and the old one is looked for all the same."""
    with aftermath.database.write() as write:
        write.execute(tables.suppressions.delete().where(tables.suppressions.c.user_digest != b""))
    aftermath.domains.record((ZOE, ITEM), (ANN, ITEM))

    report = aftermath.search()
    assert [place for result in report.stores for place in result.places] == []
    assert report.needles["in_use"] == 1  # the pair, whose keys are the same
    assert any("consent" in note for note in report.notes)


def test_short_ids_are_looked_for_by_what_they_mean(settings: Settings, sqlite: Database) -> None:
    """The bytes of `42` stand everywhere; its row, its digest and its key do not."""
    world = World(settings, sqlite, ["42", "43"], ["7"])
    world.record([("42", "7"), ("43", "7")])
    erasure = Domains(sqlite, settings, identity=world.identity).accept(users=["42"])
    needles = sqlite.query(lambda read: Needles.gather(read, world.store, world.identity, (erasure.id,)))
    report = ResidueScan(sqlite, world.store, None, settings).run(needles)
    found = {(place.place, place.kind.value) for result in report.stores for place in result.places}

    assert {("users.key", "key"), ("users.digest", "digest"), ("interactions.user_key", "key")} <= found
    assert "id" not in {kind for _, kind in found}
    assert report.needles["too_short"] == 1
    assert any("fewer than 8 bytes" in note for note in report.notes)


def test_without_time_nothing_is_called_gone(aftermath: Aftermath) -> None:
    """What was not searched is not checked."""
    report = aftermath.search(seconds=0.0)

    assert {result.verdict for result in report.stores} == {Verdict.NOT_CHECKED}


def test_progress_is_told(aftermath: Aftermath) -> None:
    """Which store, and how many bytes in all; it ends at what the report says."""
    told: list[tuple[str, int]] = []
    report = aftermath.search(progress=lambda store, n_bytes: told.append((store.value, n_bytes)))

    assert [n for _, n in told] == sorted(n for _, n in told)
    assert told[-1][1] == report.n_bytes


def test_a_report_tells_one_caller_of_one_erasure(aftermath: Aftermath) -> None:
    """Whoever asks about the pair does not learn what is left of the user."""
    (aftermath.home / "log").write_text(ZOE)
    document = aftermath.search().as_dict()

    assert about_one(document, aftermath.whole)["present"]
    of_pair = about_one(document, aftermath.pair)
    assert not of_pair["present"]
    assert aftermath.whole not in json.dumps(of_pair)


def test_who_is_named_by_an_open_erasure_stays_until_that_is_over(settings: Settings, sqlite: Database) -> None:
    """Under hold or only accepted: this erasure's own traces are looked for, the vocabulary's row is the other's."""
    world = World(settings, sqlite, [ZOE], [ITEM])
    world.record([(ZOE, ITEM)])
    domains = Domains(sqlite, settings, identity=world.identity)
    erasure, other = domains.accept(users=[ZOE]), domains.accept((ZOE, ITEM))
    gathered = lambda: sqlite.query(  # noqa: E731
        lambda read: Needles.gather(read, world.store, world.identity, (erasure.id,))
    )

    assert gathered().users == {}
    assert ZOE not in {text for _, text in gathered().texts}
    with sqlite.write() as write:
        write.execute(update(tables.erasures).where(tables.erasures.c.id == other.id).values(status="cancelled"))
    assert set(gathered().users) == {1}


def test_a_user_of_whom_nothing_is_left_leaves_with_the_last_pair(settings: Settings, sqlite: Database) -> None:
    """As the purge has it; an item stays in the catalogue. One of whom something is recorded later is back."""
    world = World(settings, sqlite, [ZOE], [ITEM, OTHER_ITEM])
    domains = Domains(sqlite, settings, identity=world.identity)
    erasure = domains.accept((ZOE, ITEM))
    needles = sqlite.query(lambda read: Needles.gather(read, world.store, world.identity, (erasure.id,)))
    assert (set(needles.users), set(needles.items)) == ({1}, set())
    scan = ResidueScan(sqlite, world.store, None, settings)
    columns = {place.place for result in scan.run(needles).stores for place in result.places}
    assert {"users.id", "users.key", "users.digest"} <= columns

    domains.record((ZOE, OTHER_ITEM))
    columns = {place.place for result in scan.run(needles).stores for place in result.places}
    assert not {"users.id", "users.key", "users.digest"} & columns
