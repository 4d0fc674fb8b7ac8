# ruff: noqa: INP001
"""Send an event to Fairboard, signed as Standard Webhooks has it. Python, standard library only.

URL=http://127.0.0.1:8080 KEY_ID=demo SECRET=whsec_… python send.py

With the package `standardwebhooks` the signature is
Webhook(secret).sign(message_id, datetime.fromtimestamp(timestamp, timezone.utc), body.decode()).
"""

import base64
import hmac
import json
import os
import time
import urllib.error
import urllib.request
import uuid


def secret_bytes(secret: str) -> bytes:
    """What a secret signs with: `whsec_` and base64, as `fairboard keys make` prints it; any other is its own text."""
    return base64.b64decode(secret.removeprefix("whsec_")) if secret.startswith("whsec_") else secret.encode()


def send(path: str, body: bytes) -> tuple[int, str]:
    """POST a body until it is answered. Returns the status and the answer.

    The message id names the request, and the events in it that have no eventId: so a retry counts once.
    """
    message_id = str(uuid.uuid4())
    for attempt in range(6):
        timestamp = int(time.time())  # anew for each try, as a signature is valid for 5 minutes
        mac = hmac.digest(secret_bytes(os.environ["SECRET"]), f"{message_id}.{timestamp}.".encode() + body, "sha256")
        headers = {
            "Content-Type": "application/json",
            "X-Key-Id": os.environ["KEY_ID"],
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": "v1," + base64.b64encode(mac).decode(),
        }
        pause_s = 2.0**attempt
        request = urllib.request.Request(os.environ["URL"] + path, body, headers)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
                return response.status, response.read().decode()
        except urllib.error.HTTPError as error:
            if error.code not in (408, 429, 503):
                return error.code, error.read().decode()
            pause_s = float(error.headers.get("Retry-After", pause_s))
        except OSError:
            pass  # no answer: it may have arrived or not
        time.sleep(pause_s)
    raise SystemExit("It was not answered; send it again later, with the same webhook-id.")


event = {
    "type": "progression",
    "playerId": "player_12345",
    "ts": int(time.time()),
    "payload": {"deltaXp": 150, "activity": "quest_completion"},
}
status, answer = send("/events", json.dumps(event).encode())
print(status, answer)  # noqa: T201
if status not in (202, 409):  # 409: an earlier try had arrived; this is its answer
    raise SystemExit(1)
