import asyncio
from collections.abc import Sequence

import pytest

from service.recommendations.micro_batching import MICRO_BATCH_MAX, MicroBatcher


def test_questions_of_one_turn_are_answered_by_one_call():
    """Each caller gets the answer of its own question."""
    calls: list[list[int]] = []

    async def double(questions: Sequence[int]) -> list[int]:
        calls.append(list(questions))
        return [2 * question for question in questions]

    async def ask() -> list[int]:
        micro_batcher: MicroBatcher[int, int] = MicroBatcher()
        return await asyncio.gather(*(micro_batcher.submit(number, double) for number in range(5)))

    assert asyncio.run(ask()) == [0, 2, 4, 6, 8]
    assert calls == [[0, 1, 2, 3, 4]]


@pytest.mark.P10
def test_no_more_are_gathered_than_the_bound():
    """However many ask at once, one call stays small."""
    sizes: list[int] = []

    async def count(questions: Sequence[int]) -> Sequence[int]:
        sizes.append(len(questions))
        return questions

    async def ask() -> list[int]:
        micro_batcher: MicroBatcher[int, int] = MicroBatcher()
        return await asyncio.gather(*(micro_batcher.submit(number, count) for number in range(2 * MICRO_BATCH_MAX + 3)))

    assert asyncio.run(ask()) == list(range(2 * MICRO_BATCH_MAX + 3))
    assert sorted(sizes) == [3, MICRO_BATCH_MAX, MICRO_BATCH_MAX]


def test_what_answering_raises_reaches_every_caller_and_the_next_are_answered():
    """A failure is told to those who asked, and does not stay."""
    failing = [True, False]

    async def sometimes(questions: Sequence[int]) -> Sequence[int]:
        if failing.pop(0):
            raise LookupError
        return questions

    async def ask() -> list[object]:
        micro_batcher: MicroBatcher[int, int] = MicroBatcher()
        first = await asyncio.gather(*(micro_batcher.submit(n, sometimes) for n in range(2)), return_exceptions=True)
        return [*first, await micro_batcher.submit(7, sometimes)]

    one, other, later = asyncio.run(ask())
    assert isinstance(one, LookupError)
    assert isinstance(other, LookupError)
    assert later == 7


def test_a_caller_that_goes_away_takes_nothing_from_the_others():
    """A closed connection in the middle of a turn is nobody else's business."""

    async def echo(questions: Sequence[int]) -> Sequence[int]:
        await asyncio.sleep(0)
        return questions

    async def ask() -> int:
        micro_batcher: MicroBatcher[int, int] = MicroBatcher()
        leaving = asyncio.create_task(micro_batcher.submit(1, echo))
        staying = asyncio.create_task(micro_batcher.submit(2, echo))
        await asyncio.sleep(0)
        leaving.cancel()
        return await staying

    assert asyncio.run(ask()) == 2
