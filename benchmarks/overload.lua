-- For wrk: signed-in users, a quarter of whose requests compute; counts strangers, levels and statuses.
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  cookies, number, strangers, failed, errors = {}, math.random(1000), 0, 0, 0
  level0, level1, level2, level3, level4 = 0, 0, 0, 0, 0
  for line in io.lines(os.getenv("LOAD_COOKIES")) do
    table.insert(cookies, line)
  end
end

function request()
  number = number + 1
  local path = number % 4 == 0 and "/compute" or number % 10 == 1 and "/write" or "/read"
  return wrk.format("GET", path, { Cookie = cookies[math.random(#cookies)] })
end

function response(status, headers, body)
  if status >= 500 then
    failed = failed + 1
  elseif status ~= 200 then
    errors = errors + 1
  else
    if headers["X-User"] == "-" then strangers = strangers + 1 end
    local name = "level" .. headers["X-Level"]
    _G[name] = _G[name] + 1
  end
end

function done(summary, latency, requests)
  local found = { p50 = latency:percentile(50) / 1000, p99 = latency:percentile(99) / 1000 }
  found.lost = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  for _, name in ipairs({ "strangers", "failed", "errors", "level0", "level1", "level2", "level3", "level4" }) do
    found[name] = 0
    for _, thread in ipairs(threads) do found[name] = found[name] + thread:get(name) end
  end
  local parts = {}
  for name, value in pairs(found) do table.insert(parts, string.format('"%s": %s', name, value)) end
  io.write("FOUND {" .. table.concat(parts, ", ") .. "}\n")
end
