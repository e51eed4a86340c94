"""Web pages of other origins call a gateway: by the headers that browsers go by, and in one."""

from __future__ import annotations

import json

import httpx

from tests.support.browser import page, visit
from tests.support.wait import wait_for

HI = [{"role": "user", "content": "What is it?"}]
CHAT = "/v1/chat/completions"
PAGE = "https://app.example.com"
ASKS = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-fee,x-stainless-lang",
}


def preflight(url, origin, path=CHAT, **more):
    return httpx.options(f"{url}{path}", headers={"Origin": origin, **ASKS, **more}, timeout=60)


def allowed(answer):
    return answer.headers.get("access-control-allow-origin")


def test_pages_of_the_named_origins_may_call(herd):
    # Each minute one call of a key, and one of an address: what is asked ahead counts for neither.
    _, url = herd.start_gateway(
        HERD_CORS_ORIGINS=f"{PAGE}:443, http://localhost:3000",
        HERD_REQUESTS_PER_MINUTE_PER_KEY="1",
        HERD_REQUESTS_PER_MINUTE_PER_ADDRESS="1",
    )
    _, key = herd.client.api_keys.create("default")
    for origin in (PAGE, "http://localhost:3000", PAGE):
        told = preflight(url, origin)
        assert (told.status_code, allowed(told)) == (200, origin)
        assert "POST" in told.headers["access-control-allow-methods"].split(", ")
        assert (
            told.headers["access-control-allow-headers"] == ASKS["Access-Control-Request-Headers"]
        )
        assert "access-control-allow-credentials" not in told.headers
        assert "Origin" in told.headers["vary"]
    near = preflight(url, PAGE, **{"Access-Control-Request-Private-Network": "true"})
    assert near.headers["access-control-allow-private-network"] == "true"
    for other in ("https://evil.example.com", "http://app.example.com", f"{PAGE}:8443", "null"):
        assert allowed(preflight(url, other)) is None

    # What is answered, and what is refused, can be read by the page, and the headers with it.
    headers = {"Authorization": f"Bearer {key}", "Origin": PAGE}
    answer = httpx.get(f"{url}/v1/models", headers=headers, timeout=60)
    refused = httpx.get(f"{url}/v1/models", headers=headers, timeout=60)
    assert (answer.status_code, refused.status_code) == (200, 429)
    for one in (answer, refused):
        assert allowed(one) == PAGE
        exposed = one.headers["access-control-expose-headers"].lower().split(", ")
        for name in (
            "x-request-id",
            "x-order",
            "retry-after",
            "x-ratelimit-remaining-requests",
            "x-next-price",
        ):
            assert name in exposed
        assert "Origin" in one.headers["vary"]
        assert "access-control-allow-credentials" not in one.headers


def test_every_page_may_call_where_the_setting_says_so_and_none_without_it(herd):
    _, url = herd.start_gateway(HERD_CORS_ORIGINS="*")
    for one in (preflight(url, PAGE), preflight(url, "null")):
        assert (one.status_code, allowed(one)) == (200, "*")
        assert "access-control-allow-credentials" not in one.headers
    refused = httpx.post(f"{url}{CHAT}", json={}, headers={"Origin": PAGE}, timeout=60)
    assert (refused.status_code, allowed(refused)) == (401, "*")
    # A long answer comes compressed, and says on what it depends.
    document = httpx.get(f"{url}/openapi.json", headers={"Origin": PAGE}, timeout=60)
    assert (document.headers["content-encoding"], allowed(document)) == ("gzip", "*")
    assert "Accept-Encoding" in document.headers["vary"]

    _, closed = herd.start_gateway()
    assert preflight(closed, PAGE).status_code == 405
    answer = httpx.get(f"{closed}/", headers={"Origin": PAGE}, timeout=60)
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control")]


SCRIPT = """
const [url, key, model] = %s;
const headers = { "Authorization": `Bearer ${key}`, "Content-Type": "application/json" };
const ask = (content, more, signal) => fetch(`${url}/v1/chat/completions`, {
  method: "POST", signal, headers: { ...headers, "X-Fee": "50" },
  body: JSON.stringify({ model, max_tokens: 5, messages: [{ role: "user", content }], ...more }),
});
const read = async function* (answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let one = await reader.read(); !one.done; one = await reader.read()) yield one.value;
};

const whole = await ask("What is it?", {});
const told = await whole.json();
const streamed = await ask("What is it?", { stream: true });
let text = "";
for await (const piece of read(streamed)) text += piece;

// The worker gives two tokens and then nothing: what is read was not kept back for the rest.
const leaving = new AbortController();
const hanging = await ask("[[hang:2]]", { stream: true }, leaving.signal);
let begun = "";
for await (const piece of read(hanging)) {
  begun += piece;
  if (/"content": *"[^"]/.test(begun)) break;
}
leaving.abort();

const models = await fetch(`${url}/v1/models`, { headers });
const stranger = await fetch(`${url}/v1/models`);
return {
  whole: whole.status, charged: told.usage.cost, order: whole.headers.get("x-order"),
  request: whole.headers.get("x-request-id"),
  price: whole.headers.get("x-next-price"),
  left: whole.headers.get("x-ratelimit-remaining-requests"),
  streamed: streamed.status, kind: streamed.headers.get("content-type"), text,
  hanging: hanging.headers.get("x-order"), begun,
  models: (await models.json()).data.map((one) => one.id),
  stranger: stranger.status, why: (await stranger.json()).error.code,
};
"""

REFUSED = """
const [url, key, model] = %s;
try {
  await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "Authorization": `Bearer ${key}`, "Content-Type": "application/json" },
    body: JSON.stringify({ model, max_tokens: 5, messages: [{ role: "user", content: "Hi" }] }),
  });
  return { refused: false };
} catch (error) {
  return { refused: error instanceof TypeError };
}
"""


def test_a_real_browser_calls_from_a_page_of_a_named_origin_and_from_no_other(herd, tmp_path):
    herd.start_worker()
    _, key = herd.client.api_keys.create("default")
    with page() as named, page() as other:
        _, url = herd.start_gateway(HERD_CORS_ORIGINS=named.origin)
        given = json.dumps([url, key, "stub"])
        found = visit(named, SCRIPT % given, tmp_path)
        assert "failed" not in found, found
        assert (found["whole"], found["charged"], found["streamed"]) == (200, 50, 200)
        assert herd.client.receipt(found["order"]).charged == 50
        assert found["request"].startswith("req_")
        assert int(found["left"]) > 0
        assert found["price"].startswith('model="stub", multiplier=')
        assert found["kind"].startswith("text/event-stream")
        assert found["text"].rstrip().endswith("data: [DONE]")
        assert "[DONE]" not in found["begun"]
        wait_for(
            lambda: herd.client.receipt(found["hanging"]).state == "cancelled",
            "what the page left is cancelled",
        )
        assert found["models"] == ["stub"]
        assert (found["stranger"], found["why"]) == (401, "unauthorized")

        count = len(herd.client.orders(account="default"))
        assert visit(other, REFUSED % given, tmp_path) == {"refused": True}
        assert len(herd.client.orders(account="default")) == count == 3
