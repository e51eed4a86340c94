// One call with OpenAI's npm package as it is released; call.py says how.
import OpenAI from "openai";

const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");
const asked = JSON.parse(process.argv[2]);
const given = {};
if (asked.timeout !== undefined) given.timeout = asked.timeout * 1000;
if (asked.max_retries !== undefined) given.maxRetries = asked.max_retries;
const headers = asked.idempotency_key ? { "Idempotency-Key": asked.idempotency_key } : {};
// Only to tell when it sends.
const sending = (url, request) => {
  say({ sent: Number(new Headers(request.headers).get("x-stainless-retry-count")) });
  return fetch(url, request);
};
const client = new OpenAI({
  baseURL: asked.url + "/v1",
  apiKey: asked.api_key,
  fetch: sending,
  ...given,
});
try {
  const answer = await client.chat.completions.create(
    {
      model: "stub",
      messages: [{ role: "user", content: asked.prompt }],
      max_tokens: asked.tokens,
      stream: asked.stream,
    },
    { headers },
  );
  if (!asked.stream) {
    say({ text: answer.choices[0].message.content, finish: answer.choices[0].finish_reason });
  } else {
    for await (const chunk of answer) {
      if (!chunk.choices.length) say({ alive: true });
      else if (chunk.choices[0].delta.role) say({ begun: true });
      for (const choice of chunk.choices) {
        if (choice.delta.content || choice.finish_reason) {
          say({ text: choice.delta.content ?? "", finish: choice.finish_reason });
        }
      }
    }
  }
} catch (error) {
  if (!(error instanceof OpenAI.APIError)) throw error;
  say({ error: error.constructor.name, code: error.code ?? null, status: error.status ?? null });
}
