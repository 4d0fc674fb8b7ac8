# ruff: noqa: INP001
"""Send one event to Fairboard, stamped and signed. Python, standard library only.

URL=http://127.0.0.1:8080 KEY_ID=demo SECRET=… python send.py
"""

import hashlib
import hmac
import json
import os
import time
import urllib.request
import uuid

event = {
    "eventId": str(uuid.uuid4()),  # the same event again is counted once
    "type": "progression",
    "playerId": "player_12345",
    "ts": int(time.time()),
    "payload": {"deltaXp": 150, "activity": "quest_completion"},
}
body = json.dumps(event).encode()
timestamp = str(int(time.time()))
signature = hmac.new(os.environ["SECRET"].encode(), body + b"." + timestamp.encode(), hashlib.sha256).hexdigest()

request = urllib.request.Request(  # noqa: S310
    os.environ["URL"] + "/events",
    data=body,
    headers={
        "Content-Type": "application/json",
        "X-Key-Id": os.environ["KEY_ID"],
        "X-Timestamp": timestamp,
        "X-Signature": signature,
    },
)
with urllib.request.urlopen(request) as response:  # noqa: S310
    print(response.status, response.read().decode())  # noqa: T201
