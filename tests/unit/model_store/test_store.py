import gc
import os
from pathlib import Path

import numpy as np
import pytest

from model_store import InUse, InvalidName, Missing, ModelStore, StoreError, Unpublishable, VersionExists
from tests.factories.versions import EMBEDDINGS, KEY, facts, file_of, publish, tensors


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "store", key=KEY)


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_published_version_opens_with_what_was_given(store: ModelStore):
    """Publish, then open: the same tensors under the same number."""
    publish(store, 42)

    found = store.open("versions", 42, EMBEDDINGS)

    assert found.keys() == tensors().keys()
    for name, array in tensors().items():
        np.testing.assert_array_equal(found[name], array)
    assert store.numbers("versions") == [42]
    assert store.manifest("versions", 42) == store.verify("versions", 42)


def test_versions_and_encoders_are_numbered_apart(store: ModelStore):
    """The same number in two collections is two things."""
    publish(store, 3)
    store.publish("encoders", 3, {"encoder.safetensors": {"w": np.ones((2, 2), np.float32)}}, facts(kind="encoder"))

    assert store.numbers("versions") == store.numbers("encoders") == [3]
    assert store.manifest("encoders", 3).facts.kind == "encoder"


def test_an_empty_store_has_no_versions_and_no_aliases(store: ModelStore):
    """Asking before anything was published is no error."""
    assert store.numbers("versions") == []
    assert store.alias("live") is None
    assert store.clean() == []
    with pytest.raises(Missing, match="versions/000001"):
        store.manifest("versions", 1)


@pytest.mark.P6
def test_two_stores_given_the_same_hold_the_same_bytes(tmp_path: Path):
    """A version can be made again from what its manifest names, to the last bit."""
    one, other = (ModelStore(tmp_path / name, key=KEY) for name in ("one", "other"))

    publish(one)
    publish(other)

    assert everything(one.root) == everything(other.root)


def test_publishing_the_same_again_changes_nothing(store: ModelStore):
    """A batch replayed after a crash finds its version there, whatever the clock says now."""
    first = publish(store)
    before = everything(store.root)

    again = publish(store, created_at=facts().created_at.replace(year=2027))

    assert again == first
    assert everything(store.root) == before


def test_a_number_is_never_given_to_other_content(store: ModelStore):
    """Versions are immutable: the second publisher of a number fails and the first stays whole."""
    publish(store)
    before = everything(store.root)

    for other in ({"seed": 1}, {"dataset_hash": "e" * 64}):
        with pytest.raises(VersionExists, match="Publish under a new number"):
            publish(store, **other)

    assert everything(store.root) == before


def test_a_publisher_beaten_to_the_number_fails_cleanly(store: ModelStore):
    """Two publishers that write at the same time: the rename decides, and no half of either is left."""

    def other_is_first(step: str) -> None:
        if step == "before_rename" and not store.numbers("versions"):
            publish(store, seed=1)

    with pytest.raises(VersionExists):
        store.publish("versions", 42, {EMBEDDINGS: tensors()}, facts(), on_step=other_is_first)

    np.testing.assert_array_equal(store.open("versions", 42, EMBEDDINGS)["users"], tensors(seed=1)["users"])
    assert store.clean() == []


def test_the_steps_of_a_publish_are_told_in_order(store: ModelStore):
    """The worker can be interrupted at each of them."""
    steps: list[str] = []

    store.publish("versions", 1, {EMBEDDINGS: tensors()}, facts(), on_step=steps.append)

    assert steps == ["after_file", "after_file", "before_rename", "after_rename"]


def test_facts_that_are_not_plain_json_are_not_published(store: ModelStore):
    """A manifest that could not be read back is never written."""
    for bad in ({"ndcg": float("nan")}, {"ndcg": np.float32(1)}, {"when": facts().created_at}):
        with pytest.raises(Unpublishable):
            publish(store, metrics=bad)

    assert store.numbers("versions") == []


def test_an_alias_names_one_version_and_moves_whole(store: ModelStore):
    """The pointer is set, read and moved; another alias is not touched."""
    publish(store, 1)
    publish(store, 2, seed=2)

    store.set_alias("live", 1)
    store.set_alias("previous", 1)
    store.set_alias("live", 2)

    assert (store.alias("live"), store.alias("previous")) == (2, 1)


def test_an_alias_cannot_point_at_nothing(store: ModelStore):
    """A pointer never runs ahead of the version."""
    with pytest.raises(Missing):
        store.set_alias("live", 9)

    assert store.alias("live") is None


def test_a_purged_version_is_gone_and_its_neighbours_stay(store: ModelStore):
    """After a purge neither name nor bytes are left; doing it twice is harmless."""
    publish(store, 1)
    publish(store, 2, seed=2)

    store.purge("versions", 1)
    store.purge("versions", 1)

    assert store.numbers("versions") == [2]
    assert all("000001" not in name for name in everything(store.root))


def test_a_version_in_use_is_not_purged(store: ModelStore):
    """What an alias names stays."""
    publish(store, 1)
    store.set_alias("live", 1)

    with pytest.raises(InUse, match="the alias 'live' names it"):
        store.purge("versions", 1)

    assert store.numbers("versions") == [1]


def test_a_reader_keeps_its_version_while_it_is_purged(store: ModelStore):
    """A purge never takes the ground from under an answer that is being given."""
    publish(store, 1)
    found = store.open("versions", 1, EMBEDDINGS)

    store.purge("versions", 1)

    np.testing.assert_array_equal(found["items"], tensors()["items"])


def test_opening_a_version_leaves_no_file_open_behind(store: ModelStore):
    """A thousand swaps of the version leave as many descriptors as none."""
    publish(store)
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(20):
        store.open("versions", 42, EMBEDDINGS)
        store.manifest("versions", 42)
    gc.collect()

    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("number", [0, -1, True, 1.0, "1", 10**18, None])
def test_a_number_that_is_none_is_refused(store: ModelStore, number):
    """Nothing but a whole positive number becomes a folder name."""
    with pytest.raises(InvalidName, match="Nothing was read or written"):
        store.manifest("versions", number)


def test_a_key_is_what_separates_two_services(store: ModelStore):
    """A version signed by one service does not load in another, and loads unchecked where there is no key."""
    publish(store)

    with pytest.raises(StoreError, match="not signed with this service's key"):
        ModelStore(store.root, key=b"other").manifest("versions", 42)
    assert ModelStore(store.root).manifest("versions", 42).number == 42


def test_the_store_holds_nothing_but_the_folders_described(store: ModelStore):
    """The layout on disk is a promise to operators and to backup scripts."""
    publish(store)
    store.set_alias("live", 42)

    assert set(everything(store.root)) == {
        "versions/000042/manifest.json",
        "versions/000042/embeddings.safetensors",
        "aliases/live",
    }
    assert file_of(store).exists()
