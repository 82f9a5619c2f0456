import stat
import threading
from pathlib import Path

import pytest

from service.platform.identity import Identity, load_identity
from service.settings import Settings, load_settings


def test_the_same_id_has_the_same_digest():
    """32 bytes, decided by the secret and the id alone."""
    one, other = Identity(b"k" * 32), Identity(b"k" * 32)

    assert one.user("ana") == other.user("ana")
    assert len(one.user("ana")) == 32


def test_users_and_items_of_one_name_have_different_digests():
    """A user called like an item is not that item."""
    identity = Identity(b"k" * 32)

    assert identity.user("42") != identity.item("42")


def test_another_secret_gives_other_digests():
    """Without the secret nobody can tell whether an id was here."""
    assert Identity(b"k" * 32).user("ana") != Identity(b"l" * 32).user("ana")


def test_derived_keys_differ_by_purpose():
    """A key for one thing opens no other."""
    identity = Identity(b"k" * 32)

    assert identity.derive("manifest") != identity.derive("cursor")


def test_a_short_secret_is_refused():
    """Fewer than 32 bytes could be guessed."""
    with pytest.raises(ValueError, match="at least 32"):
        Identity(b"short")


def test_the_secret_of_a_home_is_made_once(settings: Settings):
    """The second process finds the first one's."""
    assert load_identity(settings).user("ana") == load_identity(settings).user("ana")


def test_the_secret_of_a_home_is_for_its_owner_alone(settings: Settings):
    """Mode 0600, and nothing left beside it."""
    load_identity(settings)

    secret = settings.home / "secret.key"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert [file.name for file in settings.home.iterdir()] == ["secret.key"]


def test_processes_that_start_together_agree_on_the_secret(settings: Settings):
    """Whoever loses the race takes the winner's."""
    barrier, digests = threading.Barrier(8), []

    def start() -> None:
        barrier.wait()
        digests.append(load_identity(settings).user("ana"))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(digests) == 8
    assert len(set(digests)) == 1


def test_a_given_secret_needs_no_file(home: Path):
    """EXPUNGE_SECRET_KEY stands alone."""
    load_identity(load_settings(home=home, secret_key="s" * 32))

    assert list(home.iterdir()) == []
