#!/usr/bin/env bash
# Send one event to Fairboard, stamped and signed. curl and openssl.
#   URL=http://127.0.0.1:8080 KEY_ID=demo SECRET=… bash send.sh
set -euo pipefail

now=$(date +%s)
id="sh-$now-$$"  # the same event again is counted once
body='{"eventId":"'$id'","type":"progression","playerId":"player_12345","ts":'$now',"payload":{"deltaXp":150,"activity":"quest_completion"}}'
signature=$(printf '%s.%s' "$body" "$now" | openssl dgst -sha256 -hmac "$SECRET" | sed 's/^.* //')

curl --silent --show-error --fail-with-body "$URL/events" \
  --header 'Content-Type: application/json' \
  --header "X-Key-Id: $KEY_ID" \
  --header "X-Timestamp: $now" \
  --header "X-Signature: $signature" \
  --data-binary "$body"
