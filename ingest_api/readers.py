"""Asks the warehouse in processes of its own (`reader.py`): few at a time, few waiting, and nobody waits for ever.

A process starts with the first question and stays. What does not belong here: what is asked (`questions.py`).
"""

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

import msgspec

from ingest_api.problems import Problem
from ingest_api.questions import LENGTH_BYTES, Question, Reply

_ANSWER_WITHIN_S: Final = 30.0
_REMEMBER_S: Final = 1.0


class Found(NamedTuple):
    """An answer of the warehouse. `tag` names the board's revision; None where the body alone tells."""

    tag: str | None
    body: bytes


class Readers:
    """Up to `count` processes, and up to `waiting` questions that wait for one."""

    def __init__(self, count: int, waiting: int) -> None:
        self._free = asyncio.Semaphore(count)
        self._room = count + waiting
        self._running: set[_Reader] = set()
        self._idle: list[_Reader] = []
        self._asked: dict[bytes, asyncio.Task[Found]] = {}

    async def ask(self, question: Question) -> Found:
        """The whole answer. Who asks the same within a second gets the same: a thousand players look at one board.

        Raises:
            Problem: 404 for what is not there, 503 where too many ask or the process fails.
        """
        asked = msgspec.json.encode(question)
        task = self._asked.get(asked)
        if task is None:
            task = self._asked[asked] = asyncio.create_task(self._ask(question))
            task.add_done_callback(lambda _: asyncio.get_running_loop().call_later(_REMEMBER_S, self._asked.pop, asked))
        return await asyncio.shield(task)

    @contextlib.asynccontextmanager
    async def open(self, question: Question) -> AsyncIterator[tuple[str | None, AsyncIterator[bytes]]]:
        """The tag of the answer, and its parts as they are taken.

        Raises:
            Problem: as in `ask`; while parts are taken, 503.
        """
        if not self._room:
            raise Problem(503, "busy", "Too many ask the warehouse at once; ask again.", headers=(("retry-after", "1"),))
        self._room -= 1
        try:
            async with self._free:
                reader = self._idle_one() or await self._start()
                try:
                    yield await reader.ask(question), reader.parts()
                finally:
                    if reader.idle:
                        self._idle.append(reader)
                    else:  # what it says next would answer nobody
                        self._running.discard(reader)
                        reader.end()
        finally:
            self._room += 1

    def close(self) -> None:
        """End the processes."""
        for reader in self._running:
            reader.end()

    async def _ask(self, question: Question) -> Found:
        async with self.open(question) as (tag, parts):
            return Found(tag, b"".join([part async for part in parts]))

    def _idle_one(self) -> "_Reader | None":
        while self._idle:
            reader = self._idle.pop()
            if reader.alive:
                return reader
            self._running.discard(reader)
        return None

    async def _start(self) -> "_Reader":
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "ingest_api.reader", stdin=PIPE, stdout=PIPE)
        reader = _Reader(process)
        self._running.add(reader)
        return reader


class _Reader:
    """One process. `idle` is whether it waits to be asked: for more, or for something else."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process, self._questions, self._frames = process, process.stdin, process.stdout
        self.idle = True

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.returncode is None

    async def ask(self, question: Question) -> str | None:
        """Ask, and take the head of the answer: its tag."""
        reply = msgspec.json.decode(await self._frame(msgspec.json.encode(question)), type=Reply)
        if reply.refusal is not None:
            raise Problem(404, "not-found", reply.refusal)
        return reply.tag

    async def parts(self) -> AsyncIterator[bytes]:
        """What follows, as it is taken."""
        while part := await self._frame(b""):
            yield part

    def end(self) -> None:
        """End it at once: it only reads."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def _frame(self, asked: bytes) -> bytes:
        self.idle = False
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_S):
                self._questions.write(asked + b"\n")
                size = int.from_bytes(await self._frames.readexactly(LENGTH_BYTES))
                frame = await self._frames.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError) as error:
            detail = f"The warehouse cannot be read ({error!r}); the service's log says why."
            raise Problem(503, "warehouse", detail, headers=(("retry-after", "5"),)) from error
        self.idle = True
        return frame
