"""`fairboard doctor` speaks of this data folder's service, and of no other that answers in its place."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import msgspec
import pytest
from conftest import Fairboard
from ingest_fixtures import Service, service


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("doctor") / "served"
    folder.mkdir()
    with service(folder) as started:
        yield started


class Stranger(BaseHTTPRequestHandler):
    """Says to everything that it is ready."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"status":"ready"}')


def finding(fairboard: Fairboard) -> dict[str, str]:
    [ingest] = [one for one in msgspec.json.decode(fairboard("doctor", "--json").stdout) if one["what"] == "ingest"]
    return dict(ingest)


def test_the_service_of_this_folder_is_well(fairboard: Fairboard, running: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRBOARD_DATA_DIR", str(running.folder))
    monkeypatch.setattr("pipelines.doctor.INGEST_URL", running.url)
    assert finding(fairboard)["state"] == "ok"


def test_the_service_of_another_folder_is_named_as_such(
    fairboard: Fairboard, running: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("pipelines.doctor.INGEST_URL", running.url)
    found = finding(fairboard)
    assert (found["state"], "serves another data folder" in found["found"]) == ("look", True)
    with service(tmp_path / "data"):  # this folder has had a service of its own
        found = finding(fairboard)
    assert (found["state"], "serves another data folder" in found["found"]) == ("look", True)


def test_whoever_else_answers_is_no_service(fairboard: Fairboard, monkeypatch: pytest.MonkeyPatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr("pipelines.doctor.INGEST_URL", f"http://127.0.0.1:{server.server_port}")
        found = finding(fairboard)
        server.shutdown()
    assert (found["state"], "is no ingest service of this version" in found["found"]) == ("look", True)


def test_who_serves_is_told_without_a_path(running: Service) -> None:
    assert str(running.folder) not in running.http.get("/readyz").text
