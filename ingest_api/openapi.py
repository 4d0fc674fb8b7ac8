"""`/openapi.json`: the HTTP contract, generated from the types that the service decodes and encodes.

What does not belong here: a rule that the types or the constants do not hold.
"""

import re
from functools import cache
from typing import Any, Final

import msgspec

from ingest_api.admission import Answer
from ingest_api.bodies import MAX_EVENTS, MAX_RAW_BYTES
from ingest_api.health import Readiness
from ingest_api.problems import ProblemDocument
from ingest_api.reads import MAX_LIMIT, Progress
from warehouse.boards import Board
from warehouse.calendar import WindowKind
from warehouse.events import Event

EXAMPLE: Final = {
    "eventId": "quest-7f3a-0001",
    "type": "progression",
    "playerId": "player_12345",
    "ts": 1694000000,
    "payload": {"deltaXp": 150, "activity": "quest_completion"},
}
_SIGNATURE_HEADERS: Final = (
    ("X-Signature", True, "Hex HMAC-SHA256 of the raw body; with X-Timestamp, of body + `.` + timestamp.", "^[0-9a-fA-F]{64}$"),
    ("X-Timestamp", False, "Whole seconds since the epoch, at most 5 minutes from the server's clock.", "^[0-9]{1,11}$"),
    ("X-Key-Id", False, "Which key signed; the first configured one where it is missing.", "^[A-Za-z0-9._-]{1,64}$"),
    ("Idempotency-Key", False, "Names the request, so that it can be repeated safely.", "^[ -~]{1,256}$"),
    ("X-Request-ID", False, "Echoed; made where it is missing.", "^[ -~]{1,256}$"),
)
_REFUSALS: Final = {
    400: "Malformed, or the event breaks the contract: `field` says where.",
    401: "The signature does not fit.",
    408: "The body came too slowly.",
    409: "The Idempotency-Key was used with this body (the first answer), or the stamped signature was seen before.",
    413: "Too large, packed or unpacked, or too many events.",
    415: "A Content-Encoding that is not gzip or zstd.",
    422: "The Idempotency-Key was used with another body.",
    429: "Too many requests from this key and address.",
    431: "The head of the request is too large.",
    503: "Not accepting now; `Retry-After` says when to come again.",
}


@cache
def openapi_document() -> bytes:
    """The document, as JSON."""
    types = (Event, Answer, ProblemDocument, Readiness, Board, Progress)
    (event, answer, problem, ready, board, progress), parts = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    refusals = {str(status): _response(text, problem, "application/problem+json") for status, text in _REFUSALS.items()}
    many = {"type": "array", "items": event, "maxItems": MAX_EVENTS}
    accepted = {"202": _response("On disk.", answer, headers=_rate_headers())}
    reading = {status: refusals[status] for status in ("400", "503")}
    reading["404"] = _response("Nothing is published.", problem, "application/problem+json")
    paths = {
        "/events": {"post": _posting("Send one event.", {"application/json": event}, EXAMPLE, accepted | refusals)},
        "/events/batch": {
            "post": _posting(
                f"Send up to {MAX_EVENTS:,} events and {MAX_RAW_BYTES:,} bytes; one bad event never sinks its batch.",
                {"application/json": many, "application/x-ndjson": {"type": "string"}},
                [EXAMPLE],
                accepted | refusals,
            )
        },
        "/leaderboard": {
            "get": _getting("The running board.", _board_query(), {"200": _response("The board.", board)} | reading)
        },
        "/players/{id}/progress": {
            "get": _getting("How far a player is.", [_player()], {"200": _response("The progress.", progress)} | reading)
        },
        "/healthz": {"get": _getting("Alive?", [], {"200": _response("Alive.", {"type": "object"})})},
        "/readyz": {
            "get": _getting("Accepting?", [], {"200": _response("Yes.", ready), "503": _response("No, and why.", ready)})
        },
    }
    info = {"title": "Fairboard ingest", "version": "1", "description": "Signed game events in, boards out."}
    return msgspec.json.encode({"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": parts}})


def _posting(summary: str, content: dict[str, Any], example: Any, responses: dict[str, Any]) -> dict[str, Any]:
    bodies = {kind: {"schema": schema} for kind, schema in content.items()}
    bodies["application/json"]["example"] = example
    parameters = [
        {
            "name": name,
            "in": "header",
            "required": required,
            "description": text,
            "schema": {"type": "string", "pattern": pattern},
        }
        for name, required, text, pattern in _SIGNATURE_HEADERS
    ]
    return {
        "operationId": "_".join(re.findall("[a-z]+", summary.lower())[:3]),
        "summary": summary,
        "parameters": parameters,
        "requestBody": {"required": True, "content": bodies},
        "responses": responses,
    }


def _getting(summary: str, parameters: list[dict[str, Any]], responses: dict[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "parameters": parameters, "responses": responses}


def _response(text: str, schema: Any, kind: str = "application/json", headers: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"description": text, "content": {kind: {"schema": schema}}, "headers": headers or {}}


def _rate_headers() -> dict[str, Any]:
    return {name: {"schema": {"type": "string"}} for name in ("RateLimit", "RateLimit-Policy", "X-Request-ID")}


def _board_query() -> list[dict[str, Any]]:
    limit = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 100}
    return [
        {"name": "window", "in": "query", "schema": {"enum": list(WindowKind), "default": "daily"}},
        {"name": "limit", "in": "query", "schema": limit},
    ]


def _player() -> dict[str, Any]:
    return {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
