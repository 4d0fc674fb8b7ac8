"""`/openapi.json`: the HTTP contract, generated from the types that the service decodes and encodes.

What does not belong here: a rule that the types or the constants do not hold.
"""

import re
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec

from ingest_api.admission import Answer
from ingest_api.answers import AroundQuery, Board, Friends, FriendsQuery, Line, Page, PageQuery, Progress, Ranks, Seasons
from ingest_api.bodies import MAX_EVENTS
from ingest_api.health import Readiness
from ingest_api.problems import ProblemDocument
from ingest_api.request_parser import MAX_BODY_BYTES
from ingest_api.signature import MESSAGE_ID
from warehouse.events import Event

EXAMPLE: Final = {
    "eventId": "quest-7f3a-0001",
    "type": "progression",
    "playerId": "player_12345",
    "ts": 1694000000,
    "payload": {"deltaXp": 150, "activity": "quest_completion"},
}
_SIGNATURE_HEADERS: Final = (
    ("webhook-id", "Standard Webhooks (recommended): names the request, and its events that have no eventId.", MESSAGE_ID),
    ("webhook-timestamp", "Whole seconds since the epoch, at most 5 minutes from the server's clock.", "^[0-9]{1,11}$"),
    (
        "webhook-signature",
        "`v1,` and base64 of the HMAC-SHA256 of `id.timestamp.body`; several with blanks between.",
        "^v1,",
    ),
    ("X-Key-Id", "Which key signed; the first configured one where it is missing.", "^[A-Za-z0-9._-]{1,64}$"),
    (
        "X-Signature",
        "The original scheme: hex HMAC-SHA256 of the raw body; with X-Timestamp, of body + `.` + timestamp.",
        "^[0-9a-fA-F]{64}$",
    ),
    ("X-Timestamp", "Of the original scheme: as webhook-timestamp.", "^[0-9]{1,11}$"),
    ("Idempotency-Key", "Of the original scheme: names the request, but is not signed.", "^[ -~]{1,256}$"),
    ("X-Request-ID", "Echoed; made where it is missing.", "^[ -~]{1,256}$"),
)
_REFUSALS: Final = {
    400: "Malformed, or the event breaks the contract: `field` says where; or nothing signed names it, where that is required.",
    401: "The signature does not fit.",
    408: "The body came too slowly.",
    409: "The webhook-id or Idempotency-Key was used with this body (the first answer), or the signature was seen before.",
    413: "Too large, packed or unpacked, or too many events.",
    415: "A Content-Encoding that is not gzip or zstd.",
    422: "The webhook-id or Idempotency-Key was used with another body.",
    429: "Too many requests from this key and address, or too many refused ones from this address.",
    431: "The head of the request is too large.",
    503: "Not accepting now; `Retry-After` says when to come again.",
}


@cache
def openapi_document() -> bytes:
    """The document, as JSON."""
    types = (Event, Answer, ProblemDocument, Readiness, *_READ_TYPES)
    (event, answer, problem, ready, *read), parts = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    shapes = dict(zip(_READ_TYPES, read, strict=True))
    refusals = {str(status): _response(text, problem, "application/problem+json") for status, text in _REFUSALS.items()}
    many = {"type": "array", "items": event, "maxItems": MAX_EVENTS}
    accepted = {"202": _response("On disk.", answer, headers=_rate_headers())}
    paths = {
        "/events": {"post": _posting("Send one event.", {"application/json": event}, EXAMPLE, accepted | refusals)},
        "/events/batch": {
            "post": _posting(
                f"Send up to {MAX_EVENTS:,} events and {MAX_BODY_BYTES:,} bytes; one bad event never sinks its batch.",
                {"application/json": many, "application/x-ndjson": {"type": "string"}},
                [EXAMPLE],
                accepted | refusals,
            )
        },
        "/healthz": {"get": _getting("Alive?", [], {"200": _response("Alive.", {"type": "object"})})},
        "/readyz": {
            "get": _getting("Accepting?", [], {"200": _response("Yes.", ready), "503": _response("No, and why.", ready)})
        },
    }
    paths |= {path: {"get": _reading(read, shapes, problem)} for path, read in READS.items()}
    info = {"title": "Fairboard ingest", "version": "1", "description": "Signed game events in, boards out."}
    components = {"schemas": parts, "securitySchemes": {"readKey": {"type": "http", "scheme": "bearer"}}}
    return msgspec.json.encode({"openapi": "3.1.0", "info": info, "paths": paths, "components": components})


def _posting(summary: str, content: dict[str, Any], example: Any, responses: dict[str, Any]) -> dict[str, Any]:
    bodies = {kind: {"schema": schema} for kind, schema in content.items()}
    bodies["application/json"]["example"] = example
    parameters = [
        {
            "name": name,
            "in": "header",
            "required": False,
            "description": text,
            "schema": {"type": "string", "pattern": pattern},
        }
        for name, text, pattern in _SIGNATURE_HEADERS
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


def _reading(read: "_Read", shapes: dict[Any, Any], problem: Any) -> dict[str, Any]:
    """A route of the read API: its parameters from the query's type, its answer with an example."""
    found = _response(read.summary, shapes[read.answer], headers=_read_headers())
    found["content"]["application/json"]["example"] = read.example
    if read.answer is Page:
        found["content"]["application/x-ndjson"] = {"schema": {"type": "string", "description": "A Line on every line."}}
    responses = {"200": found, "304": {"description": "What If-None-Match names still stands.", "headers": _read_headers()}}
    responses |= {status: _response(text, problem, "application/problem+json") for status, text in _READ_REFUSALS.items()}
    parameters = _query_parameters(read.query) + _path_parameters(read)
    return _getting(read.summary, parameters, responses) | {"security": [{"readKey": []}, {}]}


def _query_parameters(query: type[msgspec.Struct] | None) -> list[dict[str, Any]]:
    if query is None:
        return []
    (_,), parts = msgspec.json.schema_components([query], ref_template="{name}")
    shape = parts[query.__name__]
    return [
        {"name": name, "in": "query", "required": name in shape["required"], "schema": _inlined(schema, parts)}
        | ({"style": "form", "explode": False} if schema.get("type") == "array" else {})
        for name, schema in shape["properties"].items()
    ]


def _inlined(schema: dict[str, Any], parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A parameter's schema without what a query string cannot say: a reference, or null."""
    name = schema.get("$ref") or next((one["$ref"] for one in schema.get("allOf", ()) if "$ref" in one), None)
    if name is not None:
        return parts[name] | {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
    some = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    kept = {key: value for key, value in schema.items() if key != "anyOf" and (key, value) != ("default", None)}
    return kept | (some[0] if some else {})


def _path_parameters(read: "_Read") -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1, "maxLength": 128}}
        for name in re.findall(r"{(\w+)}", read.path)
    ]


def _read_headers() -> dict[str, Any]:
    source = {"schema": {"enum": ["redis", "warehouse"]}, "description": "Where the answer was found."}
    return {"ETag": {"schema": {"type": "string"}}, "X-Fairboard-Source": source} | _rate_headers()


class _Read(NamedTuple):
    """One route of the read API."""

    path: str
    summary: str
    query: type[msgspec.Struct] | None
    answer: type[msgspec.Struct]
    example: Any


_BOARD: Final = {
    "window": "weekly", "season": "2026-11", "start": "2026-11-23", "end": "2026-11-30", "resetsAt": "2026-11-30T00:00:00Z",
    "updatedAt": "2026-11-25T09:41:07Z", "revision": 17, "players": 48_210,
}  # fmt: skip
_LEADER: Final = {"rank": 1, "playerId": "player_12345", "score": 4_150, "previousRank": 3, "movement": 2}
_FRIEND: Final = {"rank": 812, "playerId": "player_777", "score": 960}
_PLACE: Final = {
    "window": "weekly", "season": "2026-11", "start": "2026-11-23", "resetsAt": "2026-11-30T00:00:00Z", "revision": 17,
    "players": 48_210, "rank": 812, "score": 960, "percentile": 98.31,
}  # fmt: skip
_NOVEMBER: Final = {
    "id": "2026-11", "start": "2026-11-01", "end": "2026-12-01", "resetsAt": "2026-12-01T00:00:00Z", "running": True,
}  # fmt: skip
_PROGRESS: Final = {"playerId": "player_777", "xp": 12_480, "level": 14, "xpToNext": 520, "updatedAt": "2026-11-25T09:41:07Z"}

_READ_TYPES: Final = (Page, Board, Friends, Ranks, Progress, Seasons, Line)
READS: Final = {
    read.path: read
    for read in (
        _Read("/leaderboard", "A page of a board.", PageQuery, Page, _BOARD | {"entries": [_LEADER], "next": None}),
        _Read(
            "/leaderboard/around/{player}", "A player among neighbours.", AroundQuery, Board, _BOARD | {"entries": [_FRIEND]}
        ),
        _Read(
            "/leaderboard/players", "Chosen ones.", FriendsQuery, Friends, _BOARD | {"entries": [_FRIEND], "missing": ["bob"]}
        ),
        _Read(
            "/players/{player}/rank", "A player's place on every running board.", None, Ranks,
            {"playerId": "player_777", "ranks": [_PLACE]},
        ),
        _Read("/players/{player}/progress", "How far a player is.", None, Progress, _PROGRESS),
        _Read("/seasons", "The seasons.", None, Seasons, {"seasons": [_NOVEMBER]}),
    )
}  # fmt: skip
_READ_REFUSALS: Final = {
    "400": "A parameter that is unknown or has a value it cannot have: `field` says which, `detail` what it takes.",
    "401": "Reading needs a read key here, and none fits.",
    "404": "There is no such season, board or player.",
    "410": "The cursor's revision has passed: begin again without it.",
    "429": "Too many requests from this key and address.",
    "503": "The warehouse is asked by too many, or cannot be read; `Retry-After` says when to come again.",
}
