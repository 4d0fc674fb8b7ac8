// Send one event to Fairboard, stamped and signed. Go, standard library only.
//
//	URL=http://127.0.0.1:8080 KEY_ID=demo SECRET=… go run send.go
package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"time"
)

func main() {
	now := strconv.FormatInt(time.Now().Unix(), 10)
	// The same eventId again is counted once.
	body := []byte(fmt.Sprintf(
		`{"eventId":"go-%d","type":"progression","playerId":"player_12345","ts":%s,"payload":{"deltaXp":150,"activity":"quest_completion"}}`,
		time.Now().UnixNano(), now))
	mac := hmac.New(sha256.New, []byte(os.Getenv("SECRET")))
	mac.Write(body)
	mac.Write([]byte("." + now))

	request, err := http.NewRequest("POST", os.Getenv("URL")+"/events", bytes.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("X-Key-Id", os.Getenv("KEY_ID"))
	request.Header.Set("X-Timestamp", now)
	request.Header.Set("X-Signature", hex.EncodeToString(mac.Sum(nil)))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	answer, _ := io.ReadAll(response.Body)
	fmt.Println(response.StatusCode, string(answer))
	if response.StatusCode != http.StatusAccepted {
		os.Exit(1)
	}
}
