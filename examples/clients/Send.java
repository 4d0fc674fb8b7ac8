// Send a batch of events to Fairboard, signed as Standard Webhooks has it. Java 11 or newer (a JDK), no packages.
//   URL=http://127.0.0.1:8080 KEY_ID=demo SECRET=whsec_… java Send.java
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.Base64;
import java.util.Set;
import java.util.UUID;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

public class Send {
    static final HttpClient HTTP = HttpClient.newBuilder().connectTimeout(Duration.ofSeconds(10)).build();

    /** What a secret signs with: whsec_ and base64, as `fairboard keys make` prints it; any other is its own text. */
    static byte[] secretBytes(String secret) {
        return secret.startsWith("whsec_")
            ? Base64.getDecoder().decode(secret.substring("whsec_".length()))
            : secret.getBytes(StandardCharsets.UTF_8);
    }

    /**
     * POST a body until it is answered. The message id names the request, and the events in it that have no eventId:
     * so a retry counts once.
     */
    static HttpResponse<String> send(String path, byte[] body) throws Exception {
        String id = UUID.randomUUID().toString();
        for (int attempt = 0; attempt < 6; attempt++) {
            long timestamp = Instant.now().getEpochSecond(); // anew for each try, as a signature is valid for 5 minutes
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(new SecretKeySpec(secretBytes(System.getenv("SECRET")), "HmacSHA256"));
            mac.update((id + "." + timestamp + ".").getBytes(StandardCharsets.UTF_8));
            String signature = Base64.getEncoder().encodeToString(mac.doFinal(body));
            HttpRequest request = HttpRequest.newBuilder(URI.create(System.getenv("URL") + path))
                .timeout(Duration.ofSeconds(30))
                .header("Content-Type", "application/x-ndjson")
                .header("X-Key-Id", System.getenv("KEY_ID"))
                .header("webhook-id", id)
                .header("webhook-timestamp", String.valueOf(timestamp))
                .header("webhook-signature", "v1," + signature)
                // Streamed, in chunks: of a file it would be () -> Files.newInputStream(path), signed in the same way.
                .POST(HttpRequest.BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(body)))
                .build();
            long pause = 1L << attempt;
            try {
                HttpResponse<String> response = HTTP.send(request, HttpResponse.BodyHandlers.ofString());
                if (!Set.of(408, 429, 503).contains(response.statusCode())) {
                    return response;
                }
                pause = response.headers().firstValueAsLong("Retry-After").orElse(pause);
            } catch (IOException error) {
                System.err.println("No answer (" + error + "): it may have arrived or not.");
            }
            Thread.sleep(pause * 1000);
        }
        throw new IOException("It was not answered; send it again later, with the same webhook-id.");
    }

    public static void main(String[] arguments) throws Exception {
        long now = Instant.now().getEpochSecond();
        String events =
            "{\"type\":\"boss_kill\",\"playerId\":\"player_12345\",\"ts\":" + now + ",\"payload\":{\"bossId\":\"hydra\"}}\n"
            + "{\"type\":\"drop_claimed\",\"playerId\":\"player_12345\",\"ts\":" + now + ",\"payload\":{\"itemId\":\"scale\"}}\n";
        HttpResponse<String> response = send("/events/batch", events.getBytes(StandardCharsets.UTF_8));
        System.out.println(response.statusCode() + " " + response.body());
        if (response.statusCode() != 202 && response.statusCode() != 409) { // 409: an earlier try had arrived
            System.exit(1);
        }
    }
}
