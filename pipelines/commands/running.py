"""Commands that run something: serve, redis, demo."""

import signal
import threading
from typing import Annotated

import typer

from ingest_api.server import serve as serve_ingest
from pipelines.output import out
from warehouse.embedded_redis import EmbeddedRedis
from warehouse.errors import StoreUnavailable
from warehouse.settings import load_settings


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(demo)
    app.command()(serve)
    app.command()(redis)


def demo(
    seed: Annotated[int, typer.Option(help="Seed of the simulated game.")] = 1,
    players: Annotated[int, typer.Option(min=100, help="How many players.")] = 3_000,
) -> None:
    """Play a few days of a game through the whole system and show what came out. Leaves nothing running."""
    from pipelines.demo import run  # noqa: PLC0415 - it brings Dagster, whose 2 s no other command should wait for

    run(load_settings(), seed=seed, players=players)


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 8080,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
) -> None:
    """Run the ingest service until Ctrl-C or SIGTERM; everything accepted is sealed before it ends."""
    serve_ingest(load_settings(), host=host, port=port, workers=workers)


def redis() -> None:
    """Run the embedded Redis until Ctrl-C or SIGTERM."""
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    with EmbeddedRedis(load_settings()) as server:
        out.print("Redis is up; its address is in DATA_DIR/redis/url.")
        while not asked.wait(timeout=1):
            if not server.is_running():
                raise StoreUnavailable(
                    "Redis has ended by itself; see DATA_DIR/redis/server.log. What it held is in its AOF there."
                )
