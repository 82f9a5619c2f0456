"""Micro-batching: questions that arrive together are answered together.

The scores of one user read the whole item matrix; those of sixteen read it once as well. So the questions of one turn
of the event loop share a read, a product and the processor's caches. Nobody waits for others to come.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")

MICRO_BATCH_MAX = 32


class MicroBatcher(Generic[Question, Answer]):
    """Gathers the questions of one turn of the event loop, at most 32, for one call that answers them in order."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def submit(
        self, question: Question, answer: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]]
    ) -> Answer:
        """Return the answer of one question, or raise what answering raised.

        `answer` does the same for every caller; that of the first who asks is called.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((question, future))
        if len(self._waiting) == 1:
            loop.call_soon(self._begin, answer)
        elif len(self._waiting) == MICRO_BATCH_MAX:
            self._begin(answer)
        return await future

    def _begin(self, answer: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]]) -> None:
        waiting, self._waiting = self._waiting, []
        if waiting:
            task = asyncio.get_running_loop().create_task(_settle(waiting, answer))
            self._running.add(task)  # the loop itself would let go of it
            task.add_done_callback(self._running.discard)


async def _settle(
    waiting: Sequence[tuple[Question, asyncio.Future[Answer]]],
    answer: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]],
) -> None:
    try:
        answers = await answer([question for question, _ in waiting])
    except Exception as error:
        for _, future in waiting:
            if not future.done():  # its caller may have gone away
                future.set_exception(error)
        return
    for (_, future), result in zip(waiting, answers, strict=True):
        if not future.done():
            future.set_result(result)
