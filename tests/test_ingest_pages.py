"""What the service says of itself, and the examples that the documentation shows."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest_api.openapi import EXAMPLE
from tests.ingest_fixtures import Service, service, wait_until
from warehouse.embedded_redis import EmbeddedRedis
from warehouse.settings import Settings

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("pages") / "data"
    with EmbeddedRedis(Settings(data_dir=folder, _env_file=None)), service(folder) as started:
        yield started


def test_metrics_are_prometheus_text(running: Service) -> None:
    running.post("/events", json.dumps(EXAMPLE | {"ts": int(time.time())}).encode())
    wait_until(lambda: 'redis_up{worker="000"} 1' in running.http.get("/metrics").text, "the gauge is set")
    page = running.http.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'fairboard_ingest_events_total{worker="000",result="accepted"} 1' in page.text
    assert 'fairboard_ingest_commit_seconds_bucket{worker="000",le="+Inf"} 1' in page.text
