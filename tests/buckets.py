"""Buckets of this machine for tests: an S3 (moto), an Azure Blob (Azurite), each a process of its own, and a line that fails.

No emulator of Google Cloud Storage: none comes from a registry whose makers are known.
"""

import base64
import hashlib
import hmac
import http.client
import json
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote, urlsplit

import boto3
import httpx
import pytest
from conftest import missing

from warehouse.embedded_redis import free_port

HOST = "127.0.0.1"
BUCKET = "fairboard"
AZURITE = Path(__file__).parent.parent / ".azurite/node_modules/.bin/azurite-blob"
# Azurite's, published with it.
ACCOUNT = "devstoreaccount1"
ACCOUNT_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True)
class Emulator:
    """A bucket that is empty below `url`, and the variables by which every client finds it."""

    scheme: str
    port: int
    prefix: str = ""
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"{self.scheme}://{BUCKET}/{self.prefix}".rstrip("/")

    @property
    def environment(self) -> dict[str, str]:
        here = f"http://{HOST}:{self.port}"
        variables = {
            "s3": {
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "AWS_REGION": "us-east-1",
                "AWS_ENDPOINT_URL": here,
                "AWS_ALLOW_HTTP": "true",
                "AWS_EC2_METADATA_DISABLED": "true",
            },
            "az": {
                "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
                "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
                "AZURE_STORAGE_ENDPOINT": f"{here}/{ACCOUNT}",
                "AZURE_ALLOW_HTTP": "true",
            },
        }
        return variables[self.scheme] | dict(self.more)

    def below(self, prefix: str) -> Self:
        """Another lake in the same bucket: one server serves a whole session of tests."""
        return replace(self, prefix=prefix)

    def through(self, line: "FaultyLine") -> Self:
        """The same, by way of a line that fails."""
        return replace(self, port=line.port)

    def write(self, name: str, content: bytes) -> None:
        """Put an object beside our own code, as who damages one does."""
        key = f"{self.prefix}/{name}".lstrip("/")
        if self.scheme == "s3":
            s3_client(self).put_object(Bucket=BUCKET, Key=key, Body=content)
        else:
            _azure("PUT", self.port, f"/{BUCKET}/{quote(key)}", content, {"x-ms-blob-type": "BlockBlob"})


def s3_client(emulator: Emulator, **keys: str) -> Any:
    """Amazon's own client."""
    given = {"aws_access_key_id": "test", "aws_secret_access_key": "test"} | keys
    return boto3.client("s3", region_name="us-east-1", endpoint_url=f"http://{HOST}:{emulator.port}", **given)


@contextmanager
def s3() -> Iterator[Emulator]:
    """Moto's S3, with a bucket."""
    port = free_port()
    with _server([sys.executable, str(Path(__file__).with_name("s3_server.py")), str(port)], port):
        emulator = Emulator("s3", port)
        s3_client(emulator).create_bucket(Bucket=BUCKET)
        yield emulator


def demand_rights(emulator: Emulator, *actions: str) -> Emulator:
    """From now on this S3 checks signatures and rights: the same bucket for a user who may do nothing but these actions."""
    iam = boto3.client("iam", region_name="us-east-1", endpoint_url=f"http://{HOST}:{emulator.port}",
                       aws_access_key_id="test", aws_secret_access_key="test")  # fmt: skip
    iam.create_user(UserName="fairboard")
    allowed = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(UserName="fairboard", PolicyName="lake", PolicyDocument=policy)
    key = iam.create_access_key(UserName="fairboard")["AccessKey"]
    httpx.post(f"http://{HOST}:{emulator.port}/moto-api/reset-auth", content="0", trust_env=False).raise_for_status()
    return replace(emulator, more={"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]})


@contextmanager
def azure() -> Iterator[Emulator]:
    """Azurite's blobs, with a container."""
    if not AZURITE.exists() or shutil.which("node") is None:
        missing("Azurite, an Azure Blob of this machine: make azurite (needs npm)")
    port = free_port()
    options = ["--blobHost", HOST, "--blobPort", str(port), "--skipApiVersionCheck", "--inMemoryPersistence"]
    with _server([str(AZURITE), *options, "--silent", "--disableTelemetry"], port):
        _azure("PUT", port, f"/{BUCKET}", b"", {}, "restype:container")
        yield Emulator("az", port)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[Emulator]:
    with s3() as emulator:
        yield emulator


@pytest.fixture(scope="session")
def azure_server() -> Iterator[Emulator]:
    with azure() as emulator:
        yield emulator


@pytest.fixture(params=["s3", "azure"])
def emulator(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Emulator:
    """A lake's place in each kind of bucket, empty, which the environment's variables lead to."""
    found: Emulator = request.getfixturevalue(f"{request.param}_server").below(uuid.uuid4().hex)
    enter(found, monkeypatch)
    return found


def enter(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set its variables."""
    for name, value in emulator.environment.items():
        monkeypatch.setenv(name, value)


def _azure(method: str, port: int, path: str, content: bytes, headers: dict[str, str], query: str = "") -> None:
    """One request with a shared key: https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key."""
    headers = headers | {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    signed = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
    text = f"{method}\n\n\n{len(content) or ''}\n\n\n\n\n\n\n\n\n{signed}/{ACCOUNT}/{ACCOUNT}{path}" + (query and f"\n{query}")
    signature = base64.b64encode(hmac.digest(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256)).decode()
    url = f"http://{HOST}:{port}/{ACCOUNT}{path}" + (query and f"?{query.replace(':', '=')}")
    headers["Authorization"] = f"SharedKey {ACCOUNT}:{signature}"
    httpx.request(method, url, content=content, headers=headers, trust_env=False).raise_for_status()


@contextmanager
def _server(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx.get(f"http://{HOST}:{port}/", trust_env=False)
                break
            except httpx.TransportError:
                assert process.poll() is None, f"{command} ended"
                assert time.monotonic() < deadline, f"{command} does not answer"
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


Answer = tuple[int, bytes]
Fault = Callable[[str, str, Callable[..., Answer]], Answer | None]


class FaultyLine:
    """A proxy in front of an emulator. A `fault` may be set at any time, and holds for connections that are open, too.

    It is asked at each request with its method and path, and with a function that sends the request on:
    `line.fault = lambda method, path, forward: (503, b"") if method == "PUT" else forward()`. None closes the connection;
    `forward(without="if-none-match")` leaves a header out.
    """

    def __init__(self, emulator: Emulator) -> None:
        self.target = emulator.port
        self.over = threading.Event()
        self.fault: Fault = sound
        self.bytes_per_s: int | None = None  # of answers
        self.requests: list[str] = []
        self._server = _Server((HOST, 0), _Passing)
        self._server.line = self
        self.port = self._server.server_port

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    def silent(self, *_: object) -> None:
        """A fault: no answer, until the test is over."""
        self.over.wait()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    line: FaultyLine


class _Passing(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _pass(self) -> None:
        line, self._passed = self.server.line, {}
        self._body = self.rfile.read(int(self.headers.get("content-length", 0)))
        line.requests.append(f"{self.command} {urlsplit(self.path).path}")
        answer = line.fault(self.command, self.path, self._forward)
        if answer is None:
            self.close_connection = True
            return
        status, content = answer
        self.send_response_only(status)
        for name, value in ({"content-length": str(len(content))} | self._passed).items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):  # a client's patience may end
            self._send(content, line.bytes_per_s)

    def _forward(self, without: str = "") -> Answer:
        connection = http.client.HTTPConnection(HOST, self.server.line.target)
        headers = {name: value for name, value in self.headers.items() if name.lower() != without}
        connection.request(self.command, self.path, self._body, headers)
        answer = connection.getresponse()
        content = answer.read()
        length = {} if self.command == "HEAD" else {"content-length": str(len(content))}
        hop = {"connection", "transfer-encoding", "keep-alive"}
        self._passed = {name.lower(): value for name, value in answer.getheaders() if name.lower() not in hop} | length
        return answer.status, content

    def _send(self, content: bytes, bytes_per_s: int | None) -> None:
        step = (bytes_per_s or 10 * len(content)) // 10 or 1
        for start in range(0, len(content), step):
            if bytes_per_s and self.server.line.over.wait(0.1):
                return
            self.wfile.write(content[start : start + step])

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass  # noqa: N815 - names that http.server asks for

    def log_message(self, *_: object) -> None:
        pass


def sound(_method: str, _path: str, forward: Callable[..., Answer]) -> Answer:
    """No fault."""
    return forward()


def busy(*_: object) -> Answer:
    """A fault: what S3 answers when it is asked too much."""
    return 503, b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
