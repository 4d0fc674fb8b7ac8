"""Thousands of strangers' whole connections: everyone is answered, a bystander all the time, and every 202 counts once."""

import asyncio
import json
import os
import re
import socket
import struct
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from ingest_api.signature import sign
from tests.ingest_connections import HOST, Plan, make_plan
from tests.ingest_fixtures import SECRET, Service, progression, service

CONNECTIONS = int(os.environ.get("FAIRBOARD_TEST_FUZZ", "1500"))
SEED = int(os.environ.get("FAIRBOARD_TEST_SEED", "15"))
AT_ONCE = 24
# Nothing here waits for the client longer than milliseconds: what takes this long hangs.
WITHIN_S = 15.0
GROWTH_MIB = 16
ID_BYTES = 150  # a worker remembers the ids of the last 400,000 events (ingest_api/door.py)


class Answer(NamedTuple):
    """One answer, with what tells whose it is."""

    status: int
    name: bytes
    close: bool
    body: bytes


def read_answers(received: bytes) -> list[Answer]:
    """All final answers of a connection; fails where it is no HTTP. One to HEAD is known by what follows its head."""
    answers, at = [], 0
    while at < len(received):
        head, _, _ = received[at:].partition(b"\r\n\r\n")
        assert re.match(rb"HTTP/1\.1 [1-5]\d\d [A-Za-z -]+\r\n", head + b"\r\n"), received[at : at + 200]
        at += len(head) + 4
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields.get(b"content-length", b"0"))
        if received[at : at + 9] == b"HTTP/1.1 " or at == len(received):
            length = 0
        if b"transfer-encoding" in fields:
            length = received.index(b"\r\n0\r\n\r\n", at) + 7 - at
        body = received[at : at + length]
        assert len(body) == length, "an answer is cut"
        at += length
        if (status := int(head[9:12])) >= 200:
            answers.append(Answer(status, fields[b"x-request-id"], fields.get(b"connection") == b"close", body))
    return answers


async def play(port: int, plan: Plan) -> bytes | None:
    """Do what the plan says; what came, or None where the client or the service reset the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    # Closed by a reset, it leaves no TIME_WAIT behind: the machine has 28,000 ports for a minute.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    try:
        received, _ = await asyncio.gather(reader.read(), _write(writer, plan))
    except ConnectionError:
        return None
    else:
        return received if plan.ending != "reset" else None
    finally:
        writer.transport.abort()


async def _write(writer: asyncio.StreamWriter, plan: Plan) -> None:
    try:
        for step in plan.writes:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            else:
                await asyncio.sleep(step)
        if plan.ending == "half":
            writer.write_eof()
    except OSError:
        pass  # refused and closed before all was sent: what was answered is read
    if plan.ending == "reset":
        writer.transport.abort()


class Bystander:
    """Somebody else on a connection of their own, who is served all the time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.sent: list[str] = []
        self.worst_s = 0.0

    async def run(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            while True:
                event_id = f"bystander-{len(self.sent)}"
                body = json.dumps(progression(eventId=event_id)).encode()
                head = b"x-signature: %b\r\ncontent-length: %d\r\n" % (sign(SECRET.encode(), body).encode(), len(body))
                start = time.monotonic()
                writer.write(b"POST /events HTTP/1.1\r\n%b%b\r\n%b" % (HOST, head, body))
                answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), WITHIN_S)
                assert answer.startswith(b"HTTP/1.1 202 "), answer
                await reader.readexactly(int(answer.partition(b"content-length: ")[2].split(b"\r")[0]))
                self.worst_s = max(self.worst_s, time.monotonic() - start)
                self.sent.append(event_id)
                await asyncio.sleep(0.01)
        finally:
            writer.close()


class Run:
    """All connections of one seed against one service, and what came of them."""

    def __init__(self, running: Service) -> None:
        self._running = running
        self._port = int(running.url.rsplit(":", 1)[1])
        self._now = int(time.time())
        self._numbers = iter(range(CONNECTIONS))
        worker = next(c for c in psutil.Process(running.process.pid).children() if "ingest_api.worker" in c.cmdline())
        self._memory = worker.memory_info
        self.by_status: Counter[int] = Counter()
        self.resets = 0
        self.accepted: set[str] = set()
        self.memory_mib: list[float] = []
        self.bystander = Bystander(self._port)

    async def go(self) -> None:
        bystander = asyncio.create_task(self.bystander.run())
        clients = [asyncio.create_task(self._client()) for _ in range(AT_ONCE)]
        try:
            await asyncio.wait([bystander, asyncio.gather(*clients)], return_when=asyncio.FIRST_COMPLETED)
            assert not bystander.done(), bystander.exception()
            await asyncio.gather(*clients)
        finally:
            bystander.cancel()
            for client in clients:
                client.cancel()

    async def _client(self) -> None:
        for number in self._numbers:
            if number % max(1, CONNECTIONS // 10) == 0:
                self.memory_mib.append(round(self._memory().rss / 2**20, 1))
            plan = make_plan(SEED, number, self._now)
            try:
                received = await asyncio.wait_for(play(self._port, plan), WITHIN_S)
            except TimeoutError:
                pytest.fail(f"connection {number} of seed {SEED} hangs: {plan}")
            if received is None:
                self.resets += 1
                assert plan.ending == "reset" or not plan.whole, f"connection {number} of seed {SEED} was reset"
            else:
                self._take(number, plan, read_answers(received))

    def _take(self, number: int, plan: Plan, answers: list[Answer]) -> None:
        where = f"connection {number} of seed {SEED}"
        self.by_status.update(answer.status for answer in answers)
        assert not [answer for answer in answers if answer.status == 500], f"{where}: {plan}"
        assert not [answer for answer in answers[:-1] if answer.close], f"{where}: answers behind a close"
        names = [answer.name for answer in answers if answer.name in plan.names]
        assert names == sorted(names, key=plan.names.index), f"{where}: answers out of their order"
        if plan.whole:
            assert names == plan.names, f"{where}: {[(a.status, a.name) for a in answers]} of {plan}"
        for answer in answers:
            ids = plan.events.get(answer.name, [])
            if plan.whole and ids:
                assert answer.status == 202, f"{where}: {answer}"
            if answer.status == 202 and ids:
                refused = {error["index"] for error in json.loads(answer.body)["errors"]}
                self.accepted |= {event_id for index, event_id in enumerate(ids) if index not in refused}


def test_every_connection_is_answered_and_what_was_accepted_counts_once(tmp_path: Path) -> None:
    with service(tmp_path / "data", FAIRBOARD_SEAL_AFTER_S="5", FAIRBOARD_RATE_LIMIT="1000000000") as running:
        print(f"seed {SEED}, {CONNECTIONS:,} connections")
        start = time.monotonic()
        run = Run(running)
        asyncio.run(run.go())
        took_s = time.monotonic() - start
        accepted = _accepted(running)
        assert running.http.get("/readyz").status_code == 200
        assert running.stop() == 0
        landed = running.events()["event_id"].to_list()
        assert "Traceback" not in running.log()
    figure = {"name": "ingest_fuzz", "seed": SEED, "connections": CONNECTIONS, "seconds": round(took_s, 1)}
    figure |= {"answers": run.by_status.total(), "by_status": dict(sorted(run.by_status.items())), "resets": run.resets}
    figure |= {"accepted": accepted, "memory_mib": run.memory_mib, "bystander_worst_ms": round(run.bystander.worst_s * 1000)}
    print(json.dumps(figure))
    assert len(landed) == len(set(landed)) == accepted
    assert not (run.accepted | set(run.bystander.sent)) - set(landed), "answered 202, and not in the lake"
    assert not [event_id for event_id in landed if event_id.startswith("forged")]
    grown_mib = run.memory_mib[-1] - run.memory_mib[len(run.memory_mib) // 5]
    assert grown_mib < GROWTH_MIB + accepted * ID_BYTES / 2**20
    assert len(run.accepted) > CONNECTIONS / 2


def _accepted(running: Service) -> int:
    """Events that the service says it accepted, once nothing more is on its way."""
    before = -1
    while (now := _counted(running)) != before:
        before = now
        time.sleep(0.3)
    return now


def _counted(running: Service) -> int:
    lines = running.http.get("/metrics").text.splitlines()
    return sum(int(float(line.split()[1])) for line in lines if 'result="accepted"' in line)
