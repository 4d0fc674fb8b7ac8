"""The samples and clients that the documentation shows work as they stand."""

# ruff: noqa: F401, F811 (a fixture is found by its name, wherever it is imported from)

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlencode

import pytest
from dashboard_fixtures import browser, page
from playwright.sync_api import Page, expect
from standardwebhooks import Webhook

from ingest_api.keys import make_key
from ingest_api.signature import secret_bytes, sign_webhook
from tests.conftest import missing
from tests.ingest_fixtures import KEY_ID, SECRET, Service, free_port, progression, service, wait_until
from warehouse.events import decode_event

pytestmark = pytest.mark.xdist_group("browser")  # one process: the browser's, and what the clients are compiled into is kept

EXAMPLES = Path(__file__).parent.parent / "examples"
CLIENTS = {
    "python": [sys.executable, "send.py"],
    "bash": ["bash", "send.sh"],
    "node": ["node", "send.mjs"],
    "go": ["go", "run", "send.go"],
    "java": ["java", "Send.java"],
    "csharp": ["mono", "Send.exe"],
}
COMPILERS = {"java": "javac", "csharp": "mcs"}
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def page_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, page_port: int) -> Iterator[Service]:
    folder, origin = tmp_path_factory.mktemp("examples") / "data", f"http://127.0.0.1:{page_port}"
    with service(folder, FAIRBOARD_PROFILE="production", FAIRBOARD_CORS_ORIGINS=origin) as started:
        yield started


@pytest.fixture(scope="module")
def made_key(running: Service) -> str:
    """A secret as `fairboard keys make` prints it, once the service knows it."""
    secret = make_key(running.settings, "made")

    def known() -> bool:
        body = json.dumps(progression(eventId="known")).encode()
        headers = sign_webhook(secret_bytes(secret), body, "known", int(time.time()))
        return running.http.post("/events", content=body, headers={"x-key-id": "made", **headers}).status_code in (202, 409)

    wait_until(known, "the new key is known")
    return secret


@pytest.fixture(scope="module")
def client_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """Runs the client of a language, its compiler's caches kept for the next run."""
    folder = tmp_path_factory.mktemp("clients")

    def of(language: str) -> Run:
        command = CLIENTS[language]
        for tool in (command[0], COMPILERS.get(language, command[0])):
            if not shutil.which(tool):
                missing(f"{tool}, to run the example client of {language}")

        def run(url: str, key_id: str, secret: str) -> subprocess.CompletedProcess[str]:
            environment = {"URL": url, "KEY_ID": key_id, "SECRET": secret, "PATH": "/usr/local/bin:/usr/bin:/bin"}
            environment |= {"GOCACHE": str(folder / "go"), "HOME": str(folder), "MONO_PATH": str(folder)}
            clients = EXAMPLES / "clients"
            if language == "csharp":
                compiled = str(folder / "Send.exe")
                subprocess.run(["mcs", "-r:System.Net.Http.dll", f"-out:{compiled}", "Send.cs"], cwd=clients, check=True)
                command[1] = compiled
            return subprocess.run(command, cwd=clients, env=environment, capture_output=True, text=True, check=False)

        return run

    return of


class Unsteady(BaseHTTPRequestHandler):
    """A service that is being restarted: it gives no answer, then a 503, then it accepts."""

    protocol_version = "HTTP/1.1"
    received: list[tuple[dict[str, str], bytes]]

    def do_POST(self) -> None:
        chunked = self.headers.get("transfer-encoding") == "chunked"
        body = b"".join(self._chunks()) if chunked else self.rfile.read(int(self.headers["content-length"]))
        self.received.append((dict(self.headers), body))
        self.close_connection = True
        if len(self.received) > 1:
            self.send_response(503 if len(self.received) == 2 else 202)
            self.send_header("retry-after", "0")
            self.send_header("content-length", "0")
            self.end_headers()

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def log_message(self, *_: object) -> None:
        """Nothing: the test says what was wrong."""


@contextmanager
def http_server(handler: type[BaseHTTPRequestHandler] | Callable[..., BaseHTTPRequestHandler], port: int = 0) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("name", ["progression", "boss_kill", "drop_claimed"])
def test_the_sample_of_each_type_is_valid_and_of_that_type(name: str) -> None:
    content = (EXAMPLES / "events" / f"{name}.json").read_bytes()
    assert json.loads(content)["type"] == name
    decode_event(content)


@pytest.mark.parametrize("language", CLIENTS)
def test_the_client_of_each_language_is_accepted_in_production(
    language: str, client_of: Callable[[str], Run], running: Service, made_key: str
) -> None:
    sent = client_of(language)(running.url, "made", made_key)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    assert sent.stdout.startswith('202 {"accepted":'), sent.stdout
    assert '"rejected":0' in sent.stdout


@pytest.mark.parametrize("language", CLIENTS)
def test_the_client_of_each_language_tries_again_under_the_same_id_with_a_new_stamp(
    language: str, client_of: Callable[[str], Run]
) -> None:
    run = client_of(language)
    handler = type("Handler", (Unsteady,), {"received": []})
    with http_server(handler) as url:
        sent = run(url, KEY_ID, SECRET)
    assert sent.returncode == 0, sent.stdout + sent.stderr
    received = [({name.lower(): value for name, value in headers.items()}, body) for headers, body in handler.received]
    assert len(received) == 3
    for headers, body in received:
        Webhook(SECRET.encode()).verify(body, headers, json_parse=False)  # the original library
        assert headers["x-key-id"] == KEY_ID
    assert len({(headers["webhook-id"], body) for headers, body in received}) == 1
    stamps = [int(headers["webhook-timestamp"]) for headers, _ in received]
    assert stamps[0] < stamps[1] <= stamps[2]


def test_a_page_of_a_configured_origin_signs_and_sends_from_the_browser(
    page: Page, page_port: int, running: Service, made_key: str
) -> None:
    def pages(*arguments: object) -> SimpleHTTPRequestHandler:
        return SimpleHTTPRequestHandler(*arguments, directory=str(EXAMPLES / "clients"))  # type: ignore[arg-type]

    query = urlencode({"url": running.url, "key": "made"})
    with http_server(pages, page_port) as origin:
        page.goto(f"{origin}/send.html?{query}#{made_key}")
        page.get_by_role("button").click()
        expect(page.get_by_role("status")).to_have_text('202 {"accepted":1,"duplicates":0,"rejected":0,"errors":[]}')
    with http_server(pages) as elsewhere:
        page.goto(f"{elsewhere}/send.html?{query}#{made_key}")
        with page.expect_console_message(lambda message: "No answer" in message.text):
            page.get_by_role("button").click()


@pytest.mark.parametrize("secret", [SECRET, WHSEC])
@pytest.mark.parametrize("body", ['{"a":1}', '{"playerId":"Zoë 😀"}', "", '[{"ts":1},\n {"ts":2}]'])
def test_our_signatures_and_the_original_librarys_are_the_same(secret: str, body: str) -> None:
    library = Webhook(secret if secret.startswith("whsec_") else secret.encode())
    now = datetime.now(UTC)
    ours = sign_webhook(secret_bytes(secret), body.encode(), "msg_1", int(now.timestamp()))
    library.verify(body, ours, json_parse=False)
    assert ours["webhook-signature"] == library.sign("msg_1", now, body)


def test_what_the_original_library_signs_is_accepted_with_a_key_that_fairboard_made(running: Service, made_key: str) -> None:
    body, now = json.dumps(progression()), datetime.now(UTC)
    headers = {"x-key-id": "made", "webhook-id": "msg_2", "webhook-timestamp": str(int(now.timestamp()))}
    headers["webhook-signature"] = f"v1,{'A' * 43}= {Webhook(made_key).sign('msg_2', now, body)}"  # beside a retired one's
    assert running.http.post("/events", content=body.encode(), headers=headers).json()["accepted"] == 1


def test_the_commands_of_the_documentation_send_a_signed_event_that_counts_once(running: Service, made_key: str) -> None:
    document = (EXAMPLES.parent / "docs" / "ingest.md").read_text()
    commands = next(block for block in re.findall(r"```sh\n(.*?)```", document, re.DOTALL) if "webhook-signature" in block)
    commands = commands.replace("http://127.0.0.1:8080", running.url).replace("game-1", "made").replace("curl", "curl -sS")
    again = "curl" + commands.rpartition("curl")[2]
    script = f"set -eu\nSECRET={made_key}\n{commands}echo\n{again}"
    sent = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert sent.stdout.splitlines() == ['{"accepted":1,"duplicates":0,"rejected":0,"errors":[]}'] * 2, sent.stderr
