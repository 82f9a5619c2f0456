"""The keys that sign the log: where the private one is, and which public ones ever signed."""

import base64
import os
import secrets
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from service.audit import repository, service
from service.audit.repository import KeyRow
from service.audit.service import AuditEvent
from service.audit.tlog.note import SigningKey, VerifierKey
from service.platform.identity import Identity, load_identity
from service.settings import Settings, SettingsError

KEY_FILE = "log.key"
ORIGIN = "expunge.invalid/log"


def load_signing_key(settings: Settings) -> SigningKey:
    """The key that signs: EXPUNGE_LOG_KEY, else `<home>/log.key`, made once, mode 0600.

    Where the secret key comes from the environment, many hosts share it, and their homes may be read-only: without a
    key of its own the log is then signed with one that is derived from it, the same everywhere.

    Its name is the log's name. A log keeps its name for life, so a new key gets the name of the one before.

    Raises:
        SettingsError: what is there is no signing key.
    """
    given = settings.log_key
    if given is not None:
        return _parse(given.get_secret_value(), "EXPUNGE_LOG_KEY")
    path = settings.home / KEY_FILE
    if not path.exists():
        if settings.secret_key is not None:
            return _derived(load_identity(settings))
        _write(path, SigningKey.generate(f"{ORIGIN}/{secrets.token_hex(8)}"), replace=False)
    return _parse(path.read_text(), str(path))


def rotate_signing_key(settings: Settings) -> tuple[SigningKey, bool]:
    """A new key with the name of the one that signs now, and whether it was put in the place of `<home>/log.key`.

    Processes use it when they start again. Where the key does not come from the home, it is for EXPUNGE_LOG_KEY.
    """
    key = SigningKey.generate(load_signing_key(settings).verifier.name)
    path = settings.home / KEY_FILE
    in_home = settings.log_key is None and path.exists()
    if in_home:
        _write(path, key, replace=True)
    return key, in_home


def put_on_record(connection: Connection, key: VerifierKey, at: datetime) -> None:
    """Publish a key as the one that signs now; the one before stays published, with its end.

    A change is an entry of the log. So there is a head that the new key signs, and what was proven before can be proven
    again with the new key alone.
    """
    known = repository.keys(connection)
    if any(row.vkey == str(key) and row.until is None for row in known):
        return
    if known:
        first = service.reserve(connection)
        service.write(connection, first, [AuditEvent("audit.key_changed", {"vkey": str(key)})], at)
    repository.use_key(connection, str(key), at)


def verifier_keys(rows: list[KeyRow]) -> list[VerifierKey]:
    """The keys of these rows."""
    return [VerifierKey.parse(row.vkey) for row in rows]


def jwk(row: KeyRow) -> dict[str, Any]:
    """A public key as a JWK (RFC 8037); `kid` is the key id of notes, hex."""
    key = VerifierKey.parse(row.vkey)
    x = base64.urlsafe_b64encode(key.public).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "x": x, "kid": key.key_id.hex(), "use": "sig", "alg": "EdDSA"}


def _derived(identity: Identity) -> SigningKey:
    return SigningKey(f"{ORIGIN}/{identity.derive('log name')[:8].hex()}", identity.derive("log key"))


def _parse(text: str, where: str) -> SigningKey:
    try:
        return SigningKey.parse(text.strip())
    except ValueError as error:
        msg = f"{where} holds no signing key of a log: {error}"
        raise SettingsError(msg) from None


def _write(path: Path, key: SigningKey, *, replace: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(key.secret_text() + "\n")
        file.flush()
        os.fsync(file.fileno())
    if replace:
        aside.replace(path)
        return
    try:
        # A hard link never replaces: of two processes that start together, the first one's key stands.
        os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        aside.unlink()
