"""`expunge adopt`: from files to a base, told in a sentence."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds

from service.recommender.dataset import Dataset
from tests.cli.conftest import Run


@pytest.fixture
def model(small: Dataset, tmp_path: Path) -> tuple[Path, Path]:
    """Factors of nine in ten interactions, and the rest as CSV."""
    held_out = np.random.default_rng(0).random(len(small.train)) < 0.1
    users, items = small.train[~held_out].T
    matrix = csr_matrix((np.ones(len(users)), (users, items)), (len(small.users), len(small.items)))
    left, values, right = svds(matrix, 16, rng=0)
    embeddings, unseen = tmp_path / "model.npz", tmp_path / "unseen.csv"
    ids = {"user_ids": np.array(small.users.ids), "item_ids": np.array(small.items.ids)}
    np.savez(embeddings, allow_pickle=False, users=left * values, items=right.T, **ids)
    with unseen.open("w", newline="") as file:
        rows = [(small.users.ids[user], small.items.ids[item]) for user, item in small.train[held_out].tolist()]
        csv.writer(file).writerows([("user_id", "item_id"), *rows])
    return embeddings, unseen


def test_adopt_tells_what_it_made(run: Run, small_folder: Path, model: tuple[Path, Path], small: Dataset) -> None:
    """The first base serves; it says how it does on what it never saw."""
    assert run("import", "--data", small_folder).status == 0

    made = run("adopt", "--embeddings", model[0], "--held-out", model[1], "--json", "-")

    document = json.loads(made.out)
    assert (document["version"], document["live"]) == (1, True)
    assert document["backbone"]["name"] == "matrix_factorisation"
    assert document["n_users"] == len(small.users)
    assert document["n_edges"] + document["n_validation"] <= len(small.train)
    assert document["held_out_auc"] > 0.5
    again = run("adopt", "--embeddings", model[0], "--held-out", model[1], "--layers", "2")
    assert again.status == 0
    assert again.out.startswith("Base 2, trained elsewhere: ")
    assert "It does not serve yet." in again.out


def test_what_is_wrong_is_one_sentence(run: Run, small_folder: Path, model: tuple[Path, Path], tmp_path: Path) -> None:
    nothing = run("adopt", "--embeddings", model[0], "--held-out", model[1])
    assert nothing.status == 1
    assert "Import" in nothing.err

    assert run("import", "--data", small_folder).status == 0
    strangers = tmp_path / "ids.txt"
    strangers.write_text("\n".join(f"stranger {number}" for number in range(80)))
    wrong = run("adopt", "--embeddings", model[0], "--held-out", model[1], "--user-ids", strangers)
    assert wrong.status == 1
    assert "users with interactions have no row" in wrong.err
    assert run("adopt", "--embeddings", tmp_path / "none.npz", "--held-out", model[1]).status == 1
    assert run("adopt", "--embeddings", model[0]).status == 2
