-- Signed requests for wrk: the bodies come from files that ingest_bench.py wrote, signatures and stamps from the environment.
-- Every request has an Idempotency-Key of its own.
local path, encoding = os.getenv("BENCH_PATH"), os.getenv("BENCH_ENCODING")
local file = assert(io.open(os.getenv("BENCH_BODY"), "rb"))
local body = file:read("*a")
file:close()
local headers = {
  ["Content-Type"] = "application/json",
  ["X-Signature"] = os.getenv("BENCH_SIGNATURE"),
}
if os.getenv("BENCH_TIMESTAMP") ~= "" then headers["X-Timestamp"] = os.getenv("BENCH_TIMESTAMP") end
if encoding ~= "" then headers["Content-Encoding"] = encoding end
local prefix, count = os.getenv("BENCH_RUN"), 0

request = function()
  count = count + 1
  headers["Idempotency-Key"] = prefix .. "-" .. count
  return wrk.format("POST", path, headers, body)
end

done = function(summary, latency)
  local wrong = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format('\nRESULT {"requests":%d,"seconds":%f,"wrong":%d,"p99_ms":%f}\n',
    summary.requests, summary.duration / 1e6, wrong, latency:percentile(99) / 1000))
end
