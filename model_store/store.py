"""The model store: immutable numbered versions, published whole or not at all, verified whenever they are opened.

    <root>/versions/000042/{manifest.json, embeddings.safetensors[, base.safetensors]}
    <root>/encoders/000003/{manifest.json, encoder.safetensors}
    <root>/aliases/{live,previous}
    <root>/{key.check,watermark.json}      what ties it to its database: see `model_store.markers`
    <root>/ledger/                         the erasures that the database accepted: see `model_store.erasure_ledger`

A version is written in a folder aside (`.tmp-...`), forced to the disk, and renamed into place: a reader sees all of
it or nothing, whenever the power goes.
"""

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args

from model_store import files as fs
from model_store.erasure_ledger import ErasureLedger
from model_store.errors import (
    ChecksumMismatch,
    Damaged,
    InUse,
    InvalidName,
    ManifestDamaged,
    Misplaced,
    Missing,
    MissingFile,
    Truncated,
    UnexpectedFile,
    Unpublishable,
    Unwritable,
    VersionExists,
)
from model_store.manifest import Collection, FileFacts, Manifest, ManifestFacts, TensorFacts
from model_store.markers import StoreMarkers
from model_store.tensors import Array, encode, views

Tensors = Mapping[str, Array]

MANIFEST = "manifest.json"
_MANIFEST_MAX_BYTES = 4 << 20
_FILE_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}\.safetensors")
_ALIAS_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_NUMBER = re.compile(r"[0-9]{6,18}")
_ALIAS_MAX_BYTES = 32


def _no_step(step: str) -> None:
    """Do nothing: the place where a test or the worker may interrupt."""


class ModelStore:
    """Versions and encoders in one folder tree, each under its number, with a signed manifest.

    Args:
        root: the folder; made at the first write.
        key: signs the manifests, and then only manifests signed with it are read. Without a key a manifest is
            unsigned and checked by its checksum alone.
    """

    def __init__(self, root: Path, *, key: bytes | None = None) -> None:
        self.root = root
        self._key = key
        self.markers = StoreMarkers(root, key)
        self.ledger = ErasureLedger(root, key)

    def publish(
        self,
        collection: Collection,
        number: int,
        files: Mapping[str, Tensors],
        facts: ManifestFacts,
        on_step: Callable[[str], None] = _no_step,
    ) -> Manifest:
        """Write a version whole: aside, each file forced to the disk, the manifest last, then one rename.

        Publishing the same content again (whatever its `created_at`) changes nothing and returns the manifest that is
        there. `on_step` is called with "after_file", "before_rename" and "after_rename".

        Raises:
            VersionExists: the number holds other content.
            Unpublishable: a tensor or a fact that could not be read back.
            Unwritable: the disk is full, read-only or failing; no half of the version is visible.
        """
        place = self._place(collection, number)
        pages = {_checked(name, _FILE_NAME, "file name"): encode(tensors, name) for name, tensors in files.items()}
        page_facts = {name: _file_facts(data, tensors) for name, (data, tensors) in pages.items()}
        manifest = self._seal(Manifest(collection, number, facts, page_facts))
        with _writing(_what(collection, number)):
            contents = {name: data for name, (data, _) in pages.items()} | {MANIFEST: manifest.to_json()}
            written = not place.exists() and _write_whole(place, contents, on_step)
            fs.sync_folder(place.parent)
        if not written:
            return self._same(manifest)
        on_step("after_rename")
        return manifest

    def manifest(self, collection: Collection, number: int) -> Manifest:
        """Return the manifest of a version, its checksum and signature verified.

        Raises:
            Missing, NotAPlainFile, ManifestDamaged, SignatureMismatch, Misplaced: see `model_store.errors`.
        """
        with self._folder(collection, number) as folder_fd:
            return self._manifest(collection, number, folder_fd)

    def open(self, collection: Collection, number: int, file: str) -> dict[str, Array]:
        """Map a file of a version and return its tensors, read-only views on the map, after verifying all of it.

        The bytes verified are the bytes mapped: the file is opened once. It is read through once for its SHA-256 (about
        1 GB/s) and once for NaN; the pages stay shared with the system's cache and other processes. The map is
        closed when the last view is gone.

        Raises:
            Missing: no such version, or its manifest names no such file.
            Damaged: any of its kinds; the file is not used.
        """
        _checked(file, _FILE_NAME, "file name")
        with self._folder(collection, number) as folder_fd:
            manifest = self._manifest(collection, number, folder_fd)
            what = _what(collection, number, file)
            if file not in manifest.files:
                raise Missing(what)
            try:
                data = fs.read_map(file, folder_fd, what)
            except Missing as cause:
                raise MissingFile(what, "is gone, though its manifest names it") from cause
        return _verified(data, manifest.files[file], what)

    def verify(self, collection: Collection, number: int) -> Manifest:
        """Check every file of a version, and that there is no other, and return its manifest; raises as `open`."""
        manifest = self.manifest(collection, number)
        for name in manifest.files:
            self.open(collection, number, name)
        with self._folder(collection, number) as folder_fd:
            found = set(os.listdir(folder_fd))
        for name in sorted(found - {MANIFEST, *manifest.files}):
            raise UnexpectedFile(
                _what(collection, number), f"holds the file {name!r}, which its manifest does not name"
            )
        return manifest

    def numbers(self, collection: Collection) -> list[int]:
        """Return the numbers published in a collection, ascending; what is being written does not count."""
        parent = self.root / _collection(collection)
        names = os.listdir(parent) if parent.is_dir() else []
        return sorted(int(name) for name in names if _NUMBER.fullmatch(name) and _name(int(name)) == name)

    def set_alias(self, name: str, number: int) -> None:
        """Point an alias at a version, in one rename.

        Raises:
            InvalidName: the alias name is not one of the store's own.
            Damaged, Missing: the version cannot be pointed at.
            Unwritable: the alias stays where it was.
        """
        path = self._alias_path(name)
        self.manifest("versions", number)
        with _writing(f"The alias '{name}'"):
            path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            with fs.aside(path.parent, name) as aside:
                fs.write_new(aside / name, f"{number}\n".encode())
                os.rename(aside / name, path)
            fs.sync_folder(path.parent)

    def alias(self, name: str) -> int | None:
        """Return the number that an alias points at, or None where it was never set; raises Damaged."""
        self._alias_path(name)
        what = f"The alias '{name}'"
        try:
            with fs.folder(self.root, "aliases", what=what) as folder_fd:
                data = fs.read_map(name, folder_fd, what)
        except Missing:
            return None
        text = bytes(data[:_ALIAS_MAX_BYTES])
        if not re.fullmatch(rb"[1-9][0-9]{0,17}\n", text):
            raise Damaged(what, "does not hold a number")
        return int(text)

    def purge(self, collection: Collection, number: int) -> None:
        """Take a version's bytes away: the folder is renamed first, so it is whole or gone to every reader.

        A map that is open keeps its pages until it is closed. Purging what is not there changes nothing.

        Raises:
            InUse: an alias names the version.
            Unwritable: the file system refused; what is left goes at the next `clean`.
        """
        place = self._place(collection, number)
        if collection == "versions":
            self._refuse_aliased(number)
        gone = place.with_name(f"{fs.GONE}{place.name}-{secrets.token_hex(6)}")
        with _writing(_what(collection, number)):
            try:
                os.rename(place, gone)
            except FileNotFoundError:
                return
            fs.sync_folder(place.parent)
            fs.erase_folder(gone)
            fs.sync_folder(place.parent)

    def withdraw(self, collection: Collection, numbers: Sequence[int]) -> None:
        """Purge versions whatever names them: an alias that does is taken away first. Raises Unwritable."""
        for name in self._alias_names() if collection == "versions" else ():
            if self.alias(name) in numbers:
                path = self._alias_path(name)
                with _writing(f"The alias '{name}'"):
                    path.unlink(missing_ok=True)
                    fs.sync_folder(path.parent)
        for number in numbers:
            self.purge(collection, number)

    def clean(self) -> list[str]:
        """Take away what interrupted publishes and purges left; return the names. Those under way are left alone."""
        names = []
        for collection in (*get_args(Collection), "aliases"):
            parent = self.root / collection
            for path in fs.leftovers(parent):
                with _writing(f"The leftover {collection}/{path.name}"):
                    fs.erase_folder(path)
                names.append(f"{collection}/{path.name}")
            if names and parent.is_dir():
                fs.sync_folder(parent)
        return names

    def _place(self, collection: Collection, number: int) -> Path:
        return self.root / _collection(collection) / _name(number)

    def _alias_path(self, name: str) -> Path:
        return self.root / "aliases" / _checked(name, _ALIAS_NAME, "alias name")

    def _folder(self, collection: Collection, number: int) -> contextlib.AbstractContextManager[int]:
        what = _what(collection, number)
        return fs.folder(self.root, _collection(collection), _name(number), what=what)

    def _manifest(self, collection: Collection, number: int, folder_fd: int) -> Manifest:
        what = _what(collection, number, MANIFEST)
        try:
            data = fs.read_map(MANIFEST, folder_fd, what)
        except Missing as cause:
            raise ManifestDamaged(what, "is gone") from cause
        if len(data) > _MANIFEST_MAX_BYTES:
            raise ManifestDamaged(what, f"is longer than {_MANIFEST_MAX_BYTES} bytes")
        manifest = Manifest.from_json(bytes(data), what=what, key=self._key)
        if (manifest.collection, manifest.number) != (collection, number):
            raise Misplaced(what, f"belongs to {manifest.collection}/{manifest.number}")
        return manifest

    def _seal(self, manifest: Manifest) -> Manifest:
        what = _what(manifest.collection, manifest.number, MANIFEST)
        try:
            return Manifest.from_json(manifest.sealed(self._key).to_json(), what=what, key=self._key)
        except (ValueError, TypeError, Damaged) as cause:
            raise Unpublishable(what, "a fact in it is not plain JSON, or out of range") from cause

    def _same(self, manifest: Manifest) -> Manifest:
        found = self.verify(manifest.collection, manifest.number)
        if not found.same_content(manifest):
            raise VersionExists(_what(manifest.collection, manifest.number))
        return found

    def _alias_names(self) -> list[str]:
        folder = self.root / "aliases"
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        return [name for name in names if _ALIAS_NAME.fullmatch(name)]

    def _refuse_aliased(self, number: int) -> None:
        for name in self._alias_names():
            if self.alias(name) == number:
                raise InUse(_what("versions", number), name)


def _verified(data: memoryview, facts: FileFacts, what: str) -> dict[str, Array]:
    if len(data) != facts.bytes:
        raise Truncated(what, f"is {len(data)} bytes long instead of {facts.bytes}")
    found = hashlib.sha256(data).hexdigest()
    if found != facts.sha256:
        raise ChecksumMismatch(what, f"fails its checksum (expected {facts.sha256[:12]}..., found {found[:12]}...)")
    return views(data, facts.tensors, what)


def _file_facts(data: bytes, tensors: Mapping[str, TensorFacts]) -> FileFacts:
    return FileFacts(len(data), hashlib.sha256(data).hexdigest(), tensors)


def _write_whole(place: Path, contents: Mapping[str, bytes], on_step: Callable[[str], None]) -> bool:
    """Write files aside, in the order given, and rename them into place together; False where others were first."""
    place.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    with fs.aside(place.parent, place.name) as aside:
        for name, data in contents.items():
            fs.write_new(aside / name, data)
            on_step("after_file")
        fs.sync_folder(aside)
        on_step("before_rename")
        return _rename_new(aside, place)


def _rename_new(source: Path, target: Path) -> bool:
    """Rename a folder into place; False where another publisher was first (a folder with files is never replaced)."""
    try:
        os.rename(source, target)
    except OSError:
        if target.exists():
            return False
        raise
    return True


@contextlib.contextmanager
def _writing(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        raise Unwritable(what, cause) from cause


def _checked(name: str, pattern: re.Pattern[str], kind: str) -> str:
    if not pattern.fullmatch(name):
        raise InvalidName(kind, f"it does not match {pattern.pattern}")
    return name


def _collection(name: Collection) -> str:
    if name not in get_args(Collection):
        raise InvalidName("collection", f"it is none of {', '.join(get_args(Collection))}")
    return name


def _name(number: int) -> str:
    if type(number) is not int or not 0 < number < 10**18:
        raise InvalidName("version number", "it is not a whole number from 1 to 10^18")
    return f"{number:06d}"


def _what(collection: Collection, number: int, file: str | None = None) -> str:
    return f"{_collection(collection)}/{_name(number)}" + (f"/{file}" if file else "")
