// Send an event to Fairboard, signed as Standard Webhooks has it. C# with the class library alone; with Mono:
//   mcs -r:System.Net.Http.dll Send.cs && URL=http://127.0.0.1:8080 KEY_ID=demo SECRET=whsec_… mono Send.exe
// In a game: on its server. A key that is in a client is everybody's (docs/security.md).
using System;
using System.Net.Http;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text;
using System.Threading.Tasks;

public static class Send
{
    static readonly HttpClient Http = new HttpClient { Timeout = TimeSpan.FromSeconds(30) };

    /// What a secret signs with: whsec_ and base64, as `fairboard keys make` prints it; any other is its own text.
    static byte[] SecretBytes(string secret)
    {
        return secret.StartsWith("whsec_", StringComparison.Ordinal)
            ? Convert.FromBase64String(secret.Substring("whsec_".Length))
            : Encoding.UTF8.GetBytes(secret);
    }

    static string Sign(string id, long timestamp, byte[] body)
    {
        var prefix = Encoding.UTF8.GetBytes(id + "." + timestamp + ".");
        var message = new byte[prefix.Length + body.Length];
        prefix.CopyTo(message, 0);
        body.CopyTo(message, prefix.Length);
        using (var mac = new HMACSHA256(SecretBytes(Environment.GetEnvironmentVariable("SECRET"))))
        {
            return "v1," + Convert.ToBase64String(mac.ComputeHash(message));
        }
    }

    /// POST a body until it is answered. The message id names the request, and the events in it that have no eventId:
    /// so a retry counts once.
    static async Task<HttpResponseMessage> Post(string path, byte[] body)
    {
        var id = Guid.NewGuid().ToString();
        for (var attempt = 0; attempt < 6; attempt++)
        {
            var timestamp = DateTimeOffset.UtcNow.ToUnixTimeSeconds(); // anew for each try: a signature is valid for 5 minutes
            var request = new HttpRequestMessage(HttpMethod.Post, Environment.GetEnvironmentVariable("URL") + path);
            request.Content = new ByteArrayContent(body);
            request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/json");
            request.Headers.TryAddWithoutValidation("X-Key-Id", Environment.GetEnvironmentVariable("KEY_ID"));
            request.Headers.TryAddWithoutValidation("webhook-id", id);
            request.Headers.TryAddWithoutValidation("webhook-timestamp", timestamp.ToString());
            request.Headers.TryAddWithoutValidation("webhook-signature", Sign(id, timestamp, body));
            var pause = TimeSpan.FromSeconds(1 << attempt);
            try
            {
                var response = await Http.SendAsync(request);
                var status = (int)response.StatusCode;
                if (status != 408 && status != 429 && status != 503)
                {
                    return response;
                }
                var after = response.Headers.RetryAfter;
                pause = after != null && after.Delta.HasValue ? after.Delta.Value : pause;
            }
            catch (Exception error) when (error is HttpRequestException || error is TaskCanceledException)
            {
                Console.Error.WriteLine("No answer (" + error.Message + "): it may have arrived or not.");
            }
            await Task.Delay(pause);
        }
        throw new TimeoutException("It was not answered; send it again later, with the same webhook-id.");
    }

    public static int Main()
    {
        var now = DateTimeOffset.UtcNow.ToUnixTimeSeconds();
        var body = "{\"type\":\"progression\",\"playerId\":\"player_12345\",\"ts\":" + now
            + ",\"payload\":{\"deltaXp\":150,\"activity\":\"quest_completion\"}}";
        var response = Post("/events", Encoding.UTF8.GetBytes(body)).GetAwaiter().GetResult();
        Console.WriteLine((int)response.StatusCode + " " + response.Content.ReadAsStringAsync().GetAwaiter().GetResult());
        return (int)response.StatusCode == 202 || (int)response.StatusCode == 409 ? 0 : 1; // 409: an earlier try had arrived
    }
}
