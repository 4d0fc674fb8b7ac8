"""The service answers as its OpenAPI document says, to requests made from that document."""

from collections.abc import Iterator

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from ingest_api.openapi import openapi_document
from ingest_api.signature import sign
from tests.ingest_fixtures import SECRET, Service, service

PARTS = ("method", "url", "headers", "params", "data", "json", "cookies")
schema = schemathesis.openapi.from_file(openapi_document().decode())


statuses: list[int] = []


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("openapi") / "data") as started:
        yield started
    assert 401 not in statuses, "the signing of generated requests is wrong"


@schema.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_the_document_promises(case: schemathesis.Case, running: Service) -> None:
    arguments = case.as_transport_kwargs(base_url=running.url)
    request = requests.Request(**{name: value for name, value in arguments.items() if name in PARTS}).prepare()
    body = request.body or b""
    for name in ("X-Timestamp", "X-Key-Id", "webhook-id", "webhook-timestamp", "webhook-signature"):
        request.headers.pop(name, None)
    request.headers["X-Signature"] = sign(SECRET.encode(), body if isinstance(body, bytes) else body.encode())
    with requests.Session() as session:
        response = session.send(request, timeout=30)
    statuses.append(response.status_code)
    case.validate_response(response, checks=[not_a_server_error, content_type_conformance, response_schema_conformance])
