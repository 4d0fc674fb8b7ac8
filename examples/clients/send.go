// Send an event to Fairboard, signed as Standard Webhooks has it. Go, standard library only.
//
//	URL=http://127.0.0.1:8080 KEY_ID=demo SECRET=whsec_… go run send.go
//
// With github.com/standard-webhooks/standard-webhooks/libraries/go the signature is webhook.Sign(id, now, body).
package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// What a secret signs with: whsec_ and base64, as `fairboard keys make` prints it; any other is its own text.
func secretBytes(secret string) []byte {
	if !strings.HasPrefix(secret, "whsec_") {
		return []byte(secret)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		log.Fatal(err)
	}
	return key
}

// POST a body until it is answered.
//
// The message id names the request, and the events in it that have no eventId: so a retry counts once.
func send(path string, body []byte) (int, string) {
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		log.Fatal(err)
	}
	id := hex.EncodeToString(random)
	for attempt := 0; attempt < 6; attempt++ {
		timestamp := strconv.FormatInt(time.Now().Unix(), 10) // anew for each try, as a signature is valid for 5 minutes
		mac := hmac.New(sha256.New, secretBytes(os.Getenv("SECRET")))
		mac.Write([]byte(id + "." + timestamp + "."))
		mac.Write(body)

		request, err := http.NewRequest("POST", os.Getenv("URL")+path, bytes.NewReader(body))
		if err != nil {
			log.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		request.Header.Set("X-Key-Id", os.Getenv("KEY_ID"))
		request.Header.Set("webhook-id", id)
		request.Header.Set("webhook-timestamp", timestamp)
		request.Header.Set("webhook-signature", "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
		pause := time.Second << attempt
		response, err := http.DefaultClient.Do(request)
		if err == nil { // else it may have arrived or not
			answer, err := io.ReadAll(response.Body)
			response.Body.Close()
			switch response.StatusCode {
			case 408, 429, 503:
				if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil {
					pause = time.Duration(seconds) * time.Second
				}
			default:
				if err == nil {
					return response.StatusCode, string(answer)
				}
			}
		}
		time.Sleep(pause)
	}
	log.Fatal("It was not answered; send it again later, with the same webhook-id.")
	return 0, ""
}

func main() {
	status, answer := send("/events", []byte(fmt.Sprintf(
		`{"type":"progression","playerId":"player_12345","ts":%d,"payload":{"deltaXp":150,"activity":"quest_completion"}}`,
		time.Now().Unix())))
	fmt.Println(status, answer)
	if status != 202 && status != 409 { // 409: an earlier try had arrived; this is its answer
		os.Exit(1)
	}
}
