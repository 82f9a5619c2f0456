"""Which versions and encoders go: all that were made from a base that may have learnt what is purged."""

from collections.abc import Mapping
from dataclasses import dataclass

from model_store import Manifest, ModelStore, StoreError
from service.models.repository import VersionRow


@dataclass(frozen=True)
class ModelsToPurge:
    """Versions on record, numbers of the store that no record knows, and encoders; ascending."""

    recorded: tuple[int, ...]
    stray: tuple[int, ...]
    encoders: tuple[int, ...]


def choose(rows: Mapping[int, VersionRow], base: int, store: ModelStore) -> ModelsToPurge:
    """What to purge so that nothing is left that may have learnt what `base` was trained without.

    Kept are `base`, bases that were trained on what was recorded later, and what was made from these. What is being
    published from a kept base is left alone, whoever does it.

    Args:
        rows: every version on record.
        base: the base that was trained without it; on record.
        store: what is there, on record or not, is looked at.
    """
    since = snapshot_seq(rows[base])
    kept = {row.version for row in rows.values() if row.kind == "base" and _is_later(row, since)} | {base}
    recorded = tuple(sorted(row.version for row in rows.values() if row.status != "purged" and row.base not in kept))
    stray = []
    for number in store.numbers("versions"):
        row = rows.get(number)
        if (row is None and not _comes_from(store, number, kept, since)) or (
            row is not None and row.status == "purged"
        ):
            stray.append(number)
    bases = kept | {
        number for number in store.numbers("versions") if number not in rows and _comes_from(store, number, kept, since)
    }
    chosen = {number for version in kept for number in _encoders(rows.get(version))}
    encoders = [
        number for number in store.numbers("encoders") if number not in chosen and _parent(store, number) not in bases
    ]
    return ModelsToPurge(recorded, tuple(stray), tuple(encoders))


def snapshot_seq(row: VersionRow) -> int:
    """The audit log's size when the training data of a base were read."""
    config = row.manifest.get("config") or {}
    return int(config.get("snapshot_seq", row.erasure_seq))


def _is_later(row: VersionRow, since: int) -> bool:
    return row.status in ("ready", "held") and snapshot_seq(row) >= since


def _comes_from(store: ModelStore, number: int, kept: set[int], since: int) -> bool:
    """Whether a version that is not on record was made from a kept base, or is a base trained on later data."""
    manifest = _manifest(store, number)
    if manifest is None:
        return False
    if manifest.facts.parent is not None:
        return manifest.facts.parent in kept
    return int(manifest.facts.config.get("snapshot_seq", -1)) >= since


def _manifest(store: ModelStore, number: int) -> Manifest | None:
    try:
        return store.manifest("versions", number)
    except StoreError:  # damaged, or gone meanwhile: nothing says that it may stay
        return None


def _parent(store: ModelStore, encoder: int) -> int | None:
    try:
        return store.manifest("encoders", encoder).facts.parent
    except StoreError:
        return None


def _encoders(row: VersionRow | None) -> list[int]:
    return [] if row is None else [int(number) for number in (row.manifest.get("encoders") or {}).values()]
