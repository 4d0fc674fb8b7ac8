"""The service answers as its OpenAPI document says, to requests made from that document."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from ingest_api.openapi import openapi_document
from ingest_api.signature import sign
from tests.ingest_fixtures import SECRET, Service, service

SIGNING = ("x-signature", "x-timestamp", "x-key-id")
schema = schemathesis.openapi.from_file(openapi_document().decode())


statuses: list[int] = []


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("openapi") / "data") as started:
        yield started
    assert 202 in statuses, "no generated event was accepted: the signing of generated requests is wrong"


@schema.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_answer_is_one_that_the_document_promises(case: schemathesis.Case, running: Service) -> None:
    prepared = case.as_transport_kwargs(base_url=running.url)
    body = running.http.build_request("POST", "/", json=prepared.get("json"), content=prepared.get("data")).content
    kept = {name: value for name, value in (case.headers or {}).items() if name.lower() not in SIGNING}
    case.headers = {**kept, "X-Signature": sign(SECRET.encode(), body)}
    response = case.call(base_url=running.url)
    statuses.append(response.status_code)
    if response.status_code != 503:  # without Redis the boards cannot be read
        case.validate_response(response, checks=[not_a_server_error, content_type_conformance, response_schema_conformance])
