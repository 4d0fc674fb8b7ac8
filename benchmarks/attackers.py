"""Clients without a key that attack the ingest service on a port, from an address and in a process of their own.

    python attackers.py PORT ATTACK…        until its standard input ends; then how often each was cut off, as JSON

They send buffers made before, and whoever is cut off comes back at once, each at no more than a gigabit a second: the loopback
has no line, and at its speed copying the bytes alone would be the attack. Standard library only, and hardly any Python while it
runs: the cores are shared with the attacked. What does not belong here: measuring (`attack_bench.py`).
"""

import contextlib
import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

ADDRESS: Final = "127.0.0.2"  # limits by address are to meet the attackers, not the honest
WAITING: Final = 64
LINE_BYTES_PER_S: Final = 125_000_000
PAUSE_S: Final = 0.001  # of whoever is refused at once: a loop that only connects would measure itself
HEAD: Final = b"POST /events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
TRAILERS: Final = HEAD + b"0\r\n" + b"a:\r\n" * 400_000 + b"\r\n"
CHUNKS: Final = HEAD + b"2\r\nab\r\n" * 2**19
PIPELINE: Final = (HEAD + b"2\r\nab\r\n" * 16_000 + b"0\r\n\r\n") * 10
REQUESTS: Final = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 1000

SIZES: Final = {"trailers": len(TRAILERS), "chunks": len(CHUNKS)}

Connect = Callable[[], socket.socket]


def trailers(connect: Connect) -> None:
    """1.6 MB of trailer fields behind an empty body."""
    with connect() as connection:
        connection.sendall(TRAILERS)
        _await_end(connection)


def waiting(connect: Connect) -> None:
    """Connections that announce a chunked body and send nothing of it."""
    with contextlib.ExitStack() as held:
        connections = [held.enter_context(connect()) for _ in range(WAITING)]
        for connection in connections:
            connection.sendall(HEAD)
        _await_end(connections[0])


def unread(connect: Connect) -> None:
    """Requests for a long answer, one behind the other, whose answers nobody reads."""
    with connect() as connection:
        while True:
            connection.sendall(REQUESTS)


def chunks(connect: Connect) -> None:
    """A body in chunks of two bytes."""
    with connect() as connection:
        connection.sendall(CHUNKS)
        _await_end(connection)


def pipelined(connect: Connect) -> None:
    """Requests, one behind the other, with bodies in as many chunks as are read: each is refused, the next one read."""
    with connect() as connection:
        while True:
            connection.sendall(PIPELINE)


ATTACKS: Final = {attack.__name__: attack for attack in (trailers, waiting, unread, chunks, pipelined)}


def _await_end(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


def main(port: int, names: list[str]) -> None:
    """Attack, each kind in a thread: they wait in system calls nearly all the time."""
    cuts = Counter(dict.fromkeys(names, 0))

    def connect() -> socket.socket:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.bind((ADDRESS, 0))
        connection.connect(("127.0.0.1", port))
        return connection

    def again_and_again(name: str) -> None:
        takes_s = SIZES.get(name, 0) / LINE_BYTES_PER_S
        while True:
            start = time.monotonic()
            with contextlib.suppress(OSError):
                ATTACKS[name](connect)
            cuts[name] += 1
            time.sleep(max(PAUSE_S, start + takes_s - time.monotonic()))

    for name in names:
        threading.Thread(target=again_and_again, args=(name,), daemon=True).start()
    sys.stdin.read()
    print(json.dumps(cuts), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
