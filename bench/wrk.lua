-- A seeded mix of hosts, paths, methods, agents and sizes. Each thread sends
-- REQUESTS requests, then falls silent.
local quota = tonumber(os.getenv("REQUESTS"))
local threads = 0

function setup(thread)
   threads = threads + 1
   thread:set("seed", threads)
end

local hosts = {"shop.example.org", "api.example.org", "static.example.org", "www.example.net"}
local agents = {
   "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
   "curl/8.14.1", "python-requests/2.32.4", "kube-probe/1.34", "okhttp/5.1.0",
}
local sent = 0

function init(args)
   math.randomseed(seed)
end

function delay()
   if sent >= quota then return 3600000 end
   return 0
end

function request()
   sent = sent + 1
   local headers = {
      ["Host"] = hosts[math.random(#hosts)],
      ["User-Agent"] = agents[math.random(#agents)],
   }
   local p = math.random(100)
   if p <= 8 then
      return wrk.format("GET", "/large/" .. math.random(20) .. ".bin", headers)
   elseif p <= 30 then
      return wrk.format("GET", "/medium/" .. math.random(50) .. ".bin?v=" .. sent, headers)
   elseif p <= 36 then
      return wrk.format("GET", "/missing/" .. math.random(200), headers)
   elseif p <= 40 then
      -- Not HEAD: wrk waits for the body that its answer speaks of.
      return wrk.format("OPTIONS", "/medium/1.bin", headers)
   elseif p <= 44 then
      return wrk.format("GET", "/old/" .. math.random(9), headers)
   elseif p <= 48 then
      return wrk.format("POST", "/form", headers, string.rep("field=value&", math.random(200)))
   elseif p <= 50 then
      return wrk.format("GET", "/broken", headers)
   else
      return wrk.format("GET", "/small/" .. math.random(100) .. ".txt", headers)
   end
end
