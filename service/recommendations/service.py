"""Top-N for users and neighbours of items: exact, and honouring every erasure accepted before the question."""

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import orjson
from sqlalchemy import Connection

from service.platform import metrics
from service.platform.dependencies import Services
from service.platform.problem import NotFound
from service.recommendations import repository
from service.recommendations.live import LiveRanker
from service.recommendations.micro_batching import MicroBatcher
from service.recommendations.model import LoadedModel
from service.recommendations.ranker import NO_ROW, Rows, Scores, top
from service.recommendations.repository import UserReading

CHUNK = 16  # users scored together in a call for many: the event loop is free again after about 3 ms
_NO_ROWS: Rows = np.empty(0, np.int64)


class ItemUnknown(NotFound):
    """No item of this id is in the catalogue of the live version."""

    code = "item_unknown"
    title = "There is no such item in the catalogue"
    next_step = "Check the id; an item is in the catalogue once a version was trained with it and until it is erased."


@dataclass(frozen=True)
class RecommendationOptions:
    """What a caller wants: how many items, and which not. `exclude` holds outside item ids."""

    n: int = 20
    exclude_seen: bool = True
    exclude: Sequence[str] = ()


@dataclass(frozen=True)
class SerializedAnswer:
    """One answer as JSON bytes, and the version that gave it."""

    body: bytes
    version: int

    @property
    def etag(self) -> str:
        """A weak entity tag: the version and a hash of the body, so it changes with either."""
        return f'W/"v{self.version}-{hashlib.blake2b(self.body, digest_size=8).hexdigest()}"'


Question = tuple[str, RecommendationOptions]


class _Person(NamedTuple):
    """A user in the terms of a version: row, item rows seen, item rows that must not show. Rows may repeat."""

    row: int
    seen: Rows = _NO_ROWS
    suppressed: Sequence[int] = ()
    basis: Rows = _NO_ROWS
    """What a user without a row is folded in from."""

    @property
    def known(self) -> bool:
        """Whether there is anything to personalise with."""
        return self.row != NO_ROW or len(self.basis) > 0


async def recommend(services: Services, user_id: str, options: RecommendationOptions) -> SerializedAnswer:
    """Return the top items of one user; popular ones for a user of whom nothing is known, or nothing any more.

    Raises:
        ModelUnavailable: no version is loaded yet.
    """
    micro_batcher: MicroBatcher[Question, SerializedAnswer] = _live(services).micro_batcher
    return await micro_batcher.submit((user_id, options), partial(_answer_all, services))


async def _answer_all(services: Services, questions: Sequence[Question]) -> list[SerializedAnswer]:
    readings = await services.database.run_read(partial(_read, services, [user_id for user_id, _ in questions]))
    model = await _live(services).follow(readings[-1].live)
    people = [_person(model, reading) for reading in readings]
    popular = None if all(person.known for person in people) else await _live(services).popularity.of(model)
    return _answers(services, model, questions, people, popular)


async def recommend_many(services: Services, user_ids: Sequence[str], options: RecommendationOptions) -> bytes:
    """Return the answers of many users as one JSON document, in the order asked; each is what `recommend` gives."""
    bodies: list[bytes] = []
    for begin in range(0, len(user_ids), CHUNK):
        ids = user_ids[begin : begin + CHUNK]
        answers = await _answer_all(services, [(user_id, options) for user_id in ids])
        bodies += [answer.body for answer in answers]
        await asyncio.sleep(0)  # others get their turn between two chunks
    return b'{"results":[' + b",".join(bodies) + b"]}"


async def similar(services: Services, item_id: str, n: int) -> SerializedAnswer:
    """Return the items most like one item, by the cosine of their vectors.

    Raises:
        ItemUnknown: the item is not in the catalogue, or withdrawn from it.
        ModelUnavailable: no version is loaded yet.
    """
    reading = await services.database.run_read(repository.read_items)
    model = await _live(services).follow(reading.live)
    withdrawn = model.vocabulary.rows(reading.withdrawn)
    row = model.vocabulary.row_of_digest.get(services.identity.item(item_id))
    if row is None or not model.in_catalogue[row] or row in withdrawn:
        raise ItemUnknown
    if row in model.blank_items:
        msg = "The model knows nothing of this item yet, so nothing is like it."
        raise ItemUnknown(msg)
    scores = model.ranker.similar(row)
    scores[model.barred] = scores[model.blank_items] = -np.inf
    scores[[row, *withdrawn]] = -np.inf
    head = {"item_id": item_id, "model_version": model.version}
    return SerializedAnswer(_body(head, model, scores, top(scores, n)), model.version)


def _read(services: Services, user_ids: Sequence[str], connection: Connection) -> list[UserReading]:
    return [repository.read_user(connection, user_id, services.identity.user(user_id)) for user_id in user_ids]


def _live(services: Services) -> LiveRanker:
    return cast(LiveRanker, services.live)


def _excluded(services: Services, model: LoadedModel, options: RecommendationOptions) -> list[int]:
    return model.vocabulary.rows(map(services.identity.item, options.exclude)) if options.exclude else []


def _answers(
    services: Services,
    model: LoadedModel,
    questions: Sequence[Question],
    people: Sequence[_Person],
    popular: Scores | None,
) -> list[SerializedAnswer]:
    known = [person for person in people if person.known]
    scored: Iterator[Scores] = iter(())
    if known:
        scored = iter(model.ranker.scores([p.row for p in known], [p.basis for p in known]))
    answers = []
    for (user_id, options), person in zip(questions, people, strict=True):
        if person.known or popular is None:
            scores = next(scored)
            scores[model.blank_items] = -np.inf  # a row that holds nothing scores 0, above much that is known
        else:
            scores = popular.copy()
        rows = _choose(model, scores, person, _excluded(services, model, options), options)
        head = {"user_id": user_id, "model_version": model.version, "personalised": person.known}
        answers.append(SerializedAnswer(_body(head, model, scores, rows), model.version))
    if len(known) < len(people):
        metrics.recommend_unknown_users_total.inc(len(people) - len(known))
    return answers


def _person(model: LoadedModel, reading: UserReading) -> _Person:
    """Translate what SQL says into rows; of a user who is suppressed as a whole nothing is used but what must not show.

    What is seen includes what is suppressed, so neither shows; a user to be folded in is made of the rest alone.
    """
    suppressed: Sequence[int] = ()
    if reading.hidden or reading.withdrawn:
        suppressed = model.vocabulary.rows((*reading.hidden, *reading.withdrawn))
    if reading.erased:
        return _Person(NO_ROW, suppressed=suppressed)
    seen = model.item_rows(reading.history)
    row = model.user_row(reading.user_key)
    if suppressed and len(seen) and np.isin(seen, suppressed).all():
        row = NO_ROW  # the vector knows them by nothing but what was erased
    if row != NO_ROW or not len(seen):
        return _Person(row, seen, suppressed)
    basis = np.setdiff1d(seen[model.in_catalogue[seen]], np.array([*suppressed, *model.blank_items], np.int64))
    return _Person(row, seen, suppressed, basis)


def _choose(
    model: LoadedModel, scores: Scores, person: _Person, excluded: list[int], options: RecommendationOptions
) -> Rows:
    """Pick the top rows, after striking out in place what may not show; suppressed rows never do, whatever is asked."""
    scores[model.barred] = -np.inf
    if options.exclude_seen:
        scores[person.seen] = -np.inf
    if excluded:
        scores[excluded] = -np.inf
    if not person.suppressed:
        return top(scores, options.n)
    would_be = scores[list(set(person.suppressed))]
    scores[list(person.suppressed)] = -np.inf
    rows = top(scores, options.n)
    last = scores[rows[-1]] if len(rows) == options.n else -np.inf
    metrics.recommend_suppressed_filtered_total.inc(int(np.count_nonzero(would_be > last)))
    return rows


def _body(head: dict[str, Any], model: LoadedModel, scores: Scores, rows: Rows) -> bytes:
    ids, titles = model.vocabulary.ids, model.vocabulary.titles
    # NumPy's own float32 are written as they are, without the false digits of a conversion.
    pairs = zip(rows.tolist(), list(scores[rows]), strict=True)
    head["items"] = [_item(ids[row], score, rank, titles[row]) for rank, (row, score) in enumerate(pairs, 1)]
    return orjson.dumps(head, option=orjson.OPT_SERIALIZE_NUMPY)


def _item(item_id: str | None, score: np.float32, rank: int, title: str | None) -> dict[str, Any]:
    if title is None:
        return {"item_id": item_id, "score": score, "rank": rank}
    return {"item_id": item_id, "score": score, "rank": rank, "title": title}
