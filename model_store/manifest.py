"""What a version is, in one signed page: where it comes from, what it holds, how good it was.

The manifest is canonical JSON (keys sorted, no spaces, UTF-8): the same facts give the same bytes, and any other
spelling of them is refused. `checksum` is the SHA-256 of everything but itself and the signature, so bit rot shows
even where no key is at hand; `signature` is an HMAC-SHA256 under the service's key, so a forged page shows too.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, Self, cast, get_args

from model_store.errors import ManifestDamaged, SignatureMismatch

FORMAT = 1

Collection = Literal["versions", "encoders"]
Kind = Literal["base", "forgotten", "encoder"]

_HEX64 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class TensorFacts:
    """The type and shape of one tensor: `dtype` as safetensors names it (F32, I64, ...)."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class FileFacts:
    """One file of a version: its length in bytes, its SHA-256 in hex and the tensors in it."""

    bytes: int
    sha256: str
    tensors: Mapping[str, TensorFacts]


@dataclass(frozen=True)
class RequestFacts:
    """The erasures that a version has forgotten: how many, and the digest of their ids in order."""

    count: int = 0
    digest: str = hashlib.sha256().hexdigest()

    @classmethod
    def of(cls, erasure_ids: Iterable[str]) -> Self:
        """Digest erasure ids in the order given: SHA-256 over each id followed by a newline."""
        digest, count = hashlib.sha256(), 0
        for erasure_id in erasure_ids:
            digest.update(erasure_id.encode() + b"\n")
            count += 1
        return cls(count, digest.hexdigest())


@dataclass(frozen=True)
class ManifestFacts:
    """What the publisher knows of a version before its files are written.

    `parent` is the number of the base (null for a base), `encoders` the encoder number of each mode, `config`,
    `metrics` and `gate` plain JSON. `created_at` is passed in, so equal inputs give equal bytes.
    """

    kind: Kind
    dataset_hash: str
    code_version: str
    seed: int
    created_at: datetime
    parent: int | None = None
    encoders: Mapping[str, int] = field(default_factory=dict)
    requests: RequestFacts = RequestFacts()
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    gate: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.created_at.tzinfo is None:
            msg = "created_at has no time zone: pass an aware UTC time"
            raise ValueError(msg)


@dataclass(frozen=True)
class Manifest:
    """The page that comes with each version: its facts, its files, and a signature over both."""

    collection: Collection
    number: int
    facts: ManifestFacts
    files: Mapping[str, FileFacts]
    checksum: str = ""
    signature: str | None = None

    def sealed(self, key: bytes | None) -> "Manifest":
        """Return the same page with its checksum and, where a key is given, its signature."""
        body = canonical(_body(self))
        signature = None if key is None else _sign(key, body)
        return replace(self, checksum=hashlib.sha256(body).hexdigest(), signature=signature)

    def same_content(self, other: "Manifest") -> bool:
        """Tell whether two pages describe the same version, whenever each of them was written."""
        return _content(self) == _content(other)

    def as_dict(self) -> dict[str, Any]:
        """Return the page as plain JSON values, as `manifest.json` and the SQL column hold it."""
        return _body(self) | {"checksum": self.checksum, "signature": self.signature}

    def to_json(self) -> bytes:
        """Return the canonical bytes of the page."""
        return canonical(self.as_dict())

    @classmethod
    def from_json(cls, data: bytes, *, what: str, key: bytes | None) -> "Manifest":
        """Read a page and check its form, its checksum and, where a key is given, its signature.

        Raises:
            ManifestDamaged: not the canonical bytes of a manifest of format 1, or the checksum disagrees.
            SignatureMismatch: the key is given and the page is unsigned or signed with another one.
        """
        try:
            manifest = cls.from_dict(json.loads(data))
            body = canonical(_body(manifest))
            intact = hmac.compare_digest(hashlib.sha256(body).hexdigest(), manifest.checksum)
            if not intact or manifest.to_json() != data:
                raise ValueError("checksum")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as cause:
            raise ManifestDamaged(what, "is not the manifest that was published") from cause
        if key is not None and not hmac.compare_digest(_sign(key, body), manifest.signature or ""):
            raise SignatureMismatch(what, "is not signed with this service's key")
        return manifest

    @classmethod
    def from_dict(cls, page: Mapping[str, Any]) -> "Manifest":
        """Build a page from plain JSON values, as `as_dict` gives them; raises ValueError or KeyError."""
        if page["format"] != FORMAT:
            raise ValueError("format")
        return cls(
            collection=_one_of(page["collection"], Collection),
            number=_natural(page["number"]),
            facts=_facts(page),
            files={name: _file(file) for name, file in page["files"].items()},
            checksum=_hex(page["checksum"]),
            signature=None if page["signature"] is None else _hex(page["signature"]),
        )


def canonical(value: Mapping[str, Any]) -> bytes:
    """Return the one spelling of a JSON value: keys sorted, no spaces, UTF-8, no NaN; raises ValueError."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def _sign(key: bytes, body: bytes) -> str:
    return hmac.new(key, b"expunge manifest\0" + body, hashlib.sha256).hexdigest()


def _body(manifest: Manifest) -> dict[str, Any]:
    facts = manifest.facts
    return {
        "format": FORMAT,
        "collection": manifest.collection,
        "number": manifest.number,
        "kind": facts.kind,
        "dataset_hash": facts.dataset_hash,
        "parent": facts.parent,
        "encoders": dict(facts.encoders),
        "requests": asdict(facts.requests),
        "code_version": facts.code_version,
        "seed": facts.seed,
        "config": dict(facts.config),
        "metrics": dict(facts.metrics),
        "gate": dict(facts.gate),
        "created_at": facts.created_at.astimezone(UTC).isoformat(),
        "files": {name: _file_body(file) for name, file in manifest.files.items()},
    }


def _content(manifest: Manifest) -> bytes:
    return canonical(_body(manifest) | {"created_at": None})


def _file_body(file: FileFacts) -> dict[str, Any]:
    tensors = {name: {"dtype": t.dtype, "shape": list(t.shape)} for name, t in file.tensors.items()}
    return {"bytes": file.bytes, "sha256": file.sha256, "tensors": tensors}


def _facts(page: Mapping[str, Any]) -> ManifestFacts:
    return ManifestFacts(
        kind=_one_of(page["kind"], Kind),
        dataset_hash=_text(page["dataset_hash"]),
        code_version=_text(page["code_version"]),
        seed=_natural(page["seed"]),
        created_at=datetime.fromisoformat(page["created_at"]),
        parent=None if page["parent"] is None else _natural(page["parent"]),
        encoders={mode: _natural(number) for mode, number in page["encoders"].items()},
        requests=RequestFacts(_natural(page["requests"]["count"]), _hex(page["requests"]["digest"])),
        config=page["config"],
        metrics=page["metrics"],
        gate=page["gate"],
    )


def _file(page: Mapping[str, Any]) -> FileFacts:
    tensors = {
        name: TensorFacts(t["dtype"], tuple(_natural(size) for size in t["shape"]))
        for name, t in page["tensors"].items()
    }
    return FileFacts(_natural(page["bytes"]), _hex(page["sha256"]), tensors)


def _one_of(value: object, choices: Any) -> Any:
    if value not in get_args(choices):
        raise ValueError("unknown word")
    return value


def _natural(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("not a natural number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    return value


def _hex(value: object) -> str:
    if not _HEX64.fullmatch(_text(value)):
        raise ValueError("not a SHA-256")
    return cast(str, value)
