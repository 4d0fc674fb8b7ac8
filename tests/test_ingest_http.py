"""The HTTP contract, through a real service."""

import gzip
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import zstandard

from ingest_api.signature import sign
from tests.ingest_fixtures import KEY_ID, SECRET, Service, progression, service


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("http") / "data") as started:
        yield started


def test_the_original_client_works_unmodified(running: Service) -> None:
    body = b'{"type":"progression","playerId":"player_12345","ts":%d,"payload":{"deltaXp":150,"activity":"quest"}}'
    body %= int(time.time())
    response = running.http.post("/events", content=body, headers={"X-Signature": sign(SECRET.encode(), body)})
    assert response.status_code == 202
    assert response.json() == {"accepted": 1, "duplicates": 0, "rejected": 0, "errors": []}


@pytest.mark.parametrize("pack", [None, "gzip", "zstd"])
@pytest.mark.parametrize("form", ["array", "lines"])
def test_a_batch_is_counted_and_every_refusal_explained(running: Service, form: str, pack: str | None) -> None:
    name = f"{form}-{pack}"
    events = [progression(), progression(eventId=name), {"type": "foo"}, progression(eventId=name), progression(xp=1.5)]
    events.append(progression(eventId=name, xp=99))
    body = json.dumps(events).encode() if form == "array" else b"\n".join(json.dumps(e).encode() for e in events) + b"\n"
    packed = {"gzip": gzip.compress, "zstd": zstandard.compress}[pack](body) if pack else body
    response = running.post("/events/batch", packed, content_encoding=pack or "")
    assert response.status_code == 202
    answer = response.json()
    assert (answer["accepted"], answer["duplicates"], answer["rejected"]) == (2, 1, 3)
    assert [(e["index"], e["field"]) for e in answer["errors"]] == [(2, "type"), (4, "payload.deltaXp"), (5, "eventId")]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"payload": {"deltaXp": 1.5, "activity": "a"}}, "payload.deltaXp"),
        ({"payload": {"activity": "a"}}, "payload.deltaXp"),
        ({"payload": {"deltaXp": 10**30, "activity": "a"}}, "payload.deltaXp"),
        ({"payload": {"deltaXp": float("nan"), "activity": "a"}}, ""),
        ({"type": "login"}, "type"),
        ({"playerId": ""}, "playerId"),
        ({"playerId": "a\nb"}, "playerId"),
        ({"playerId": "a\0b"}, "playerId"),
        ({"ts": 1_694_000_000_000}, "ts"),
        ({"ts": 1_000_000_000}, "ts"),
        ({"ts": 4_000_000_000}, "ts"),
        ({"eventId": "x" * 129}, "eventId"),
    ],
)
def test_a_bad_event_is_a_400_that_names_the_field(running: Service, change: dict[str, object], field: str) -> None:
    response = running.post("/events", json.dumps(progression() | change).encode())
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["field"] == field


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"\xff"', b'{"x":"\xff"}', b"[" * 5000, b'{"type":"\\ud800"}', b'{"a":{"a":' * 3000]
)
def test_what_is_no_event_is_a_400(running: Service, body: bytes) -> None:
    assert running.post("/events", body).status_code == 400


def test_one_id_twice_is_a_duplicate(running: Service) -> None:
    body = json.dumps(progression(eventId="twice")).encode()
    assert running.post("/events", body).json()["accepted"] == 1
    again = running.post("/events", body)
    assert again.status_code == 202
    assert again.json() == {"accepted": 0, "duplicates": 1, "rejected": 0, "errors": []}


@pytest.mark.parametrize(
    "headers",
    [
        {"x_signature": ""},
        {"x_signature": "0" * 64},
        {"x_signature": "not hex"},
        {"x_key_id": "nobody"},
        {"x_timestamp": "1"},
        {"x_timestamp": "soon"},
        {"x_timestamp": "9" * 400},
    ],
)
@pytest.mark.parametrize("events", [1, 1000], ids=["small", "large"])
def test_a_wrong_signature_is_a_401(running: Service, headers: dict[str, str], events: int) -> None:
    response = running.post("/events/batch", json.dumps([progression()] * events).encode(), **headers)
    assert response.status_code == 401
    assert response.json()["type"].endswith(":signature")


def test_a_stamped_signature_is_accepted_and_not_that_of_another_stamp(running: Service) -> None:
    body, now = json.dumps(progression()).encode(), int(time.time())
    stamped = {"x_signature": sign(SECRET.encode(), body, now), "x_key_id": KEY_ID}
    assert running.post("/events", body, x_timestamp=str(now), **stamped).status_code == 202
    assert running.post("/events", body, x_timestamp=str(now - 1), **stamped).status_code == 401


def test_a_body_too_large_is_a_413(running: Service) -> None:
    assert running.post("/events/batch", b" " * (4 * 1024 * 1024 + 1)).status_code == 413
    many = json.dumps([progression()] * 5001).encode()
    assert running.post("/events/batch", many).status_code == 413


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_a_bomb_is_a_413(running: Service, pack: str) -> None:
    bomb = {"gzip": gzip.compress, "zstd": zstandard.compress}[pack](b" " * (64 * 1024 * 1024))
    assert running.post("/events/batch", bomb, content_encoding=pack).status_code == 413


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_a_damaged_packing_is_a_400_and_an_unknown_one_a_415(running: Service, pack: str) -> None:
    packed = {"gzip": gzip.compress, "zstd": zstandard.compress}[pack](json.dumps([progression()] * 50).encode())
    assert running.post("/events/batch", packed[:-9], content_encoding=pack).status_code == 400
    assert running.post("/events/batch", b"no " + packed, content_encoding=pack).status_code == 400
    assert running.post("/events/batch", packed, content_encoding="br").status_code == 415


def test_a_request_id_is_echoed_or_made(running: Service) -> None:
    assert running.http.get("/healthz", headers={"x-request-id": "mine"}).headers["x-request-id"] == "mine"
    assert len(running.http.get("/nothing").headers["x-request-id"]) == 28


def test_chunked_bodies_are_read(running: Service) -> None:
    body = json.dumps(progression()).encode()
    response = running.http.post(
        "/events", content=iter([body[:10], body[10:]]), headers={"x-signature": sign(SECRET.encode(), body)}
    )
    assert response.status_code == 202


def test_everything_accepted_and_refused_is_in_the_lake_after_sigterm(tmp_path: Path) -> None:
    with service(tmp_path / "data", FAIRBOARD_SEAL_AFTER_S="3600") as started:
        with started.client() as client:
            for n in range(20):
                client.post_batch([progression(f"player_{n}"), {"type": "foo", "n": n}], message_id=f"batch-{n}")
        assert started.stop() == 0
        assert started.events().height == 20
        assert started.events()["event_id"].n_unique() == 20
        assert started.rejects().height == 20
        assert not list((tmp_path / "data" / "journal").glob("*/*"))


@pytest.mark.parametrize("form", ["array", "lines"])
def test_a_large_batch_is_packed_on_disk_and_in_the_lake_as_it_was_sent(tmp_path: Path, form: str) -> None:
    events = [progression(f"player_{n}", n, eventId=f"whole-{n}") for n in range(1000)]
    whole = [json.dumps(event).encode() for event in events]
    part = [b'{"type":"foo"}', *(raw.replace(b"whole", b"part") for raw in whole[1:])]
    with service(tmp_path / "data", FAIRBOARD_SEAL_AFTER_S="3600") as started:
        for lines, accepted in ((whole, 1000), (part, 999)):
            body = b"[" + b", ".join(lines) + b"]" if form == "array" else b"\n".join(lines)
            assert started.post("/events/batch", body).json()["accepted"] == accepted
        assert sum(file.stat().st_size for file in (tmp_path / "data" / "journal").glob("*/*")) < len(body)
        started.stop()
        assert started.rejects().height == 1
        rows = started.events().sort("event_id").select("event_id", "player_id", "delta_xp").rows()
    sent = [(f"{name}-{n}", f"player_{n}", n) for name, first in (("whole", 0), ("part", 1)) for n in range(first, 1000)]
    assert rows == sorted(sent)


def test_a_wrong_path_or_method_is_told(running: Service) -> None:
    assert running.http.get("/nothing").status_code == 404
    with pytest.raises(httpx.HTTPStatusError):
        running.http.delete("/events").raise_for_status()
