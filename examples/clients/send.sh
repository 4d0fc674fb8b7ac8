#!/usr/bin/env bash
# Send an event to Fairboard, signed as Standard Webhooks has it. curl and openssl.
#   URL=http://127.0.0.1:8080 KEY_ID=demo SECRET=whsec_… bash send.sh
# (While openssl runs, the list of processes shows the secret: on a machine of your own only.)
set -euo pipefail

# What a secret signs with: whsec_ and base64, as `fairboard keys make` prints it; any other is its own text.
secret_bytes() {
  case $SECRET in
    whsec_*) printf %s "${SECRET#whsec_}" | openssl base64 -d -A ;;
    *) printf %s "$SECRET" ;;
  esac
}
key=$(secret_bytes | od -An -v -tx1 | tr -d ' \n')

# POST a body until it is answered. The message id names the request, and the events in it that have no eventId:
# so a retry counts once.
send() {
  local path=$1 body=$2 id pause=1 timestamp signature status
  id=$(openssl rand -hex 16)
  for _ in 1 2 3 4 5 6; do
    timestamp=$(date +%s)  # anew for each try, as a signature is valid for 5 minutes
    signature=$(printf '%s.%s.%s' "$id" "$timestamp" "$body" |
      openssl dgst -sha256 -mac HMAC -macopt "hexkey:$key" -binary | openssl base64 -A)
    status=$(curl --silent --show-error --max-time 30 --output "$answer" --write-out '%{http_code}' "$URL$path" \
      --header 'Content-Type: application/json' \
      --header "X-Key-Id: $KEY_ID" \
      --header "webhook-id: $id" \
      --header "webhook-timestamp: $timestamp" \
      --header "webhook-signature: v1,$signature" \
      --data-binary "$body") || status=000  # no answer: it may have arrived or not
    case $status in
      000 | 408 | 429 | 503) sleep $pause; pause=$((pause * 2)) ;;
      *) echo "$status $(cat "$answer")"
         case $status in 202 | 409) return 0 ;; *) return 1 ;; esac ;;  # 409: an earlier try had arrived; this is its answer
    esac
  done
  echo "It was not answered; send it again later, with the same webhook-id." >&2
  return 1
}

answer=$(mktemp)
trap 'rm -f "$answer"' EXIT
send /events '{"type":"progression","playerId":"player_12345","ts":'"$(date +%s)"',"payload":{"deltaXp":150,"activity":"quest_completion"}}'
