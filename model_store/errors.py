"""Every way in which the model store refuses, as one tree.

    StoreError
    ├── InvalidName          a collection, number, file or alias name that could leave the store
    ├── Missing              no such version, file or alias target
    ├── VersionExists        the number is taken by other content: versions never change
    ├── InUse                a version that an alias names cannot be purged
    ├── Unwritable           the file system refused a write; no half of a version is visible
    ├── Unpublishable        the tensors given are not ones that could be loaded again
    └── Damaged              the bytes on disk are not the ones that were published: never loaded
        ├── NotAPlainFile        a symlink, folder, pipe or device where a file should be
        ├── ManifestDamaged      not the canonical JSON of a manifest, or its own checksum disagrees
        ├── SignatureMismatch    unsigned, or signed with another key
        ├── Misplaced            a sound manifest that belongs to another number
        ├── MissingFile          a file that the manifest names is gone
        ├── UnexpectedFile       a file that the manifest does not name
        ├── Truncated            shorter (or longer) than the manifest says
        ├── ChecksumMismatch     the SHA-256 disagrees
        ├── HeaderDamaged        the safetensors header is out of bounds or not well formed
        ├── UnexpectedTensor     a tensor that the manifest does not name
        ├── MissingTensor        a tensor of the manifest that the file lacks
        ├── WrongType            another dtype than the manifest says
        ├── WrongShape           another shape than the manifest says
        └── NotFinite            NaN or infinity in a tensor

Each message says what happened, to which file, and what to do. None holds an id of a person.
"""

__all__ = [
    "ChecksumMismatch",
    "Damaged",
    "HeaderDamaged",
    "InUse",
    "InvalidName",
    "ManifestDamaged",
    "Misplaced",
    "Missing",
    "MissingFile",
    "MissingTensor",
    "NotAPlainFile",
    "NotFinite",
    "SignatureMismatch",
    "StoreError",
    "Truncated",
    "UnexpectedFile",
    "UnexpectedTensor",
    "Unpublishable",
    "Unwritable",
    "VersionExists",
    "WrongShape",
    "WrongType",
]


class StoreError(Exception):
    """The model store could not do what was asked; the message says why and what to do."""


class InvalidName(StoreError):
    """A name that is not one of the store's own, so that no path can leave its folder."""

    def __init__(self, kind: str, rule: str) -> None:
        super().__init__(f"This {kind} is refused: {rule}. Nothing was read or written.")


class Missing(StoreError):
    """No such version, file or alias target."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not in the model store. List the published numbers and choose one of them.")


class VersionExists(StoreError):
    """The number is taken by a version with other content."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} exists already with other content; versions never change. Publish under a new number."
        )


class InUse(StoreError):
    """A version that an alias names cannot be purged."""

    def __init__(self, what: str, alias: str) -> None:
        super().__init__(f"{what} is not purged: the alias '{alias}' names it. Move the alias first.")


class Unwritable(StoreError):
    """The file system refused a write; no half of a version is visible."""

    def __init__(self, what: str, cause: OSError) -> None:
        super().__init__(
            f"{what} could not be written ({cause.strerror or cause}). Nothing of it is half visible; "
            "free space or restore write access to the model store, then try again."
        )


class Unpublishable(StoreError):
    """The tensors given could not be loaded again, so they are not written."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what} is not published: {why}. Correct the tensors and publish again.")


class Damaged(StoreError):
    """The bytes on disk are not the ones that were published, so they are never loaded."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(
            f"{what} {why}. It is not loaded, and what was loaded before goes on serving; "
            "restore the file from a copy or publish a new version."
        )


class NotAPlainFile(Damaged):
    """A symlink, folder, pipe or device where a file should be."""


class ManifestDamaged(Damaged):
    """Not the canonical JSON of a manifest, or its own checksum disagrees."""


class SignatureMismatch(Damaged):
    """Unsigned, or signed with another key than this service's."""


class Misplaced(Damaged):
    """A sound manifest that belongs to another number or collection."""


class MissingFile(Damaged):
    """A file that the manifest names is gone."""


class UnexpectedFile(Damaged):
    """A file in the version's folder that its manifest does not name."""


class Truncated(Damaged):
    """Shorter, or longer, than the manifest says."""


class ChecksumMismatch(Damaged):
    """The SHA-256 of the bytes disagrees with the manifest."""


class HeaderDamaged(Damaged):
    """The safetensors header is out of bounds or not well formed."""


class UnexpectedTensor(Damaged):
    """A tensor that the manifest does not name."""


class MissingTensor(Damaged):
    """A tensor of the manifest that the file lacks."""


class WrongType(Damaged):
    """Another dtype than the manifest says."""


class WrongShape(Damaged):
    """Another shape than the manifest says."""


class NotFinite(Damaged):
    """NaN or infinity in a tensor."""
