"""What a consent means for learning and for erasing anew."""

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import update

from service.consents import service as consents
from service.erasures.targets import Subjects
from service.platform import tables
from service.platform.database import Database
from service.settings import load_settings
from tests.factories.domains import Domains

PAIR = ("ana", "duck")


@pytest.mark.P4
def test_what_was_consented_to_is_learnt_again_and_erased_again(database: Database, home: Path) -> None:
    """From the next base on; and a new erasure of the same hides it as the first one did."""
    domains = Domains(database, load_settings(home=home))
    domains.record(PAIR, ("bob", "duck"))
    domains.accept(PAIR)
    with database.write() as connection:
        connection.execute(update(tables.erasures).values(status="erased"))
        connection.execute(tables.interactions.delete().where(tables.interactions.c.user_key == 1))
    assert len(domains.learnt()) == 1

    asyncio.run(consents.give(domains.services, Subjects(interactions=(PAIR,)), ["#/interactions/0"]))
    domains.record(PAIR)
    assert len(domains.learnt()) == 2

    domains.accept(PAIR)
    assert domains.shown("ana") == []
    assert len(domains.learnt()) == 1
