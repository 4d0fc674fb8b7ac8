// Send an event to Fairboard, signed as Standard Webhooks has it. Node 18 or newer, no packages.
//   URL=http://127.0.0.1:8080 KEY_ID=demo SECRET=whsec_… node send.mjs
// With the package `standardwebhooks` the signature is new Webhook(SECRET).sign(id, new Date(timestamp * 1000), body).
import { createHmac, randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

const { URL: url, KEY_ID, SECRET } = process.env;

// What a secret signs with: whsec_ and base64, as `fairboard keys make` prints it; any other is its own text.
const key = SECRET.startsWith("whsec_") ? Buffer.from(SECRET.slice("whsec_".length), "base64") : SECRET;

// POST a body until it is answered. The message id names the request, and the events in it that have no eventId:
// so a retry counts once.
async function send(path, body) {
  const id = randomUUID();
  for (let attempt = 0; attempt < 6; attempt++) {
    const timestamp = Math.floor(Date.now() / 1000); // anew for each try, as a signature is valid for 5 minutes
    const signature = createHmac("sha256", key).update(`${id}.${timestamp}.${body}`).digest("base64");
    let pause = 2 ** attempt;
    try {
      const response = await fetch(url + path, {
        method: "POST",
        headers: {
          "Content-Type": "application/json",
          "X-Key-Id": KEY_ID,
          "webhook-id": id,
          "webhook-timestamp": String(timestamp),
          "webhook-signature": `v1,${signature}`,
        },
        body,
        signal: AbortSignal.timeout(30_000),
      });
      const answer = await response.text();
      if (![408, 429, 503].includes(response.status)) return [response.status, answer];
      pause = Number(response.headers.get("Retry-After") ?? pause);
    } catch (error) {
      console.error(`No answer (${error.cause ?? error}): it may have arrived or not.`);
    }
    await sleep(pause * 1000);
  }
  throw new Error("It was not answered; send it again later, with the same webhook-id.");
}

const event = {
  type: "progression",
  playerId: "player_12345",
  ts: Math.floor(Date.now() / 1000),
  payload: { deltaXp: 150, activity: "quest_completion" },
};
const [status, answer] = await send("/events", JSON.stringify(event));
console.log(status, answer);
process.exitCode = status === 202 || status === 409 ? 0 : 1; // 409: an earlier try had arrived; this is its answer
