"""Whether the secret key is the one that the database and the model store were made with.

Each keeps a check value of it. With another key every known id digests to nothing: what was suppressed could be
recorded again, and an erasure of it would match nothing. What was made before there were check values is known by what
it holds: the digest of an id on record, the signature of a manifest.
"""

import contextlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import structlog
from sqlalchemy import Connection, insert, inspect, select
from sqlalchemy.exc import IntegrityError

from model_store import ModelStore, SignatureMismatch, StoreError, StoreMarkers
from service.platform.database import Database
from service.platform.identity import Identity, Secret, SecretRefused, find_secret, make_secret, readable_by_others
from service.platform.problem import Problem
from service.platform.tables import items, secret_check, users
from service.settings import Settings

MANIFESTS_TRIED = 3

log = structlog.get_logger()


class SecretCheck:
    """The key of a home against its database and its store.

    Args:
        settings: where the key and the store are.
        database: whose check value is compared.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings, self._database = settings, database
        self._store = StoreMarkers(settings.store_root)
        self.complete = False
        """Whether the database was asked, and has the check value by now."""
        self.deferred: Problem | None = None
        """Why the database could not be asked at the start; it is to answer nobody before it was."""

    def given(self) -> Identity | None:
        """The identity of the key that is given, compared with both; None where none is given and none is missed.

        Raises:
            SecretRefused: it is another key, or it is gone.
            Problem: the database does not answer.
        """
        secret = find_secret(self._settings)
        if secret is None:
            self._refuse_a_missing_one()
            secret = find_secret(self._settings)
        if secret is None:
            return None
        return self._matching(secret, self._database_says())

    def unlock(self) -> Identity:
        """The identity to work with: made where nothing was made with another one yet; both keep its check value.

        Raises:
            SecretRefused: the key is another one, or it is gone.
            Problem: the database does not answer.
        """
        identity = self.given()
        if identity is None:
            identity = self._matching(make_secret(self._settings), self._database_says())
        others = readable_by_others(self._settings)
        if others is not None:
            log.warning("secret.readable_by_others", detail=f"chmod 600 {others}")
        self._bind_store(identity)
        self._bind_database(identity)
        return identity

    def unlock_or_defer(self) -> Identity:
        """As `unlock`; where the database does not answer, the identity that the store agrees with: see `deferred`.

        Raises:
            SecretRefused: it is another key than the store's, or there is none: one is not made unseen.
        """
        try:
            return self.unlock()
        except SecretRefused:
            raise
        except Problem as problem:
            log.warning("secret.not_compared_yet", code=problem.code)
            self.deferred = problem
        secret = find_secret(self._settings)
        if secret is None:
            path = self._settings.home / "secret.key"
            raise SecretRefused(f"There is no {path}, and the database, which may know one, does not answer.")
        return self._matching(secret, lambda identity: None)

    def _matching(self, secret: Secret, database_says: Callable[[Identity], bool | None]) -> Identity:
        identities = secret.identities()
        verdicts = [(database_says(each), self._store_says(each)) for each in identities]
        for identity, said in zip(identities, verdicts, strict=True):
            if False not in said:
                return identity
        raise SecretRefused(self._sentence(secret, next((said for said in verdicts if True in said), verdicts[0])))

    def _sentence(self, secret: Secret, said: tuple[bool | None, bool | None]) -> str:
        parts = dict(zip(("the database", f"the model store ({self._settings.store_root})"), said, strict=True))
        other = [part for part, verdict in parts.items() if verdict is False]
        same = [f"; {part} with this one" for part, verdict in parts.items() if verdict]
        what, were = " and ".join(other), "were" if len(other) > 1 else "was"
        sentence = f"{what} {were} made with another key than the one in {secret.source}{''.join(same)}."
        return sentence[0].upper() + sentence[1:]

    def _refuse_a_missing_one(self) -> None:
        nobody = Identity(b"\0" * 32)
        parts = []
        if self._database_says()(nobody) is not None:
            parts.append("the database")
        if self._store_says(nobody) is not None:
            parts.append(f"the model store ({self._settings.store_root})")
        # Asked once more: of processes that start together another may have made the key, and kept its check value.
        if parts and find_secret(self._settings) is None:
            what, were = " and ".join(parts), "was" if len(parts) == 1 else "were"
            path = self._settings.home / "secret.key"
            raise SecretRefused(f"There is no {path}, and {what} {were} made with a key.")

    def _database_says(self) -> Callable[[Identity], bool | None]:
        known = self._database.query(_evidence)

        def says(identity: Identity) -> bool | None:
            return None if known is None else hmac.compare_digest(known[1], known[0](identity))

        return says

    def _store_says(self, identity: Identity) -> bool | None:
        with contextlib.suppress(StoreError):
            found = self._store.key_check()
            if found is not None:
                return hmac.compare_digest(found, identity.check_value)
        store = ModelStore(self._settings.store_root, key=identity.derive("manifest"))
        for number in store.numbers("versions")[-MANIFESTS_TRIED:]:
            try:
                store.manifest("versions", number)
            except SignatureMismatch:
                return False
            except StoreError:  # damaged: it says nothing about the key
                continue
            return True
        return None

    def _bind_store(self, identity: Identity) -> None:
        try:
            found = self._store.keep_key_check(identity.check_value)
        except StoreError as error:  # a store that may only be read has its signatures to tell by
            log.warning("secret.store_not_marked", error=type(error).__name__)
            return
        if not hmac.compare_digest(found, identity.check_value):
            self.unlock()  # another process was first: compare with its key

    def _bind_database(self, identity: Identity) -> None:
        if not self._database.query(_has_place):
            return
        with contextlib.suppress(IntegrityError):
            self._database.transact(partial(_keep, value=identity.check_value))
        found = self._database.query(lambda connection: connection.scalar(select(secret_check.c.value)))
        if found is None or not hmac.compare_digest(found, identity.check_value):
            raise SecretRefused("The database was just made with another key, by another process.")
        self.complete = True


def _has_place(connection: Connection) -> bool:
    return inspect(connection).has_table(secret_check.name)


def _keep(connection: Connection, value: bytes) -> None:
    if connection.scalar(select(secret_check.c.id)) is None:
        connection.execute(insert(secret_check).values(id=1, value=value, made_at=datetime.now(UTC)))


def _evidence(connection: Connection) -> tuple[Callable[[Identity], bytes], bytes] | None:
    """A digest on record and how an identity makes it; None where the database holds nothing made with a key."""
    look = inspect(connection)
    if look.has_table(secret_check.name):
        value = connection.scalar(select(secret_check.c.value))
        if value is not None:
            return (lambda identity: identity.check_value), value
    for table, kind in ((users, Identity.user), (items, Identity.item)):
        if look.has_table(table.name):
            row = connection.execute(select(table.c.id, table.c.digest).order_by(table.c.key).limit(1)).first()
            if row is not None:
                return partial(_digest_of, kind=kind, id=row.id), bytes(row.digest)
    return None


def _digest_of(identity: Identity, *, kind: Callable[[Identity, str], bytes], id: str) -> bytes:
    return kind(identity, id)
