# ruff: noqa: D101, D103, N815, FAST002 - written as plainly as such services are
"""The same contract, plainly: FastAPI, pydantic, redis-py asked per request, a durable SQLite commit per request."""

import hashlib
import hmac
import os
import sqlite3
import time
from typing import Any, Literal

import redis.asyncio as redis
from fastapi import FastAPI, Header, HTTPException, Request
from pydantic import BaseModel, ValidationError


class Payload(BaseModel):
    deltaXp: int
    activity: str


class Event(BaseModel):
    type: Literal["progression", "boss_kill", "drop_claimed"]
    playerId: str
    ts: int
    payload: Payload


app = FastAPI()
store = redis.Redis.from_url(f"redis://{os.environ['REDIS']}/0")
secret = os.environ["SECRET"].encode()
journal = sqlite3.connect(os.environ["JOURNAL"], isolation_level=None, check_same_thread=False)
journal.execute("PRAGMA journal_mode = WAL")
journal.execute("PRAGMA synchronous = FULL")
journal.execute("CREATE TABLE IF NOT EXISTS events (body BLOB)")


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "alive"}


@app.post("/events", status_code=202)
async def events(
    request: Request, x_signature: str = Header(), x_timestamp: str = Header(), idempotency_key: str = Header()
) -> dict[str, Any]:
    body = await request.body()
    expected = hmac.new(secret, body + b"." + x_timestamp.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, x_signature) or abs(time.time() - int(x_timestamp)) > 300:
        raise HTTPException(401, "signature")
    assert request.client is not None
    window = f"rate_limit:{request.client.host}:{int(time.time()) // 60}"
    async with store.pipeline(transaction=False) as pipeline:
        pipeline.incr(window)
        pipeline.expire(window, 120)
        pipeline.get(f"idempotency:{idempotency_key}")
        count, _, known = await pipeline.execute()
    if count > 1_000_000_000:
        raise HTTPException(429, "rate limit")
    if known is not None:
        raise HTTPException(409, "already processed")
    try:
        Event.model_validate_json(body)
    except ValidationError as error:
        raise HTTPException(400, str(error)) from None
    journal.execute("INSERT INTO events VALUES (?)", (body,))
    await store.set(f"idempotency:{idempotency_key}", hashlib.sha256(body).hexdigest(), ex=300)
    return {"accepted": 1, "duplicates": 0, "rejected": 0, "errors": []}
