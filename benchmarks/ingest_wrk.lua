-- Signed requests for wrk: one body, from a file that ingest_bench.py wrote. With BENCH_SECRET every request is a webhook of its own
-- (Standard Webhooks), signed here; without, the signature comes from the environment, and an Idempotency-Key tells them apart.
local path, encoding = os.getenv("BENCH_PATH"), os.getenv("BENCH_ENCODING")
local file = assert(io.open(os.getenv("BENCH_BODY"), "rb"))
local body = file:read("*a")
file:close()
local headers = { ["Content-Type"] = "application/json" }
if encoding ~= "" then headers["Content-Encoding"] = encoding end
local prefix, count = os.getenv("BENCH_RUN"), 0
local secret, stamp = os.getenv("BENCH_SECRET"), os.getenv("BENCH_TIMESTAMP")

local identify
if secret ~= "" then
  local ffi = require("ffi")
  ffi.cdef [[
    const void *EVP_sha256(void);
    unsigned char *HMAC(const void *, const void *key, int, const char *data, size_t, unsigned char *mac, unsigned int *);
    int EVP_EncodeBlock(unsigned char *to, const unsigned char *from, int);
  ]]
  local crypto = ffi.C -- wrk is linked with it
  local sha256, mac, base64 = crypto.EVP_sha256(), ffi.new("unsigned char[32]"), ffi.new("unsigned char[45]")
  headers["webhook-timestamp"] = stamp
  local sign = function(id)
    local message = id .. "." .. stamp .. "." .. body
    crypto.HMAC(sha256, secret, #secret, message, #message, mac, nil)
    return "v1," .. ffi.string(base64, crypto.EVP_EncodeBlock(base64, mac, 32))
  end
  -- Signing a large body is its client's work; here it would take the cores that are measured, so it is done before the clock starts.
  local before = {}
  init = function()
    for n = 1, tonumber(os.getenv("BENCH_SIGNED_BEFORE")) do
      local id = prefix .. "-" .. n
      before[id] = sign(id)
    end
  end
  identify = function(id)
    headers["webhook-id"] = id
    headers["webhook-signature"] = before[id] or sign(id)
  end
else
  headers["X-Signature"] = os.getenv("BENCH_SIGNATURE")
  if stamp ~= "" then headers["X-Timestamp"] = stamp end
  identify = function(id) headers["Idempotency-Key"] = id end
end

request = function()
  count = count + 1
  identify(prefix .. "-" .. count)
  return wrk.format("POST", path, headers, body)
end

done = function(summary, latency)
  local wrong = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format('\nRESULT {"requests":%d,"seconds":%f,"wrong":%d,"p99_ms":%f}\n',
    summary.requests, summary.duration / 1e6, wrong, latency:percentile(99) / 1000))
end
