// Send one event to Fairboard, stamped and signed. Node 18 or newer, no packages.
//   URL=http://127.0.0.1:8080 KEY_ID=demo SECRET=… node send.mjs
import { createHmac, randomUUID } from "node:crypto";

const { URL: url, KEY_ID, SECRET } = process.env;
const now = Math.floor(Date.now() / 1000);
const body = JSON.stringify({
  eventId: randomUUID(), // the same event again is counted once
  type: "progression",
  playerId: "player_12345",
  ts: now,
  payload: { deltaXp: 150, activity: "quest_completion" },
});
const signature = createHmac("sha256", SECRET).update(`${body}.${now}`).digest("hex");

const response = await fetch(`${url}/events`, {
  method: "POST",
  headers: {
    "Content-Type": "application/json",
    "X-Key-Id": KEY_ID,
    "X-Timestamp": String(now),
    "X-Signature": signature,
  },
  body,
});
console.log(response.status, await response.text());
process.exitCode = response.ok ? 0 : 1;
