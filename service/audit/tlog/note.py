"""Signed notes and their keys (C2SP signed-note), with the Ed25519 cosignatures of witnesses (tlog-cosignature)."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from service.audit.tlog.encoding import strict_base64
from service.audit.tlog.errors import Unverified

NOTE_BYTES_MAX = 1 << 20
SIGNATURES_MAX = 64
_DASH = "\u2014"
_NAME = re.compile(r"[^\s+]{1,200}")
_SECRET = "PRIVATE+KEY+"  # noqa: S105 -- the prefix of the text form, not a key
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_TIME_BYTES = 8


class KeyKind(IntEnum):
    """What a key signs: notes as they are, or, as a witness, checkpoints with the time."""

    ED25519 = 1
    COSIGNATURE = 4


@dataclass(frozen=True)
class Signature:
    """One signature line of a note: whose, and what it holds beyond the key id."""

    name: str
    key_id: bytes
    payload: bytes

    def line(self) -> str:
        """The line with its line end."""
        return f"{_DASH} {self.name} {_base64(self.key_id + self.payload)}\n"


@dataclass(frozen=True)
class VerifierKey:
    """A public key as notes name it: `name+hex(key id)+base64(kind || public key)`; `public` is 32 bytes."""

    name: str
    public: bytes
    kind: KeyKind = KeyKind.ED25519

    @classmethod
    def parse(cls, text: str) -> VerifierKey:
        """Read the text form; raises Unverified (malformed_key)."""
        parts = text.strip().split("+", 2)
        if len(parts) != 3 or not _NAME.fullmatch(parts[0]):
            raise Unverified("malformed_key", "A verifier key reads name+8 hex digits+base64.")
        name, key_id, encoded = parts
        material = _unbase64(encoded, "malformed_key", "The verifier key is not base64.")
        if len(material) != 1 + _KEY_BYTES or material[0] not in set(KeyKind):
            raise Unverified("malformed_key", "The verifier key is not of Ed25519 (kind 1, or 4 of a witness).")
        key = cls(name, material[1:], KeyKind(material[0]))
        if key.key_id.hex() != key_id.lower():
            raise Unverified("malformed_key", "The verifier key's id does not belong to it: a letter is wrong.")
        return key

    @property
    def key_id(self) -> bytes:
        """SHA-256(name || 0x0A || kind || public)[:4]."""
        return hashlib.sha256(f"{self.name}\n".encode() + bytes([self.kind]) + self.public).digest()[:4]

    def check(self, text: str, signature: Signature) -> None:
        """Check a signature of this key over a note's text; raises Unverified (wrong_signature)."""
        payload, message = signature.payload, text.encode()
        if self.kind is KeyKind.COSIGNATURE:
            seconds, payload = int.from_bytes(payload[:_TIME_BYTES]), payload[_TIME_BYTES:]
            message = _cosigned(text, seconds)
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(payload, message)
        except InvalidSignature:
            detail = f"The signature of {self.name} does not hold: the text was changed, or another key signed it."
            raise Unverified("wrong_signature", detail) from None

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{_base64(bytes([self.kind]) + self.public)}"


class SigningKey:
    """A private key as notes name it; never logged, printed or compared."""

    def __init__(self, name: str, seed: bytes, kind: KeyKind = KeyKind.ED25519) -> None:
        """`seed` is 32 bytes; `name` has neither spaces nor a plus."""
        if not _NAME.fullmatch(name) or len(seed) != _KEY_BYTES:
            msg = "A signing key has a name without spaces or plus, and a seed of 32 bytes."
            raise ValueError(msg)
        self._seed, self._private = seed, Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = VerifierKey(name, self._private.public_key().public_bytes_raw(), kind)

    @classmethod
    def generate(cls, name: str) -> SigningKey:
        """A new key."""
        return cls(name, Ed25519PrivateKey.generate().private_bytes_raw())

    @classmethod
    def parse(cls, text: str) -> SigningKey:
        """Read the text form, `PRIVATE+KEY+name+hex(key id)+base64(kind || seed)`; raises ValueError."""
        name, key_id, material = _secret_parts(text)
        key = cls(name, material[1:], KeyKind(material[0]))
        if key.verifier.key_id.hex() != key_id.lower():
            msg = "The signing key's id does not belong to it: a letter is wrong."
            raise ValueError(msg)
        return key

    def secret_text(self) -> str:
        """The text form: whoever has it signs as this key."""
        material = _base64(bytes([self.verifier.kind]) + self._seed)
        return f"{_SECRET}{self.verifier.name}+{self.verifier.key_id.hex()}+{material}"

    def sign(self, text: str) -> Signature:
        """Sign a note's text; the same text gives the same signature."""
        key = self.verifier
        return Signature(key.name, key.key_id, self._private.sign(text.encode()))

    def sign_bytes(self, message: bytes) -> bytes:
        """The bare signature (64 bytes) over a message that cannot be taken for a note's text."""
        return self._private.sign(message)

    def cosign(self, text: str, seconds: int) -> Signature:
        """Cosign a checkpoint's text as seen at `seconds` since 1970, as a witness does."""
        key = self.verifier
        payload = seconds.to_bytes(_TIME_BYTES) + self._private.sign(_cosigned(text, seconds))
        return Signature(key.name, key.key_id, payload)


@dataclass(frozen=True)
class SignedNote:
    """A text, its last line end included, and who signed it."""

    text: str
    signatures: tuple[Signature, ...] = field(default=())

    @classmethod
    def parse(cls, note: str) -> SignedNote:
        """Read a note; what it says is not to be believed before `verify`; raises Unverified (malformed_note)."""
        if len(note) > NOTE_BYTES_MAX or _CONTROL.search(note):
            raise _malformed("it is too long, or holds control characters")
        text, blank, lines = note.rpartition("\n\n")
        if not blank or not lines.endswith("\n"):
            raise _malformed("a text, an empty line and signature lines are needed, each with its line end")
        signed = lines.removesuffix("\n").split("\n")
        if len(signed) > SIGNATURES_MAX:
            raise _malformed(f"it has more than {SIGNATURES_MAX} signatures")
        return cls(text + "\n", tuple(map(_signature, signed)))

    def verify(self, keys: Iterable[VerifierKey]) -> list[VerifierKey]:
        """The keys among these that signed it.

        Raises:
            Unverified: wrong_signature where one of them did not sign what it seems to have signed; unknown_key where
                none signed at all.
        """
        known = {(key.name, key.key_id): key for key in keys}
        found = []
        for signature in self.signatures:
            key = known.get((signature.name, signature.key_id))
            if key is not None:
                key.check(self.text, signature)
                found.append(key)
        if not found:
            raise Unverified("unknown_key", "None of the keys given has signed this.")
        return found

    def signed(self, *signatures: Signature) -> SignedNote:
        """The same note with more signatures; one of a key that is there already takes its place."""
        given = {(each.name, each.key_id): each for each in (*self.signatures, *signatures)}
        return SignedNote(self.text, tuple(given.values()))

    def __str__(self) -> str:
        return f"{self.text}\n{''.join(each.line() for each in self.signatures)}"


def signatures_of(lines: str) -> Sequence[Signature]:
    """Read signature lines that came without their note; raises Unverified (malformed_note)."""
    return [_signature(line) for line in lines.removesuffix("\n").split("\n")[:SIGNATURES_MAX]]


def _signature(line: str) -> Signature:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != _DASH or not _NAME.fullmatch(parts[1]):
        raise _malformed("a signature line reads: em dash, name, base64")
    data = _unbase64(parts[2], "malformed_note", "A signature is not base64.")
    if len(data) < 5:
        raise _malformed("a signature is cut short")
    return Signature(parts[1], data[:4], data[4:])


def _secret_parts(text: str) -> tuple[str, str, bytes]:
    msg = "A signing key reads PRIVATE+KEY+name+8 hex digits+base64, in one line."
    parts = text.strip().removeprefix(_SECRET).split("+", 2)
    if not text.startswith(_SECRET) or len(parts) != 3:
        raise ValueError(msg)
    try:
        material = strict_base64(parts[2])
    except ValueError:
        raise ValueError(msg) from None
    if len(material) != 1 + _KEY_BYTES or material[0] not in set(KeyKind):
        raise ValueError(msg)
    return parts[0], parts[1], material


def _cosigned(text: str, seconds: int) -> bytes:
    return f"cosignature/v1\ntime {seconds}\n{text}".encode()


def _malformed(why: str) -> Unverified:
    return Unverified("malformed_note", f"This is no signed note: {why}.")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unbase64(text: str, code: str, detail: str) -> bytes:
    try:
        return strict_base64(text)
    except ValueError:
        raise Unverified(code, detail) from None
