"""The secret key against the database and the store: another one, a lost one, one written differently."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select

from model_store import ModelStore, StoreMarkers
from service.platform.database import Database
from service.platform.identity import Identity, Secret, SecretRefused, find_secret, load_identity, readable_by_others
from service.platform.secret_check import SecretCheck
from service.platform.tables import secret_check, users
from service.settings import Settings, load_settings
from tests.factories.versions import publish

OLD, NEW = "old " * 10, "new " * 10
HEX = "0123456789abcdef" * 4


def unlock(database: Database, home: Path, key: str | None = None) -> Identity:
    return SecretCheck(load_settings(home=home, secret_key=key), database).unlock()


def test_the_first_start_keeps_a_check_value_in_both(database: Database, home: Path):
    """It is a digest of a constant: of the key it tells nothing."""
    identity = unlock(database, home)

    kept = database.query(lambda connection: connection.scalar(select(secret_check.c.value)))
    assert kept == identity.check_value == StoreMarkers(home / "store").key_check()
    assert identity.check_value != identity.user("") != identity.derive("check")
    assert unlock(database, home).check_value == identity.check_value


def test_another_key_is_refused_and_changes_nothing(database: Database, home: Path):
    """The sentence names what was made with another key, and where this one came from."""
    unlock(database, home, OLD)

    with pytest.raises(SecretRefused, match=r"The database and the model store .* EXPUNGE_SECRET_KEY"):
        unlock(database, home, NEW)

    unlock(database, home, OLD)


def test_a_new_database_beside_an_old_store_is_told_apart(
    home: Path, open_database: Callable[[str], Database], tmp_path: Path
):
    """Which of the two was made with another key decides what to put back."""
    old = open_database(f"sqlite:///{tmp_path}/old.db")
    unlock(old, home, OLD)
    new = open_database(f"sqlite:///{tmp_path}/new.db")

    with pytest.raises(SecretRefused, match=r"^The model store .* another key"):
        unlock(new, home, NEW)
    with pytest.raises(SecretRefused, match=r"^The database was made with another key"):
        unlock(old, home / "elsewhere", NEW)
    unlock(new, home, OLD)
    unlock(new, home / "third", OLD)
    StoreMarkers(home / "other" / "store").keep_key_check(Identity(NEW.strip().encode()).check_value)
    with pytest.raises(SecretRefused, match=r"^The database .*; the model store .* with this one"):
        unlock(old, home / "other", NEW)


def test_a_lost_key_is_not_replaced_by_a_new_one(database: Database, home: Path):
    """A new one would recognise nobody."""
    unlock(database, home)
    (home / "secret.key").unlink()

    with pytest.raises(SecretRefused, match=r"There is no .*secret.key, and the database and the model store"):
        unlock(database, home)

    assert not (home / "secret.key").exists()


@pytest.mark.parametrize("kind", ["users", "store"])
def test_what_was_made_before_check_values_is_compared_all_the_same(database: Database, home: Path, kind: str):
    """By a digest on record, or by the signature of a manifest; then the check values are kept."""
    identity = Identity(OLD.strip().encode())
    if kind == "users":
        with database.write() as connection:
            connection.execute(insert(users).values(id="ana", digest=identity.user("ana")))
    else:
        publish(ModelStore(home / "store", key=identity.derive("manifest")), 1)

    with pytest.raises(SecretRefused):
        unlock(database, home, NEW)
    with pytest.raises(SecretRefused):
        unlock(database, home)
    assert database.query(lambda connection: connection.scalar(select(secret_check.c.value))) is None
    unlock(database, home, OLD)
    assert StoreMarkers(home / "store").key_check() == identity.check_value


@pytest.mark.parametrize("around", ["{}", "{}\n", "{}\r\n", "  {} \n\n", "\ufeff{}\n", "\t{}"])
@pytest.mark.parametrize("text", [HEX, "a key that people wrote by hand, with spaces", "schlüssel " * 5])
def test_a_key_means_the_same_wherever_it_stands(home: Path, text: str, around: str):
    """In the file, in the environment, with whatever line end an editor leaves."""
    (home / "secret.key").write_bytes(around.format(text).encode())
    bare = load_identity(load_settings(home=home / "x", secret_key=text))

    assert load_identity(load_settings(home=home)).check_value == bare.check_value
    assert load_identity(load_settings(home=home, secret_key=around.format(text))).check_value == bare.check_value


@pytest.mark.parametrize("raw", [HEX, "k" * 40 + "\n"])
def test_a_key_as_the_environment_was_read_before_is_found(database: Database, home: Path, raw: str):
    """Homes that were made with the text as it stood go on."""
    before = Identity(raw.encode())
    with database.write() as connection:
        connection.execute(insert(users).values(id="ana", digest=before.user("ana")))

    assert unlock(database, home, raw).check_value == before.check_value
    assert unlock(database, home, raw).check_value == before.check_value


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(b"", "is empty"), (b" \r\n", "is empty"), (b"abc\n", "too short"), (b"\xff" * 64, "no text")],
)
def test_a_file_that_holds_no_key_is_named(home: Path, content: bytes, sentence: str):
    """It is not replaced: it may be a slip that can be undone."""
    (home / "secret.key").write_bytes(content)

    with pytest.raises(SecretRefused, match=sentence) as refusal:
        find_secret(load_settings(home=home))

    assert str(home / "secret.key") in refusal.value.detail
    assert (home / "secret.key").read_bytes() == content


def test_a_folder_in_place_of_the_key_is_named(home: Path):
    """As where a container mounts what is not there."""
    (home / "secret.key").mkdir()

    with pytest.raises(SecretRefused, match="cannot be read"):
        find_secret(load_settings(home=home))


def test_a_key_that_others_may_read_is_told(settings: Settings):
    """It works, and somebody should know."""
    load_identity(settings)
    assert readable_by_others(settings) is None

    (settings.home / "secret.key").chmod(0o640)

    assert readable_by_others(settings) == settings.home / "secret.key"


def test_a_key_is_not_shown_with_its_secret():
    """Not even by accident."""
    assert HEX not in repr(Secret(HEX, "x"))


def test_processes_that_start_together_keep_one_check_value(database: Database, home: Path):
    """Whoever is second compares with the first one's."""
    barrier, found = threading.Barrier(6), list[bytes]()

    def start() -> None:
        barrier.wait()
        found.append(unlock(database, home).check_value)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 6
    assert len(set(found)) == 1


def test_a_database_that_is_away_is_asked_when_it_is_back(home: Path, tmp_path: Path):
    """A start goes on with the key that is given, and makes none."""
    away = Database(f"postgresql+psycopg://u@/d?host={tmp_path}")
    with closed(away):
        check = SecretCheck(load_settings(home=home, secret_key=OLD), away)
        assert check.unlock_or_defer().check_value == Identity(OLD.strip().encode()).check_value
        assert check.deferred is not None
        assert not check.complete
        with pytest.raises(SecretRefused, match="does not answer"):
            SecretCheck(load_settings(home=home), away).unlock_or_defer()


def test_a_check_value_that_was_taken_away_comes_back(database: Database, home: Path):
    """A schema that went down and up again has none."""
    unlock(database, home, OLD)
    with database.write() as connection:
        connection.execute(delete(secret_check))

    unlock(database, home, OLD)

    with pytest.raises(SecretRefused, match="The database"):
        unlock(database, home / "elsewhere", NEW)


@contextmanager
def closed(database: Database) -> Iterator[None]:
    try:
        yield
    finally:
        database.close()
