"""Importing a data set: complete, repeatable, and never against an erasure."""

from dataclasses import replace

import pytest
from sqlalchemy import Connection, select

from service.interactions import importing
from service.interactions.importing import import_dataset
from service.platform.database import Database
from service.platform.tables import interactions, items, users
from tests.factories.domains import Domains, dataset

PAIRS = (("u1", "a"), ("u1", "b"), ("u2", "a"), ("u3", "c"))


def test_every_train_pair_is_recorded_with_its_titles(database: Database) -> None:
    """Titles of items that nobody touched come too, for those who touch them later."""
    domains = Domains(database)

    report = domains.bring_in(*PAIRS, titles={"a": "Alpha", "z": "Omega"})

    assert (report.recorded, report.duplicates, report.refused) == (4, 0, 0)
    assert sorted(domains.shown("u1")) == ["a", "b"]
    titles = database.query(lambda connection: connection.execute(select(items.c.id, items.c.title)).all())
    assert {id: title for id, title in titles if title} == {"a": "Alpha", "z": "Omega"}


def test_importing_twice_changes_nothing(database: Database) -> None:
    """Keys, pairs and instants stay; the second time, all of them are duplicates."""
    domains = Domains(database)
    domains.bring_in(*PAIRS, titles={"a": "Alpha"})
    before = dump(database)

    domains.clock.step(3600)
    report = domains.bring_in(*PAIRS, titles={"a": "Alpha"})

    assert (report.recorded, report.duplicates) == (0, 4)
    assert dump(database) == before


def test_a_new_title_replaces_the_old_one(database: Database) -> None:
    """Catalogues are corrected."""
    domains = Domains(database)
    domains.bring_in(*PAIRS, titles={"a": "Alhpa"})

    domains.bring_in(*PAIRS, titles={"a": "Alpha"})

    assert ("a", "Alpha") in [row[1:] for row in dump(database) if row[0] == "item"]


@pytest.mark.P4
def test_what_an_erasure_covers_is_refused_and_counted(database: Database) -> None:
    """A pair, a user, an item; of a user whose pairs are all refused, not even the id is registered."""
    domains = Domains(database)
    domains.accept(("u1", "a"))
    domains.accept(users=["u2"])
    domains.accept(items=["c"])

    report = domains.bring_in(*PAIRS)

    assert (report.recorded, report.refused) == (1, 3)
    assert domains.shown("u1") == ["b"]
    assert [row[1] for row in dump(database) if row[0] == "user"] == ["u1"]


@pytest.mark.P4
def test_an_erasure_accepted_while_an_import_runs_is_honoured(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not yet recorded when it is accepted is refused; what was recorded before is hidden."""
    monkeypatch.setattr(importing, "CHUNK_PAIRS", 1)
    domains = Domains(database)

    def erase(done: int, total: int) -> None:
        if done == 1:
            domains.accept(users=["u1"])
            domains.accept(("u3", "c"))

    report = import_dataset(database, domains.identity, dataset(*PAIRS), erase)

    assert (report.recorded, report.refused) == (2, 2)
    assert domains.shown("u1") == []
    assert domains.shown("u3") == []
    assert domains.shown("u2") == ["a"]


def test_progress_counts_pairs(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to all of them."""
    monkeypatch.setattr(importing, "CHUNK_PAIRS", 3)
    told: list[tuple[int, int]] = []

    import_dataset(
        database, Domains(database).identity, dataset(*PAIRS), lambda done, total: told.append((done, total))
    )

    assert told == [(3, 4), (4, 4)]


def test_ids_of_every_kind_survive(database: Database) -> None:
    """Slashes, spaces, emoji, leading zeros and a long one."""
    domains = Domains(database)
    odd = ("a/b", "x y", "👩‍🚀", "007", "7", "é" * 512)

    domains.bring_in(*((user, item) for user in odd for item in odd))

    assert all(sorted(domains.shown(user)) == sorted(odd) for user in odd)


def test_the_test_part_stays_out(database: Database) -> None:
    """It is held out for evaluation: what the model has seen cannot judge it."""
    domains = Domains(database)
    whole = dataset(*PAIRS)

    import_dataset(database, domains.identity, replace(whole, train=whole.train[:3], test=whole.train[3:]))

    assert domains.shown("u3") == []


def dump(database: Database) -> list[tuple[object, ...]]:
    """Everything that an import writes."""

    def unit(connection: Connection) -> list[tuple[object, ...]]:
        registered = connection.execute(select(users.c.id, users.c.key).order_by(users.c.key))
        titled = connection.execute(select(items.c.id, items.c.title).order_by(items.c.id))
        recorded = connection.execute(select(interactions).order_by(*interactions.primary_key))
        rows = {"user": registered, "item": titled, "interaction": recorded}
        return [(kind, *row) for kind, found in rows.items() for row in found]

    return database.query(unit)
