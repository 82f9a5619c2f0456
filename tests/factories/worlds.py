"""Small worlds for tests: users, items and interactions in SQL, versions in the store whose every score is known."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from sqlalchemy import insert, select

from model_store import Manifest, ManifestFacts, ModelStore
from service.models import service as models
from service.platform.database import Database
from service.platform.identity import Identity, load_identity
from service.platform.tables import erasures, interactions, items, users
from service.settings import Settings

AT = datetime(2026, 11, 21, 4, 0, tzinfo=UTC)
EMBEDDINGS = "embeddings.safetensors"


class World:
    """One home with a vocabulary and versions. Keys are positions from 1: `users[0]` has key 1."""

    def __init__(self, settings: Settings, database: Database, users: Sequence[str], items: Sequence[str]) -> None:
        self.settings, self.database, self.users, self.items = settings, database, list(users), list(items)
        self.identity: Identity = load_identity(settings)
        self.store = ModelStore(settings.store_root, key=self.identity.derive("manifest"))
        self.remember(users, items)

    def remember(self, new_users: Sequence[str] = (), new_items: Sequence[str] = ()) -> None:
        """Add users and items to the vocabulary; items have the title "Film <id>", but for those that end in "x"."""
        user_rows = [{"id": id, "digest": self.identity.user(id)} for id in new_users]
        item_rows = [{"id": id, "digest": self.identity.item(id), "title": title(id)} for id in new_items]
        with self.database.write() as connection:
            for table, rows in ((users, user_rows), (items, item_rows)):
                if rows:
                    connection.execute(insert(table), rows)

    def record(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Record interactions."""
        with self.database.write() as connection:
            user_keys = {row.id: row.key for row in connection.execute(select(users.c.id, users.c.key))}
            item_keys = {row.id: row.key for row in connection.execute(select(items.c.id, items.c.key))}
            rows = [{"user_key": user_keys[u], "item_key": item_keys[i], "recorded_at": AT} for u, i in pairs]
            connection.execute(insert(interactions), rows)

    def erasure(self, seq: int, **changes: Any) -> str:
        """Put an erasure of one recorded interaction on record, as it would be after some time; returns its id."""
        plain = {
            "id": f"erasure-{seq}",
            "seq": seq,
            "status": "accepted",
            "mode": "forget",
            "requested": 1,
            "matched": 1,
            "commitment": "c" * 64,
            "received_at": AT,
            "due_at": AT,
            "key_id": "k",
        }
        with self.database.write() as connection:
            connection.execute(insert(erasures).values(**(plain | changes)))
        return f"erasure-{seq}"

    def publish(
        self,
        number: int,
        scores: Sequence[Sequence[float]],
        *,
        user_degrees: Sequence[int] | None = None,
        item_degrees: Sequence[int] | None = None,
        **changes: Any,
    ) -> Manifest:
        """Publish a version in which user row u scores item row i as `scores[u][i]`."""
        return self.publish_tensors(
            number, tensors_of(np.array(scores, np.float32), user_degrees, item_degrees), **changes
        )

    def publish_tensors(self, number: int, tensors: Mapping[str, np.ndarray[Any, Any]], **changes: Any) -> Manifest:
        """Publish a version with these embeddings."""
        plain: dict[str, Any] = {
            "kind": "base",
            "dataset_hash": "d" * 64,
            "code_version": "0.1.0",
            "seed": 7,
            "created_at": AT,
        }
        return self.store.publish("versions", number, {EMBEDDINGS: tensors}, ManifestFacts(**(plain | changes)))

    def register(self, manifest: Manifest, *, erasure_seq: int = 0, status: str = "ready") -> None:
        """Record a published version in SQL."""
        self.database.transact(
            lambda write: models.register(write, manifest, erasure_seq=erasure_seq, at=AT, status=status)
        )

    def make_live(self, number: int) -> None:
        """Point `live` at a version, as settling a batch does."""
        self.database.transact(lambda write: models.move_alias(write, "live", number, AT, fenced=False))

    def serve(self, number: int, scores: Sequence[Sequence[float]], **given: Any) -> None:
        """Publish, record and point `live` at a version."""
        self.register(self.publish(number, scores, **given))
        self.make_live(number)


def title(item_id: str) -> str | None:
    """Return the title that an item has in a world."""
    return None if item_id.endswith("x") else f"Film {item_id}"


def tensors_of(
    scores: np.ndarray[Any, np.dtype[np.float32]],
    user_degrees: Sequence[int] | None = None,
    item_degrees: Sequence[int] | None = None,
) -> Mapping[str, np.ndarray[Any, Any]]:
    """Return embeddings whose inner products are these scores (n_users, n_items): users are the unit vectors."""
    n_users, n_items = scores.shape
    return {
        "users": np.eye(n_users, dtype=np.float32),
        "items": np.ascontiguousarray(scores.T),
        "user_keys": np.arange(1, n_users + 1, dtype=np.int64),
        "item_keys": np.arange(1, n_items + 1, dtype=np.int64),
        "user_degrees": np.array([1] * n_users if user_degrees is None else user_degrees, np.int32),
        "item_degrees": np.array([1] * n_items if item_degrees is None else item_degrees, np.int32),
    }
