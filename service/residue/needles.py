"""What is looked for: gathered before the purge, kept in a file until it ends, or made of what a caller presents."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import cbor2
import numpy as np
from numpy.typing import NDArray

from model_store import ModelStore
from model_store import files as fs
from service.erasures.targets import Subjects
from service.platform.identity import Identity
from service.residue import repository
from service.residue.report import NeedleKind
from service.residue.spellings import spellings_of_bytes, spellings_of_text, too_short
from service.residue.vectors import VectorRows, gather_rows

if TYPE_CHECKING:
    from sqlalchemy import Connection

PRESENTED = "presented"
"""Stands for an erasure where none is named."""
FORMAT = 1
_LEAST_ROW_BYTES = 8
_ROW_BYTES = 32
"""Of a vector, its first ones: eight float32 that only this row begins with; finds a row that was cut off, too."""


@dataclass(frozen=True)
class Needle:
    """Bytes that ought to be gone, for these erasures."""

    kind: NeedleKind
    spelling: str
    pattern: bytes
    erasures: tuple[str, ...]


@dataclass
class Needles:
    """Everything that one search looks for.

    `users`, `items`: surrogate keys that ought to be gone, and `digests` of ids that ought to be gone, with the
    erasures that name them. `pairs`: (user key, item key). `base`: versions that come from older bases ought to be
    gone; None: not known. `short`: ids and texts too short to be searched for as bytes, by kind. `rows` holds vectors
    of the subjects. `gathered`: whether all of it comes from the stores before their purge.
    """

    erasures: tuple[str, ...]
    gathered: bool
    texts: dict[tuple[NeedleKind, str], set[str]] = field(default_factory=dict)
    secrets: dict[tuple[NeedleKind, bytes], set[str]] = field(default_factory=dict)
    users: dict[int, set[str]] = field(default_factory=dict)
    items: dict[int, set[str]] = field(default_factory=dict)
    pairs: dict[tuple[int, int], set[str]] = field(default_factory=dict)
    rows: VectorRows = field(default_factory=VectorRows)
    base: int | None = None

    @classmethod
    def gather(
        cls, connection: Connection, store: ModelStore, identity: Identity, scope_erasure_ids: Sequence[str]
    ) -> Needles:
        """Read what the erasures of a compaction are about, before its purge; versions of older bases are read, too.

        A user or an item that is named whole leaves the vocabulary: id, digest and key are looked for. Of a pair whose
        user and item stay these are legitimate: looked for are the pair, the salt, the words, the user's old vectors.

        Raises:
            StorageUnavailable: the database does not answer.
        """
        found = cls(tuple(scope_erasure_ids), gathered=True, base=repository.kept_base(connection, scope_erasure_ids))
        for row in repository.secrets_of(connection, scope_erasure_ids):
            found._add_secrets(row)
        for key in repository.idempotency_of(connection, scope_erasure_ids):
            found.add_bytes(NeedleKind.IDEMPOTENCY, key.value, key.erasure_id)
        for target in repository.targets_of(connection, scope_erasure_ids):
            found._add_target(target)
        for subject in repository.leaving_users(connection, scope_erasure_ids):
            found.add_subject(subject.id, identity.user(subject.id), subject.erasure_id)
            found.users.setdefault(subject.key, set()).add(subject.erasure_id)
        for subject in repository.leaving_items(connection, scope_erasure_ids):
            found.add_subject(subject.id, identity.item(subject.id), subject.erasure_id)
            found.items.setdefault(subject.key, set()).add(subject.erasure_id)
            if subject.title:
                found.add_text(NeedleKind.TITLE, subject.title, subject.erasure_id)
        found.rows = gather_rows(store.root, found.base, *found.subjects_of_rows())
        return found

    @classmethod
    def presented(
        cls,
        connection: Connection,
        identity: Identity,
        subjects: Subjects,
        salts: Iterable[bytes] = (),
        erasure_id: str | None = None,
    ) -> Needles:
        """What somebody who holds ids and salts has searched for. Vectors are not known to anybody by then.

        Without an erasure it is called `presented`, and nothing of it is taken to be there by right.
        """
        name = erasure_id or PRESENTED
        found = cls((name,), gathered=False)
        if erasure_id is not None:
            found.base = repository.base_of_erased(connection, erasure_id)
            found.add_text(NeedleKind.REQUEST, erasure_id, name)
        for salt in salts:
            found.add_bytes(NeedleKind.SALT, salt, name)
        for ids, digest_of, keys, known in (
            (subjects.users, identity.user, found.users, repository.user_keys),
            (subjects.items, identity.item, found.items, repository.item_keys),
        ):
            digests = {digest_of(each): each for each in ids}
            for digest, id in digests.items():
                found.add_subject(id, digest, name)
            for key in known(connection, list(digests)).values():
                keys.setdefault(key, set()).add(name)
        found._add_presented_pairs(connection, identity, subjects, name)
        return found

    @classmethod
    def load(cls, path: Path) -> Needles:
        """Read what `save` wrote.

        Raises:
            OSError, ValueError: there is none, or it is none.
        """
        try:
            page = cbor2.loads(path.read_bytes())
            if page["format"] != FORMAT:
                raise ValueError
            return cls(
                tuple(page["erasures"]),
                page["gathered"],
                {(NeedleKind(kind), text): set(of) for kind, text, of in page["texts"]},
                {(NeedleKind(kind), data): set(of) for kind, data, of in page["secrets"]},
                {key: set(of) for key, of in page["users"]},
                {key: set(of) for key, of in page["items"]},
                {(user, item): set(of) for user, item, of in page["pairs"]},
                VectorRows.from_page(page["rows"]),
                page["base"],
            )
        except (cbor2.CBORDecodeError, ValueError, KeyError, TypeError) as error:
            msg = f"{path.name} holds no needles."
            raise ValueError(msg) from error

    def save(self, path: Path) -> None:
        """Write them to a file that nobody else reads (0600), whole or not at all; one that is there is replaced."""
        page = {
            "format": FORMAT,
            "erasures": list(self.erasures),
            "gathered": self.gathered,
            "texts": [[kind.value, text, sorted(of)] for (kind, text), of in self.texts.items()],
            "secrets": [[kind.value, data, sorted(of)] for (kind, data), of in self.secrets.items()],
            "users": [[key, sorted(of)] for key, of in self.users.items()],
            "items": [[key, sorted(of)] for key, of in self.items.items()],
            "pairs": [[user, item, sorted(of)] for (user, item), of in self.pairs.items()],
            "rows": self.rows.page(),
            "base": self.base,
        }
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        aside.unlink(missing_ok=True)
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            cbor2.dump(page, file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        fs.sync_folder(path.parent)

    @staticmethod
    def destroy(path: Path) -> None:
        """Take a file of needles away, and what an interrupted `save` left of one; none there is no error.

        Its bytes are written over first, which reaches the disk's blocks where the file system writes in place.
        """
        for each in [path, *path.parent.glob(f".{path.name}.*")]:
            with contextlib.suppress(FileNotFoundError):
                with each.open("r+b") as file:
                    left = each.stat().st_size
                    while left > 0:
                        left -= file.write(bytes(min(left, 1 << 20)))
                    file.flush()
                    os.fsync(file.fileno())
                each.unlink()
        if path.parent.is_dir():
            fs.sync_folder(path.parent)

    def add_subject(self, id: str, digest: bytes, erasure_id: str) -> None:
        """Look for the id of a user or an item that leaves, and for its digest."""
        self.add_text(NeedleKind.ID, id, erasure_id)
        self.add_bytes(NeedleKind.DIGEST, digest, erasure_id)

    def add_text(self, kind: NeedleKind, text: str, erasure_id: str) -> None:
        """Look for a text."""
        self.texts.setdefault((kind, text), set()).add(erasure_id)

    def add_bytes(self, kind: NeedleKind, data: bytes, erasure_id: str) -> None:
        """Look for a digest or a salt."""
        self.secrets.setdefault((kind, data), set()).add(erasure_id)

    def patterns(self) -> list[Needle]:
        """All that is looked for byte by byte, in each of its spellings."""
        found = list[Needle]()
        for (kind, text), of in self.texts.items():
            if not too_short(text):
                found += [Needle(kind, name, each, tuple(of)) for name, each in spellings_of_text(text).items()]
        for (kind, data), of in self.secrets.items():
            found += [Needle(kind, name, each, tuple(of)) for name, each in spellings_of_bytes(data).items()]
        for row, of in self.rows:
            data = row.tobytes()[:_ROW_BYTES]
            if len(data) >= _LEAST_ROW_BYTES and np.count_nonzero(row[:8]) * 2 > min(len(row), 8):
                found.append(Needle(NeedleKind.ROW, "float32", data, tuple(of)))
        return found

    def counts(self) -> dict[str, int]:
        """How many are looked for, by kind, and how many of these are too short to be looked for as bytes."""
        counted = dict[str, int]()
        for kind, _ in [*self.texts, *self.secrets]:
            counted[kind.value] = counted.get(kind.value, 0) + 1
        counted |= {"key": len(self.users) + len(self.items), "edge": len(self.pairs), "row": len(self.rows)}
        counted["too_short"] = sum(too_short(text) for _, text in self.texts)
        return counted

    @property
    def of_erasures(self) -> bool:
        """Whether erasures are behind it: then what is recorded again with consent is there by right."""
        return self.erasures != (PRESENTED,)

    def digests(self) -> dict[bytes, set[str]]:
        """Digests of the ids that ought to be gone."""
        return {data: of for (kind, data), of in self.secrets.items() if kind is NeedleKind.DIGEST}

    def pair_keys(self) -> NDArray[np.int64]:
        """(n, 2) int64 keys of the pairs."""
        return np.array(list(self.pairs), np.int64).reshape(-1, 2)

    def subjects_of_rows(self) -> tuple[Mapping[int, set[str]], Mapping[int, set[str]]]:
        """Whose vectors are looked for: users and items that leave, and the users of pairs; key -> erasures."""
        users = {key: set(of) for key, of in self.users.items()}
        for (user, _), of in self.pairs.items():
            users.setdefault(user, set()).update(of)
        return users, self.items

    def _add_secrets(self, row: repository.ErasureSecrets) -> None:
        self.add_text(NeedleKind.REQUEST, row.id, row.id)
        if row.salt is not None:
            self.add_bytes(NeedleKind.SALT, bytes.fromhex(row.salt), row.id)
        for text in (row.reason, row.extension_reason):
            if text:
                self.add_text(NeedleKind.REASON, text, row.id)

    def _add_target(self, target: repository.StoredTarget) -> None:
        if target.user_key is not None and target.item_key is not None:
            self.pairs.setdefault((target.user_key, target.item_key), set()).add(target.erasure_id)

    def _add_presented_pairs(self, connection: Connection, identity: Identity, subjects: Subjects, name: str) -> None:
        users = repository.user_keys(connection, [identity.user(user) for user, _ in subjects.interactions])
        items = repository.item_keys(connection, [identity.item(item) for _, item in subjects.interactions])
        for user, item in subjects.interactions:
            user_key, item_key = users.get(identity.user(user)), items.get(identity.item(item))
            if user_key is not None and item_key is not None:
                self.pairs.setdefault((user_key, item_key), set()).add(name)
            # Whose row is still there stays by right; one that is in no vocabulary should be nowhere.
            if user_key is None:
                self.add_text(NeedleKind.ID, user, name)
            if item_key is None:
                self.add_text(NeedleKind.ID, item, name)
