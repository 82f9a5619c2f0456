"""Recording interactions, showing a person theirs, and reading them all for training."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection

from service.audit import service as audit
from service.interactions import repository
from service.interactions.problems import AllSuppressed
from service.interactions.repository import Keys, OwnInteraction
from service.platform.cursor import read_cursor, write_cursor
from service.platform.dependencies import Services
from service.platform.identity import Identity
from service.platform.problem import FieldError

LISTING = "interactions"
REFUSED = "It is suppressed: an erasure covers it."


@dataclass(frozen=True)
class RecordingResult:
    """What became of interactions that were sent; `refused` are positions in what was sent, ascending."""

    recorded: int
    duplicates: int
    refused: tuple[int, ...]


@dataclass(frozen=True)
class Snapshot:
    """Everything recorded and not suppressed, ready for training.

    Shapes: `user_keys` (n_users,) and `item_keys` (n_items,) int64 ascending, those with an edge; `edges` (2, m) int32
    rows of these, sorted and unique. `seq`: the length of the audit log in the same instant; every erasure accepted up
    to it is kept out, but for those that await approval.
    """

    user_keys: Keys
    item_keys: Keys
    edges: NDArray[np.int32]
    seq: int


async def record(services: Services, pairs: Sequence[tuple[str, str]]) -> RecordingResult:
    """Record interactions of (user id, item id); users and items that are new are registered.

    Raises:
        AllSuppressed: each of them is covered by an erasure; nothing was stored.
    """
    digests = [(services.identity.user(user), services.identity.item(item)) for user, item in pairs]
    at = services.clock.now()

    def unit(connection: Connection) -> RecordingResult:
        # No erasure is accepted while this runs: what is not suppressed here is not suppressed when it is committed.
        audit.lock_shared(connection)
        refused = _refused(connection, digests)
        if len(refused) == len(pairs):
            raise AllSuppressed(errors=[FieldError(f"#/interactions/{place}", REFUSED) for place in refused])
        kept = dict(zip(digests, pairs, strict=True))
        for place in refused:
            kept.pop(digests[place], None)
        repository.register_users(connection, {user: id for (user, _), (id, _) in kept.items()})
        repository.register_items(connection, {item: id for (_, item), (_, id) in kept.items()})
        user_keys = repository.user_keys(connection, list({user for user, _ in kept}))
        item_keys = repository.item_keys(connection, list({item for _, item in kept}))
        keys = sorted((user_keys[user], item_keys[item]) for user, item in kept)
        count = repository.record(connection, [user for user, _ in keys], [item for _, item in keys], at)
        return RecordingResult(count, len(pairs) - len(refused) - count, refused)

    return await services.database.run_write(unit)


async def of_user(
    services: Services, user_id: str, cursor: str | None, limit: int
) -> tuple[list[OwnInteraction], str | None]:
    """A page of a user's interactions, in a stable order, and the cursor of the next one; unknown users have none."""
    digest = services.identity.user(user_id)
    listing = f"{LISTING} {digest.hex()}"
    after = 0 if cursor is None else read_cursor(services.identity, listing, cursor)
    found = await services.database.run_read(
        lambda connection: repository.of_user(connection, digest, after, limit + 1)
    )
    more = len(found) > limit
    return found[:limit], write_cursor(services.identity, listing, found[limit - 1].item_key) if more else None


def snapshot(connection: Connection) -> Snapshot:
    """Read everything that may be learnt from; the connection's transaction must be a snapshot (`Database.read`)."""
    seq = audit.size(connection)
    pairs = repository.all_pairs(connection)
    pairs = pairs[:, ~_covered(pairs, repository.suppressed_keys(connection))]
    user_keys, item_keys = _distinct(pairs[0]), _distinct(pairs[1])
    rows = np.stack((np.searchsorted(user_keys, pairs[0]), np.searchsorted(item_keys, pairs[1])))
    order = np.argsort(rows[0] * max(len(item_keys), 1) + rows[1])
    return Snapshot(user_keys, item_keys, rows[:, order].astype(np.int32), seq)


def dataset_hash(data: Snapshot) -> str:
    """SHA-256, hex, over the surrogate keys and the edges of a snapshot: the same data give the same hash."""
    digest = hashlib.sha256()
    for array in (data.user_keys, data.item_keys, data.edges):
        digest.update(f"{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def count_recorded(connection: Connection) -> int:
    """How many interactions are recorded, those that an erasure covers too."""
    return repository.count_pairs(connection)


def anything_suppressed(connection: Connection) -> bool:
    """Whether an erasure covers anything, also what is not registered any more."""
    found = repository.suppressed_all(connection)
    return bool(found.users or found.items or found.pairs)


def without_suppressed(connection: Connection, pairs: Keys) -> Keys:
    """Those of the (2, m) pairs of keys that no erasure covers."""
    kept: Keys = pairs[:, ~_covered(pairs, repository.suppressed_keys(connection))]
    return kept


def user_keys(connection: Connection, identity: Identity, ids: Sequence[str]) -> Keys:
    """Surrogate keys of user ids, (n,) int64 in their order; -1 for one that is not registered."""
    digests = [identity.user(id) for id in ids]
    known = repository.user_keys(connection, digests)
    return np.array([known.get(digest, -1) for digest in digests], np.int64)


def item_keys(connection: Connection, identity: Identity, ids: Sequence[str]) -> Keys:
    """Surrogate keys of item ids, (n,) int64 in their order; -1 for one that is not registered."""
    digests = [identity.item(id) for id in ids]
    known = repository.item_keys(connection, digests)
    return np.array([known.get(digest, -1) for digest in digests], np.int64)


def _refused(connection: Connection, digests: Sequence[tuple[bytes, bytes]]) -> tuple[int, ...]:
    suppressed = repository.suppressed_among(
        connection, sorted({user for user, _ in digests}), sorted({item for _, item in digests})
    )
    return tuple(place for place, pair in enumerate(digests) if suppressed.covers(*pair))


def _covered(pairs: Keys, suppressed: repository.SuppressedKeys) -> NDArray[np.bool_]:
    """(m,) bool: which of the (2, m) pairs are suppressed."""
    whole = np.isin(pairs[0], suppressed.users) | np.isin(pairs[1], suppressed.items)
    width = max(int(pairs[1].max(initial=0)), int(suppressed.pairs[1].max(initial=0))) + 1
    named = np.isin(pairs[0] * width + pairs[1], suppressed.pairs[0] * width + suppressed.pairs[1])
    covered: NDArray[np.bool_] = whole | named
    return covered


def _distinct(keys: Keys) -> Keys:
    ordered = np.sort(keys)
    first = np.ones(len(ordered), np.bool_)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]
