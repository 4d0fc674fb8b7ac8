"""A client for our own callers: signs, stamps, sends, and tries again without counting anything twice.

What does not belong here: anything a game server would need beyond this; `examples/clients/` has that in other languages.
"""

import time
import uuid
from typing import Any, Final, Self

import httpx
import msgspec

from ingest_api.admission import Answer
from ingest_api.problems import ProblemDocument
from ingest_api.signature import secret_bytes, sign_webhook
from warehouse.errors import FairboardError, StoreUnavailable

_TRIES: Final = 6
_FIRST_PAUSE_S: Final = 0.2
_LATER = (429, 503)

BatchAnswer = Answer


class RequestRefused(FairboardError):
    """The service refused the request as a whole; `problem` is its document."""

    def __init__(self, problem: ProblemDocument) -> None:
        self.problem = problem
        super().__init__(f"{problem.status} {problem.title}: {problem.detail}")


class SignedClient:
    """Sends events signed as Standard Webhooks has it. One connection pool; close it, or use it in a `with`."""

    def __init__(self, base_url: str, key_id: str, secret: str, timeout_s: float = 30) -> None:
        self._http = httpx.Client(base_url=base_url, timeout=timeout_s, trust_env=False)
        self._key_id = key_id
        self._secret = secret_bytes(secret)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def post_batch(self, events: list[dict[str, Any]] | bytes, message_id: str | None = None) -> BatchAnswer:
        """Send events: a list, or a body that is a JSON array or NDJSON. Without a message id, one is made for its own retries.

        Raises:
            RequestRefused: the request as a whole was refused.
            StoreUnavailable: the service cannot be reached, or accepts nothing now, after several tries.
        """
        return self._post("/events/batch", events if isinstance(events, bytes) else msgspec.json.encode(events), message_id)

    def _post(self, path: str, body: bytes, message_id: str | None) -> BatchAnswer:
        message_id = message_id or str(uuid.uuid4())
        pause_s, reason = _FIRST_PAUSE_S, ""
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(pause_s)
                pause_s *= 2
            try:
                response = self._http.post(path, content=body, headers=self._headers(body, message_id))
            except httpx.TransportError as error:
                reason = repr(error)
                continue
            if response.status_code not in _LATER:
                return _answer(response)
            reason = response.text
        raise StoreUnavailable(f"{self._http.base_url} took nothing in {_TRIES} tries; send it again later. Last: {reason}")

    def _headers(self, body: bytes, message_id: str) -> dict[str, str]:
        given = {"content-type": "application/json", "x-key-id": self._key_id}
        return given | sign_webhook(self._secret, body, message_id, int(time.time()))


def _answer(response: httpx.Response) -> BatchAnswer:
    if response.headers.get("content-type") == "application/problem+json":
        raise RequestRefused(msgspec.json.decode(response.content, type=ProblemDocument))
    # A 409 with an answer in it is an earlier try of ours that had arrived.
    return msgspec.json.decode(response.content, type=BatchAnswer)
