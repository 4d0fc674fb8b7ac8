"""What Redis adds at the door: idempotency, replay, rate limit; and what happens without it."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis as client

from ingest_api.signature import sign, sign_webhook
from tests.ingest_fixtures import KEY_ID, SECRET, Service, progression, service, wait_until
from warehouse.embedded_redis import EmbeddedRedis
from warehouse.settings import Settings


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(Settings(data_dir=tmp_path_factory.mktemp("redis"), _env_file=None)) as started:
        yield started


@pytest.fixture(scope="module")
def running(redis: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("ingest") / "data", FAIRBOARD_REDIS_URL=redis.url) as started:
        wait_until(lambda: _status(started) == "ready", "Redis is connected")
        yield started


def _status(running: Service) -> str:
    return running.http.get("/readyz").json()["status"]


def _body(**fields: object) -> bytes:
    return json.dumps(progression(**fields)).encode()


def _webhook(body: bytes, message_id: str, now: int | None = None) -> dict[str, str]:
    signed = sign_webhook(SECRET.encode(), body, message_id, int(time.time()) if now is None else now)
    return {name.replace("-", "_"): value for name, value in signed.items()} | {"x_signature": "", "x_key_id": KEY_ID}


def _stamped(body: bytes, now: int | None = None) -> dict[str, str]:
    now = int(time.time()) if now is None else now
    return {"x_signature": sign(SECRET.encode(), body, now), "x_timestamp": str(now), "x_key_id": KEY_ID}


@pytest.mark.parametrize("path", ["/events", "/events/batch"])
def test_the_same_key_again_is_a_409_with_the_first_answer(running: Service, path: str) -> None:
    body = _body()
    first = running.post(path, body, idempotency_key=f"again {path}")
    again = running.post(path, body, idempotency_key=f"again {path}")
    assert (first.status_code, again.status_code) == (202, 409)
    assert again.json() == first.json() == {"accepted": 1, "duplicates": 0, "rejected": 0, "errors": []}


def test_of_many_at_once_with_the_same_key_one_is_accepted(running: Service) -> None:
    for n in range(20):  # some meet in one group, some in the one that asks while the first is being answered
        body, key = _body(player=f"crowd_{n}"), f"crowd {n}"
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _, body=body, key=key: running.post("/events", body, idempotency_key=key), range(8)))
        assert sorted(answer.status_code for answer in answers) == [202] + [409] * 7
        assert len({answer.content for answer in answers}) == 1


def test_the_same_key_with_another_body_or_path_is_a_422(running: Service) -> None:
    body = _body()
    assert running.post("/events", body, idempotency_key="other").status_code == 202
    assert running.post("/events", _body(xp=77), idempotency_key="other").status_code == 422
    assert running.post("/events/batch", body, idempotency_key="other").status_code == 422


def test_the_setting_replay_answers_as_the_first_time(redis: EmbeddedRedis, tmp_path: Path) -> None:
    settings = {"FAIRBOARD_REDIS_URL": redis.url, "FAIRBOARD_IDEMPOTENCY": "replay"}
    with service(tmp_path / "data", **settings) as running:
        wait_until(lambda: _status(running) == "ready", "Redis is connected")
        body = _body()
        answers = [running.post("/events", body, idempotency_key="replayed") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [202] * 3
        assert len({answer.content for answer in answers}) == 1
        running.stop()
        assert running.events().height == 1


def test_a_refused_event_may_come_again_corrected_under_its_key(running: Service) -> None:
    assert running.post("/events", _body(xp=1.5), idempotency_key="corrected").status_code == 400
    assert running.post("/events", _body(xp=1), idempotency_key="corrected").status_code == 202


def test_a_stamped_request_is_refused_when_replayed(running: Service) -> None:
    body = _body()
    headers = _stamped(body)
    assert running.post("/events", body, **headers).status_code == 202
    replayed = running.post("/events", body, **headers)
    assert replayed.status_code == 409
    assert replayed.json()["type"].endswith(":replay")
    shouted = headers | {"x_signature": headers["x_signature"].upper()}
    assert running.post("/events", body, **shouted).status_code == 409


def test_a_request_that_names_itself_may_be_repeated(running: Service) -> None:
    body = _body(eventId="named-1")
    headers = _stamped(body)
    assert running.post("/events", body, **headers).json()["accepted"] == 1
    assert running.post("/events", body, **headers).json()["duplicates"] == 1


def test_a_replay_out_of_tolerance_is_a_401(running: Service) -> None:
    body = _body()
    assert running.post("/events", body, **_stamped(body, int(time.time()) - 301)).status_code == 401
    assert running.post("/events", body, **_stamped(body, int(time.time()) + 302)).status_code == 401


@pytest.mark.parametrize(
    ("proxies", "forwarded", "count"),
    [("", "10.1.1.{}", 3), ("127.0.0.0/8", "10.1.1.{}", 6), ("127.0.0.1", "{}.9.9.9, 10.5.5.5", 3)],
)
def test_the_rate_limit_counts_by_client_and_believes_only_trusted_proxies(
    redis: EmbeddedRedis, tmp_path: Path, proxies: str, forwarded: str, count: int
) -> None:
    settings = {"FAIRBOARD_RATE_LIMIT": "3", "FAIRBOARD_RATE_WINDOW_S": "3600", "FAIRBOARD_TRUSTED_PROXIES": proxies}
    settings["FAIRBOARD_HMAC_KEYS"] = f"limited-{count}-{len(proxies)}:{SECRET}"
    with service(tmp_path / "data", FAIRBOARD_REDIS_URL=redis.url, **settings) as running:
        wait_until(lambda: _status(running) == "ready", "Redis is connected")
        answers = [running.post("/events", _body(), x_forwarded_for=forwarded.format(n)) for n in range(1, 7)]
        assert [answer.status_code for answer in answers].count(202) == count
        assert answers[0].headers["ratelimit-policy"] == '"requests";q=3;w=3600'
        assert answers[0].headers["ratelimit"].startswith('"requests";r=2;t=')
        if count == 3:
            assert answers[-1].status_code == 429
            assert int(answers[-1].headers["retry-after"]) > 0
            assert answers[-1].headers["ratelimit"].startswith('"requests";r=0;t=')


def test_a_stamped_request_refused_by_the_limit_may_come_again(redis: EmbeddedRedis, tmp_path: Path) -> None:
    settings = {"FAIRBOARD_RATE_LIMIT": "1", "FAIRBOARD_RATE_WINDOW_S": "2", "FAIRBOARD_REDIS_URL": redis.url}
    with service(tmp_path / "data", **settings, FAIRBOARD_HMAC_KEYS=f"again:{SECRET}") as running:
        wait_until(lambda: _status(running) == "ready", "Redis is connected")
        seen = []
        for n in range(6):
            body = _body(xp=n)
            headers = _stamped(body) | {"x_key_id": "again"}
            seen.append(running.post("/events", body, **headers).status_code)
            if seen[-1] == 429:
                break
        assert seen[-1] == 429
        later = time.monotonic() + 2 * 2.1  # a refused request counts as well, so its client comes back two windows later
        wait_until(lambda: time.monotonic() > later, "the windows are over")
        assert running.post("/events", body, **headers).status_code == 202
        assert running.post("/events", body, **headers).status_code == 409


def test_no_field_reaches_a_redis_key_as_it_came(running: Service, redis: EmbeddedRedis) -> None:
    tricky = "a\tb c*{x}:lb:2026-11:weekly"
    assert running.post("/events", _body(player=tricky.replace("\t", "")), idempotency_key=tricky).status_code == 400
    assert running.post("/events", _body(player="lb:x"), idempotency_key=tricky.replace("\t", "")).status_code == 202
    with client.Redis.from_url(redis.url, decode_responses=True) as connection:
        kinds = {key.partition(":")[0] for key in connection.scan_iter()}
        assert kinds <= {"idempotency", "replay", "rate_limit"}
        assert all(connection.ttl(key) > 0 for key in connection.scan_iter())


def test_without_redis_events_are_accepted_and_nothing_is_counted_twice_when_it_returns(tmp_path: Path) -> None:
    redis = EmbeddedRedis(Settings(data_dir=tmp_path / "data", _env_file=None))
    redis.start()
    with service(tmp_path / "data") as running:
        wait_until(lambda: _status(running) == "ready", "Redis is connected")
        bodies = [_body(xp=n) for n in range(6)]
        assert running.post("/events", bodies[0], idempotency_key="n-0").status_code == 202
        redis.stop()
        wait_until(lambda: _status(running) == "degraded", "the loss is noticed")
        for n in range(1, 5):
            assert running.post("/events", bodies[n], idempotency_key=f"n-{n}").status_code == 202
        assert running.post("/events", bodies[0], idempotency_key="n-0").status_code == 202
        assert 'without_redis_total{worker="000"} 0' not in running.http.get("/metrics").text
        redis.start()
        wait_until(lambda: _status(running) == "ready", "Redis is connected again")
        for n in range(6):
            assert running.post("/events", bodies[n], idempotency_key=f"n-{n}").status_code in (202, 409)
        running.stop()
        assert "redis.away" in running.log()
        events = running.events()
        assert events["event_id"].n_unique() == 6
    redis.stop()


def test_set_to_closed_it_refuses_without_redis_and_recovers(tmp_path: Path) -> None:
    with service(tmp_path / "data", FAIRBOARD_REDIS_AWAY="closed") as running:
        refused = running.post("/events", _body())
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert running.http.get("/readyz").status_code == 503
        with EmbeddedRedis(Settings(data_dir=tmp_path / "data", _env_file=None)):
            wait_until(lambda: running.http.get("/readyz").status_code == 200, "Redis is found")
            assert running.post("/events", _body()).status_code == 202
        running.stop()


def test_production_refuses_what_is_not_stamped_or_not_named_by_what_is_signed(tmp_path: Path) -> None:
    with service(tmp_path / "data", FAIRBOARD_PROFILE="production") as running:
        body, named = _body(), _body(eventId="named")
        unstamped = [running.post("/events", body), running.post("/events", named, idempotency_key="named")]
        assert {answer.status_code for answer in unstamped} == {400}
        assert {answer.json()["type"] for answer in unstamped} == {"urn:fairboard:problem:unstamped"}
        for unnamed in (_stamped(body), _stamped(body) | {"idempotency_key": "key"}):
            answer = running.post("/events", body, **unnamed)
            assert (answer.status_code, answer.json()["type"]) == (400, "urn:fairboard:problem:unnamed")
            assert "webhook-id" in answer.json()["detail"]
        assert running.post("/events", named, **_stamped(named)).status_code == 202
        assert running.post("/events", body, **_webhook(body, "msg_1")).status_code == 202
        assert all(json.loads(line)["event"] for line in running.log().splitlines())
        assert SECRET not in running.log()
