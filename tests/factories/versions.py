"""Small versions for tests: a few users and items, every number in them known."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from model_store import Array, Manifest, ManifestFacts, ModelStore, RequestFacts

KEY = b"k" * 32
EMBEDDINGS = "embeddings.safetensors"


def facts(**changes: object) -> ManifestFacts:
    """Return the facts of a forgotten version, with changes."""
    plain: dict[str, object] = {
        "kind": "forgotten",
        "dataset_hash": "d" * 64,
        "code_version": "0.1.0",
        "seed": 7,
        "created_at": datetime(2026, 11, 21, 4, 0, tzinfo=UTC),
        "parent": 1,
        "encoders": {"forget": 1},
        "requests": RequestFacts.of(["a", "b"]),
        "metrics": {"ndcg_at_20": 0.345},
    }
    return ManifestFacts(**(plain | changes))  # type: ignore[arg-type]


def tensors(n_users: int = 4, n_items: int = 6, d: int = 3, seed: int = 0) -> dict[str, Array]:
    """Return the tensors of an embeddings file: random vectors, keys 10, 20, ..., every degree 1."""
    random = np.random.default_rng(seed)
    return {
        "users": random.standard_normal((n_users, d), dtype=np.float32),
        "items": random.standard_normal((n_items, d), dtype=np.float32),
        "user_keys": np.arange(1, n_users + 1, dtype=np.int64) * 10,
        "item_keys": np.arange(1, n_items + 1, dtype=np.int64) * 10,
        "user_degrees": np.ones(n_users, dtype=np.int32),
        "item_degrees": np.ones(n_items, dtype=np.int32),
    }


def publish(store: ModelStore, number: int = 42, *, seed: int = 0, **changes: object) -> Manifest:
    """Publish one small version."""
    return store.publish("versions", number, {EMBEDDINGS: tensors(seed=seed)}, facts(**changes))


def file_of(store: ModelStore, number: int = 42, name: str = EMBEDDINGS) -> Path:
    """Return the path of a version's file, to damage it."""
    return store.root / "versions" / f"{number:06d}" / name
