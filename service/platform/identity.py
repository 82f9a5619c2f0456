"""Keyed digests: how the service recognises an id that it no longer holds; and where the key of them comes from."""

import contextlib
import hmac
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from service.platform.problem import Unavailable
from service.settings import Settings

SECRET_BYTES = 32
FILE = "secret.key"


class SecretRefused(Unavailable):
    """The secret key cannot be read, or is not the one that the database or the model store was made with."""

    code = "secret_refused"
    title = "The secret key is refused"
    next_step = (
        "Give back the key that belongs to this database and this model store, in EXPUNGE_SECRET_KEY or in the file "
        "secret.key of the home; or begin with a home and a database that are new."
    )


class Identity:
    """Digests of user and item ids under the service's secret; the only form in which an erased id is remembered."""

    def __init__(self, secret: bytes) -> None:
        """`secret` is at least 32 bytes; whoever changes it can no longer recognise what was suppressed."""
        if len(secret) < SECRET_BYTES:
            msg = f"The secret has {len(secret)} bytes; it needs at least {SECRET_BYTES}."
            raise ValueError(msg)
        self._secret = secret
        # Copying a keyed hash keeps the GIL; hmac.digest lets it go and must win it back from the writer, which took
        # 0.4 ms a call under load.
        self._user, self._item = (hmac.new(secret, kind, "sha256") for kind in (b"user\0", b"item\0"))

    @property
    def check_value(self) -> bytes:
        """HMAC-SHA256(secret, a constant), 32 bytes: the same for the same key, and it tells nothing of the key."""
        return hmac.digest(self._secret, b"check\0expunge", "sha256")

    def user(self, id: str) -> bytes:
        """The digest of a user id: HMAC-SHA256(secret, "user" 0x00 id), 32 bytes."""
        return _digest(self._user, id)

    def item(self, id: str) -> bytes:
        """The digest of an item id: HMAC-SHA256(secret, "item" 0x00 id), 32 bytes."""
        return _digest(self._item, id)

    def derive(self, purpose: str) -> bytes:
        """A key of 32 bytes for another purpose, such as signing manifests or cursors."""
        return hmac.digest(self._secret, b"key\0" + purpose.encode(), "sha256")


def _digest(keyed: hmac.HMAC, id: str) -> bytes:
    own = keyed.copy()
    own.update(id.encode())
    return own.digest()


@dataclass(frozen=True, repr=False)
class Secret:
    """The text of a key and where it stands: `EXPUNGE_SECRET_KEY`, or the path of a file."""

    text: str
    source: str

    def identities(self) -> list[Identity]:
        """The identities that the text can mean, the first one for whatever is new.

        64 or more hexadecimal digits are the bytes that they name, anything else its UTF-8, spaces and line ends around
        it aside: the same text means the same in a file and in the environment. Before this rule the environment's text
        was taken as it stood, so what was made then is found by the others.
        """
        bare = self.text.strip().lstrip("\ufeff")
        readings = [bare.encode(), self.text.encode()]
        if len(bare) >= 2 * SECRET_BYTES:
            with contextlib.suppress(ValueError):
                readings.insert(0, bytes.fromhex(bare))
        return [Identity(each) for each in dict.fromkeys(readings) if len(each) >= SECRET_BYTES]


def load_identity(settings: Settings) -> Identity:
    """The identity of a home as it stands, compared with nothing; `<home>/secret.key` is made where there is no key."""
    secret = find_secret(settings) or make_secret(settings)
    return secret.identities()[0]


def find_secret(settings: Settings) -> Secret | None:
    """The key from EXPUNGE_SECRET_KEY, else from `<home>/secret.key`; None where there is neither.

    Raises:
        SecretRefused: the file is there and holds no key, or cannot be read.
    """
    if settings.secret_key is not None:
        return Secret(settings.secret_key.get_secret_value(), "EXPUNGE_SECRET_KEY")
    path = settings.home / FILE
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise SecretRefused(f"{path} holds no text, so no key.") from None
    except OSError as error:
        raise SecretRefused(f"{path} cannot be read ({error.strerror}).") from error
    secret = Secret(text, str(path))
    if not secret.identities():
        what = "is empty" if not text.strip() else f"is too short: a key has at least {SECRET_BYTES} characters"
        raise SecretRefused(f"{path} {what}.")
    return secret


def readable_by_others(settings: Settings) -> Path | None:
    """The key's file where others than its owner may read it, else None."""
    path = settings.home / FILE
    if settings.secret_key is not None or not path.exists():
        return None
    return path if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO) else None


def make_secret(settings: Settings) -> Secret:
    """Make `<home>/secret.key`, mode 0600; of processes that do so together the first one's stands for all."""
    path = settings.home / FILE
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        # A hard link never replaces: of two processes that start together, the first one's secret stands.
        os.link(aside, path)
        _sync(path.parent)
    except FileExistsError:
        pass
    finally:
        aside.unlink()
    found = find_secret(settings)
    if found is None:
        raise SecretRefused(f"{path} was taken away while it was made.")
    return found


def _sync(folder: Path) -> None:
    # The name of the key's file must be on the disk before anything is made with the key.
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
