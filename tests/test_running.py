"""What `make up` runs must end when it is told to, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from warehouse.embedded_redis import EmbeddedRedis, connect
from warehouse.settings import Settings

COMMAND = str(Path(sys.executable).parent / "fairboard")


def wait_until(true: Callable[[], bool], deadline_s: float = 30) -> None:
    deadline = time.monotonic() + deadline_s
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_embedded_redis_ends_with_the_command_that_runs_it(settings: Settings, number: signal.Signals) -> None:
    process = subprocess.Popen([COMMAND, "redis"], stdout=subprocess.PIPE)
    wait_until(EmbeddedRedis(settings).is_running)
    connect(settings).set("kept", "yes")
    process.send_signal(number)
    assert process.wait(timeout=30) == 0
    assert not EmbeddedRedis(settings).is_running()
    with EmbeddedRedis(settings):
        assert connect(settings).get("kept") == "yes"


def test_a_second_starter_joins_the_server_and_does_not_end_it(settings: Settings) -> None:
    with EmbeddedRedis(settings) as first:
        with EmbeddedRedis(settings) as second:
            assert second.url == first.url
        assert first.is_running()


def test_stop_ends_a_redis_that_was_left_behind(settings: Settings) -> None:
    left = EmbeddedRedis(settings)
    left.start()
    pid = int((settings.data_dir / "redis" / "redis.pid").read_text())
    subprocess.run([Path(__file__).parent.parent / "deploy" / "stop-redis", settings.data_dir], check=True)
    left.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
