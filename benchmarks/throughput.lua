-- For wrk: one view of many users, in turn; counts answers that are not as they should be.
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  cookies, number, wrong = {}, math.random(1000), 0
  view, body_pattern = os.getenv("LOAD_VIEW"), "^" .. os.getenv("LOAD_BODY") .. "$"
  for line in io.lines(os.getenv("LOAD_COOKIES")) do
    table.insert(cookies, line)
  end
end

function request()
  number = number + 1
  local path = string.format("%s?theme-%03d", view, number % 1000)
  return wrk.format("GET", path, { Cookie = cookies[number % #cookies + 1] })
end

function response(status, headers, body)
  if status ~= 200 or not body:find(body_pattern) then wrong = wrong + 1 end
end

function done(summary, latency, requests)
  local errors, wrong = summary.errors, 0
  for _, thread in ipairs(threads) do wrong = wrong + thread:get("wrong") end
  io.write(string.format(
    'FOUND {"requests": %d, "wrong": %d, "lost": %d, "seconds": %f, "p50": %f, "p99": %f}\n',
    summary.requests, wrong, errors.connect + errors.read + errors.write + errors.timeout,
    summary.duration / 1e6,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000
  ))
end
