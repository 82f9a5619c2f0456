import numpy as np
import pytest

from model_store import ManifestFacts, ModelStore
from service.platform.database import Database
from service.recommendations.model import EMBEDDINGS, UnusableVersion, load_model
from service.recommendations.ranker import NO_ROW
from service.settings import load_settings
from tests.factories.worlds import AT, World, tensors_of

SCORES = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def world(sqlite: Database, home) -> World:
    return World(load_settings(home=home), sqlite, ["u1", "u2"], ["i1", "i2", "i3"])


def load(world: World, **changes):
    tensors = {name: array for name, array in (dict(tensors_of(SCORES)) | changes).items() if array is not None}
    facts = ManifestFacts(kind="base", dataset_hash="d", code_version="0", seed=0, created_at=AT)
    store = ModelStore(world.store.root, key=None)
    number = max(store.numbers("versions"), default=0) + 1
    store.publish("versions", number, {EMBEDDINGS: tensors}, facts)
    return load_model(store, world.database, number)


def test_rows_are_found_by_surrogate_key(world: World):
    """Users and items of SQL are rows of a version; those it does not hold are left out."""
    model = load(world)

    assert [model.user_row(key) for key in (1, 2, 3, 0, None)] == [0, 1, NO_ROW, NO_ROW, NO_ROW]
    assert model.item_rows(np.array([3, 1, 4, 0, 2**40])).tolist() == [2, 0]


def test_a_user_of_degree_0_is_not_known(world: World):
    """A row that was reset says nothing of anybody."""
    model = load(world, user_degrees=np.array([0, 1], np.int32))

    assert [model.user_row(1), model.user_row(2)] == [NO_ROW, 1]


def test_items_of_degree_0_or_without_an_id_are_out_of_the_catalogue(world: World):
    """What cannot be named or has no interaction left is not recommended."""
    keys = np.array([1, 2, 9], np.int64)  # 9: the id is no longer kept
    model = load(world, item_keys=keys, item_degrees=np.array([1, 0, 5], np.int32))

    assert model.in_catalogue.tolist() == [True, False, False]
    assert model.barred.tolist() == [1, 2]


@pytest.mark.P10
def test_the_vocabulary_is_bounded_by_the_version(world: World):
    """As many entries as the version has items, whatever the catalogue in SQL holds."""
    world.remember(new_items=[f"later {n}" for n in range(50)])

    model = load(world)

    assert len(model.vocabulary.ids) == len(model.vocabulary.titles) == len(model.vocabulary.row_of_digest) == 3


@pytest.mark.P5
@pytest.mark.parametrize(
    ("name", "array", "why"),
    [
        ("users", None, "no tensor 'users'"),
        ("users", np.zeros((2, 5), np.float32), "'users' is not float32 of shape"),
        ("items", np.zeros((3, 2), np.float64), "'items' is not float32"),
        ("item_keys", np.array([1, 2], np.int64), "'items' is not"),
        ("item_keys", np.array([1, 3, 2], np.int64), "does not ascend"),
        ("user_keys", np.array([4, 4], np.int64), "does not ascend"),
        ("user_degrees", np.zeros(3, np.int32), "'user_degrees' is not"),
        ("item_degrees", np.zeros(3, np.int64), "'item_degrees' is not"),
    ],
)
def test_tensors_that_do_not_fit_together_are_refused(world: World, name: str, array, why: str):
    """A sound file with the wrong contents never answers."""
    with pytest.raises(UnusableVersion, match=why):
        load(world, **{name: array})


@pytest.mark.P5
@pytest.mark.parametrize("name", ["users", "items"])
def test_a_version_whose_scores_could_be_infinite_is_refused(world: World, name: str):
    """Finite vectors with infinite products would answer null; so would what a folded-in user sums up."""
    vectors = np.array(tensors_of(SCORES)[name])
    vectors[0, 0] = 1e30
    other = "items" if name == "users" else "users"

    with pytest.raises(UnusableVersion, match="would not be finite"):
        load(world, **{name: vectors, other: np.array(tensors_of(SCORES)[other]) * np.float32(1e10)})


def test_rows_that_hold_nothing_are_nobody(world: World):
    """A zero vector, and one whose products are all below float32."""
    model = load(
        world,
        users=np.array([[0, 0], [0, 1]], np.float32),
        items=np.array([[1, 2], [0, 0], [1e-30, 0]], np.float32),
    )

    assert [model.user_row(1), model.user_row(2)] == [NO_ROW, 1]
    assert model.blank_items.tolist() == [1, 2]


@pytest.mark.P5
def test_a_version_without_items_is_refused(world: World):
    """There would be nothing to answer with."""
    empty = tensors_of(np.zeros((2, 0), np.float32))

    with pytest.raises(UnusableVersion, match="holds no items"):
        load(world, **empty)
