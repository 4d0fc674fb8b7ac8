"""What docs/security.md says of each mode, tried by somebody who has captured requests and has no key."""

import base64
import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from ingest_api.keys import make_key
from ingest_api.signature import TOLERANCE_S, secret_bytes, sign, sign_webhook
from tests.ingest_fixtures import KEY_ID, SECRET, Service, progression, service, wait_until
from warehouse.embedded_redis import EmbeddedRedis
from warehouse.settings import Settings

KEY = secret_bytes(SECRET)
PROXY = {"FAIRBOARD_TRUSTED_PROXIES": "127.0.0.1"}


class Captured(NamedTuple):
    """A request as it was on the wire."""

    path: str
    body: bytes
    headers: dict[str, str]


class Sent(NamedTuple):
    """The captured request's first and second answer, and how many events of it count."""

    first: int
    again: int
    counted: int


def _event(player: str, named: bool) -> bytes:
    return json.dumps(progression(player, **({"eventId": player} if named else {}))).encode()


def webhook(player: str) -> Captured:
    body = _event(player, named=False)
    return Captured("/events", body, sign_webhook(KEY, body, player, int(time.time())))


def stamped(player: str, named: bool = False, **headers: str) -> Captured:
    body, now = _event(player, named), int(time.time())
    return Captured("/events", body, {"x-signature": sign(KEY, body, now), "x-timestamp": str(now), **headers})


def stamped_and_named(player: str) -> Captured:
    return stamped(player, named=True)


def stamped_with_a_key(player: str) -> Captured:
    return stamped(player, **{"idempotency-key": player})


def plain(player: str, named: bool = False, **headers: str) -> Captured:
    body = _event(player, named)
    return Captured("/events", body, {"x-signature": sign(KEY, body), **headers})


def plain_and_named(player: str) -> Captured:
    return plain(player, named=True)


def plain_with_a_key(player: str) -> Captured:
    return plain(player, **{"idempotency-key": player})


def as_it_is(captured: Captured) -> Captured:
    return captured


def under_another_key(captured: Captured) -> Captured:
    return captured._replace(headers={**captured.headers, "idempotency-key": f"another-{time.time_ns()}"})


def without_its_key(captured: Captured) -> Captured:
    return captured._replace(headers={name: value for name, value in captured.headers.items() if name != "idempotency-key"})


def at_another_path(captured: Captured) -> Captured:
    return captured._replace(path="/events/batch")


def said_to_be_packed(captured: Captured) -> Captured:
    return captured._replace(headers={**captured.headers, "content-encoding": "gzip"})


def said_to_be_packed_otherwise(captured: Captured) -> Captured:
    return captured._replace(headers={**captured.headers, "content-encoding": "X-GZIP"})


def unstamped(captured: Captured) -> Captured:
    """Its signature is also that of a body with the stamp behind it."""
    stamp = captured.headers["x-timestamp"].encode()
    return captured._replace(body=captured.body + b"." + stamp, headers={"x-signature": captured.headers["x-signature"]})


def as_a_body_of_the_original_scheme(captured: Captured) -> Captured:
    """What a webhook's signature signs, as a body with the same signature in hex."""
    message_id, stamp, signature = captured.headers.values()
    message = f"{message_id}.{stamp}.".encode() + captured.body
    return captured._replace(body=message, headers={"x-signature": base64.b64decode(signature.removeprefix("v1,")).hex()})


def packed_webhook(player: str) -> Captured:
    body = gzip.compress(_event(player, named=False))
    return Captured("/events", body, {"content-encoding": "gzip"} | sign_webhook(KEY, body, player, int(time.time())))


Claim = tuple[Callable[[str], Captured], Callable[[Captured], Captured], Sent]

IN_BOTH_MODES: list[Claim] = [
    (webhook, as_it_is, Sent(202, 409, 1)),
    (webhook, under_another_key, Sent(202, 409, 1)),
    (webhook, at_another_path, Sent(202, 422, 1)),
    (webhook, said_to_be_packed, Sent(202, 400, 1)),
    (webhook, as_a_body_of_the_original_scheme, Sent(202, 401, 1)),
    (packed_webhook, said_to_be_packed_otherwise, Sent(202, 409, 1)),
    (stamped_and_named, as_it_is, Sent(202, 202, 1)),
    (stamped_and_named, under_another_key, Sent(202, 202, 1)),
    (stamped_and_named, at_another_path, Sent(202, 202, 1)),
    (stamped_and_named, said_to_be_packed, Sent(202, 400, 1)),
    (stamped_and_named, unstamped, Sent(202, 401, 1)),
]
SIGNED = [
    *IN_BOTH_MODES,
    (stamped, as_it_is, Sent(400, 400, 0)),
    (stamped_with_a_key, as_it_is, Sent(400, 400, 0)),
    (plain, as_it_is, Sent(400, 400, 0)),
    (plain_and_named, as_it_is, Sent(400, 400, 0)),
]
COMPATIBLE = [
    *IN_BOTH_MODES,
    (stamped, as_it_is, Sent(202, 409, 1)),
    (stamped, under_another_key, Sent(202, 409, 1)),
    (stamped, at_another_path, Sent(202, 409, 1)),
    (stamped, unstamped, Sent(202, 401, 1)),
    (stamped_with_a_key, as_it_is, Sent(202, 409, 1)),
    (stamped_with_a_key, under_another_key, Sent(202, 409, 1)),
    (stamped_with_a_key, without_its_key, Sent(202, 409, 1)),
    (stamped_with_a_key, at_another_path, Sent(202, 422, 1)),
    (plain_and_named, as_it_is, Sent(202, 202, 1)),
    (plain_with_a_key, as_it_is, Sent(202, 409, 1)),
    # What this mode does not protect from.
    (plain, as_it_is, Sent(202, 202, 2)),
    (plain, at_another_path, Sent(202, 202, 2)),
    (plain_with_a_key, under_another_key, Sent(202, 202, 2)),
    (plain_with_a_key, without_its_key, Sent(202, 202, 2)),
]
WITHOUT_REDIS = [
    (webhook, as_it_is, Sent(202, 202, 1)),
    (webhook, under_another_key, Sent(202, 202, 1)),
    (webhook, at_another_path, Sent(202, 202, 1)),
    (stamped_and_named, as_it_is, Sent(202, 202, 1)),
    (stamped_and_named, under_another_key, Sent(202, 202, 1)),
]
SIGNED_WITHOUT_REDIS = WITHOUT_REDIS
COMPATIBLE_WITHOUT_REDIS = [
    *WITHOUT_REDIS,
    (stamped_with_a_key, as_it_is, Sent(202, 202, 1)),
    (plain_with_a_key, as_it_is, Sent(202, 202, 1)),
    # What this mode does not protect from while Redis is away.
    (stamped, as_it_is, Sent(202, 202, 2)),
    (stamped_with_a_key, under_another_key, Sent(202, 202, 2)),
]


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedRedis(Settings(data_dir=tmp_path_factory.mktemp("redis"), _env_file=None)) as server:
        yield server.url


@contextmanager
def ready(folder: Path, redis_url: str = "", **environment: str) -> Iterator[Service]:
    """A service, connected to its Redis where it has one."""
    with service(folder, FAIRBOARD_REDIS_URL=redis_url or "redis://127.0.0.1:1", **environment) as started:
        if redis_url:
            wait_until(lambda: started.http.get("/readyz").json()["status"] == "ready", "Redis is there")
        yield started


def send(to: Service, captured: Captured, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return to.http.post(captured.path, content=captured.body, headers={"x-key-id": KEY_ID, **captured.headers, **named})


def tried(folder: Path, claims: list[Claim], redis_url: str, **environment: str) -> list[Sent]:
    """What became of each captured request that was sent again."""
    statuses: list[tuple[int, int]] = []
    with ready(folder, redis_url, **environment) as running:
        for number, (capture, change, _) in enumerate(claims):
            captured = capture(f"{folder.parent.name}-{number}")
            statuses.append((send(running, captured).status_code, send(running, change(captured)).status_code))
    events = running.events()
    counted = dict(events.group_by("player_id").n_unique().select("player_id", "event_id").iter_rows())
    return [Sent(*both, counted.get(f"{folder.parent.name}-{number}", 0)) for number, both in enumerate(statuses)]


def _described(claims: list[Claim], outcomes: list[Sent]) -> list[str]:
    pairs = zip(claims, outcomes, strict=True)
    return [f"{capture.__name__} {change.__name__}: {outcome}" for (capture, change, _), outcome in pairs]


@pytest.mark.parametrize(
    ("identity", "claims", "has_redis"),
    [
        ("signed", SIGNED, True),
        ("signed", SIGNED_WITHOUT_REDIS, False),
        ("compatible", COMPATIBLE, True),
        ("compatible", COMPATIBLE_WITHOUT_REDIS, False),
    ],
)
def test_a_captured_request_counts_as_often_as_the_documentation_says(
    tmp_path: Path, identity: str, claims: list[Claim], has_redis: bool, redis_url: str
) -> None:
    outcomes = tried(tmp_path / "data", claims, redis_url if has_redis else "", FAIRBOARD_IDENTITY=identity)
    assert _described(claims, outcomes) == _described(claims, [expected for _, _, expected in claims])


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[Service]:
    """Behind a proxy on this machine; five requests in an hour."""
    folder = tmp_path_factory.mktemp("production") / "data"
    limits = {"FAIRBOARD_RATE_LIMIT": "5", "FAIRBOARD_RATE_WINDOW_S": "3600", **PROXY}
    with ready(folder, redis_url, FAIRBOARD_PROFILE="production", **limits) as started:
        yield started


@pytest.mark.parametrize("capture", [webhook, stamped_and_named])
def test_whoever_changes_a_signed_part_or_waits_too_long_is_refused(
    production: Service, capture: Callable[[str], Captured]
) -> None:
    captured = capture("forged")
    changes = [captured._replace(body=captured.body.replace(b"10", b"99"))]
    for name, value in captured.headers.items():
        other = str(int(value) + 1) if "timestamp" in name else value[:-2] + ("00" if value[-2:] != "00" else "11")
        changes.append(captured._replace(headers={**captured.headers, name: other}))
    for age_s in (-TOLERANCE_S - 60, TOLERANCE_S + 60):
        at = int(time.time()) - age_s
        old = sign_webhook(KEY, captured.body, "old", at) if capture is webhook else {}
        old = old or {"x-signature": sign(KEY, captured.body, at), "x-timestamp": str(at)}
        changes.append(captured._replace(headers=old))
    answers = [send(production, one, x_forwarded_for=f"192.0.2.{n}").status_code for n, one in enumerate(changes)]
    assert answers == [401] * len(changes)
    assert send(production, captured, x_key_id="nobody", x_forwarded_for="192.0.2.99").status_code == 401
    assert send(production, captured, x_forwarded_for="192.0.2.100").status_code == 202


def test_two_bodies_under_one_name_are_two_requests_and_none_is_lost(tmp_path: Path, redis_url: str) -> None:
    bodies, now = [_event(player, named=False) for player in ("a", "b")], int(time.time())
    requests = [Captured("/events", body, sign_webhook(KEY, body, "one-name", now)) for body in bodies]
    requests += [Captured("/events", body, {"x-signature": sign(KEY, body), "idempotency-key": "one-name"}) for body in bodies]
    with ready(tmp_path / "remembered", redis_url) as running:
        assert [send(running, one).status_code for one in requests] == [202, 422, 202, 422]
    with ready(tmp_path / "forgotten") as running:
        assert [send(running, one).status_code for one in requests] == [202, 202, 202, 202]
    assert running.events()["event_id"].n_unique() == 4


@pytest.mark.parametrize("keys", ["a:one-secret,b:one-secret", "a:whsec_b25lLXNlY3JldA==,b:one-secret", "a:whsec_no base64"])
def test_two_ids_with_one_secret_and_a_secret_that_is_none_are_refused_at_the_start(tmp_path: Path, keys: str) -> None:
    environment = os.environ | {"FAIRBOARD_DATA_DIR": str(tmp_path / "data"), "FAIRBOARD_HMAC_KEYS": keys}
    command = [sys.executable, "-m", "ingest_api", "--port", "0"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 1
    assert "'a'" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_id_is_of_all_keys_together(tmp_path: Path, redis_url: str) -> None:
    keys = f"{KEY_ID}:{SECRET},other:another-secret"
    with ready(tmp_path / "data", redis_url, FAIRBOARD_HMAC_KEYS=keys) as running:
        taken, late = (json.dumps(progression("taken", xp, eventId="taken")).encode() for xp in (1, 2))
        assert send(
            running, Captured("/events", taken, {"x-signature": sign(b"another-secret", taken)}), x_key_id="other"
        ).is_success
        refused = send(running, Captured("/events", late, {"x-signature": sign(KEY, late)}))
        assert refused.status_code == 400
        assert refused.json()["field"] == "eventId"
    assert sorted(running.events()["player_id"]) == ["taken"]


def test_without_redis_a_service_that_is_set_to_stay_closed_accepts_nothing(tmp_path: Path) -> None:
    with ready(tmp_path / "data", FAIRBOARD_REDIS_AWAY="closed") as running:
        assert send(running, webhook("closed")).status_code == 503


def test_pages_about_the_service_are_for_this_machine_and_read_keys_in_production(production: Service) -> None:
    def status(page: str, **headers: str) -> int:
        return production.http.get(page, headers=headers).status_code

    reader = {"authorization": f"Bearer {make_key(production.settings, 'monitor', 'read')}"}
    for number, page in enumerate(("/metrics", "/openapi.json")):
        outside = {"x-forwarded-for": f"127.0.0.1, 203.0.113.{number}"}  # the client may say what it likes; the proxy adds it
        assert (status(page), status(page, **outside)) == (200, 401)
        wait_until(lambda: status(page, **outside, **reader) == 200, "the read key is known")  # noqa: B023 - called here
    for page in ("/healthz", "/readyz"):
        answer = production.http.get(page, headers=outside)
        assert answer.status_code == 200
        assert str(production.folder.parent) not in answer.text


def test_a_network_of_ipv6_is_one_client_and_a_mapped_address_is_its_ipv4(production: Service) -> None:
    def statuses(*addresses: str) -> list[int]:
        sent = [webhook(f"{time.time_ns()}") for _ in addresses]
        return [
            send(production, one, x_forwarded_for=address).status_code for one, address in zip(sent, addresses, strict=True)
        ]

    assert statuses(*(f"2001:db8::{n}:1" for n in range(6))) == [202] * 5 + [429]
    assert statuses("2001:db8:0:1::1") == [202]
    assert statuses(*(f"{prefix}198.51.100.7" for prefix in ("", "::ffff:") * 3)) == [202] * 5 + [429]


def test_refused_requests_are_counted_by_address_and_take_nothing_from_who_has_a_key(production: Service) -> None:
    def refused() -> int:
        return send(production, webhook("guess"), x_forwarded_for="203.0.113.77", x_key_id="guess").status_code

    wait_until(lambda: refused() == 429, "guessing has an end")
    assert send(production, webhook("honest"), x_forwarded_for="203.0.113.77").status_code == 202
