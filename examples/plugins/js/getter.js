// Fetches values from an HTTP origin.
//
// Settings: `url`, under which the keys are, and `ttl`, for how many seconds a value is
// fresh (60 unless set).

import { get as setting } from "cachecluster:plugin/config@0.1.0";

// The contract counts time in nanoseconds, as BigInt.
const MILLISECOND = 1_000_000n;
const SECOND = 1000n * MILLISECOND;

const TTL = 60n * SECOND;
const NOT_FOUND_TTL = 10n * SECOND;

export const getter = {
  // Returns an `outcome`, or throws an `error` of the contract.
  async get(key, ctx) {
    const ttl = freshness(seconds("ttl") ?? TTL);
    const url = `${base()}/${segment(key)}`;
    const { status, headers, body } = await request(url, ctx);

    switch (status) {
      case 200:
        return {
          tag: "found",
          val: {
            value: body,
            freshness: ttl,
            validator: headers.get("etag") ?? undefined,
            contentType: headers.get("content-type") ?? undefined,
            tags: [],
            metadata: [],
          },
        };
      case 304:
        if (ctx.validator() === undefined) break;
        return { tag: "not-modified", val: ttl };
      case 404:
      case 410:
        return { tag: "not-found", val: freshness(NOT_FOUND_TTL) };
      case 401:
      case 403:
        throw { tag: "denied", val: `the origin answered ${status}` };
    }
    if (status === 429 || status >= 500) {
      throw unavailable(`the origin answered ${status}`, headers.get("retry-after"));
    }
    throw internal(`the origin answered ${status}`);
  },
};

// Sends a GET and reads the whole answer, in the time that is left.
async function request(url, ctx) {
  // A tenth is kept, so that the answer is out before the node gives up.
  const time = (ctx.remaining() * 9n) / 10n;
  const signal = AbortSignal.timeout(Number(time / MILLISECOND));

  const headers = new Headers();
  const validator = ctx.validator();
  if (validator !== undefined) headers.set("if-none-match", validator);

  try {
    const response = await fetch(url, { headers, signal, redirect: "manual" });
    const body = new Uint8Array(await response.arrayBuffer());
    return { status: response.status, headers: response.headers, body };
  } catch (error) {
    if (signal.aborted) throw { tag: "timed-out" };
    throw unavailable(`cannot reach the origin: ${error.message}`);
  }
}

// The key as one segment of a path.
function segment(key) {
  // Servers take dots for an order to leave the folder, encoded or not.
  if (["", ".", ".."].includes(key)) {
    throw { tag: "invalid-key", val: "the key can be no segment of a path" };
  }
  const escape = (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`;
  return encodeURIComponent(key).replace(/[!'()*]/g, escape);
}

function base() {
  const url = setting("url");
  if (!url) throw internal("the setting `url` is missing");
  return url;
}

function seconds(name) {
  const text = setting(name);
  if (text === undefined) return undefined;
  if (!/^[0-9]{1,9}$/.test(text)) throw internal(`the setting \`${name}\` is not a whole number`);
  return BigInt(text) * SECOND;
}

function freshness(ttl) {
  return { ttl, stale: undefined };
}

function unavailable(message, retryAfter) {
  const isSeconds = /^[0-9]{1,9}$/.test(retryAfter ?? "");
  const wait = isSeconds ? BigInt(retryAfter) * SECOND : undefined;
  return { tag: "unavailable", val: { message, retryAfter: wait } };
}

function internal(message) {
  return { tag: "internal", val: message };
}
