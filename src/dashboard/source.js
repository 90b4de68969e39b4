// What is asked of the daemon: again and again while the page is seen, and never faster than it answers. And what it is told.

import { t } from "./words.js";

// Longer than the daemon gives itself for any answer.
const PATIENCE = 12_000;

/** Said by whoever needs not be told again. */
export const ENOUGH = Symbol("enough");

/** How the daemon is reached: since when it is not, whether the reader wants to look at what stands still. */
export const state = { lostSince: null, isPaused: false, changed: () => {} };

/** The daemon answered that it cannot. */
class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** The daemon did not answer, or the page asks no more. */
class Unreached extends Error {}

function reached(isReached) {
  if (isReached === (state.lostSince === null)) return;
  state.lostSince = isReached ? null : new Date();
  state.changed();
}

async function send(path, signal, more) {
  let answer, body;
  try {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(PATIENCE)]);
    answer = await fetch(path, { signal: limit, cache: "no-store", ...more });
    body = await answer.text();
  } catch (error) {
    if (!signal.aborted) reached(false);
    throw new Unreached(error.message);
  }
  reached(true);
  if (answer.ok) return body;
  throw new Problem(answer.status, problem(body) || `${answer.status} ${answer.statusText}`);
}

/** Asks once. */
export const ask = async (path, signal) => JSON.parse(await send(path, signal));

/** Tells it to do something, with the admin token. */
export const tell = async (method, path, token, signal) => {
  // A header holds no other characters; a token has none of them.
  if (/[^\x20-\x7e]/.test(token)) throw new Problem(401, t("token_odd"));
  await send(path, signal, { method, headers: { authorization: `Bearer ${token}` } });
};

function problem(body) {
  try {
    return String(JSON.parse(body).detail ?? "");
  } catch {
    return "";
  }
}

/**
 * Asks every so many milliseconds until the signal, tells what came and what the daemon could not do. That it cannot be
 * reached is said by the whole page. The path may be a function, for one that asks for news only; both may say that it is enough.
 */
export function watch(path, every, signal, show, fail) {
  let timer;
  let isAsking = false;
  let isEnough = false;
  const look = async () => {
    clearTimeout(timer);
    if (signal.aborted || isAsking || isEnough || document.hidden) return;
    if (!state.isPaused) {
      isAsking = true;
      try {
        const data = await ask(typeof path === "function" ? path() : path, signal);
        if (!signal.aborted) isEnough = show(data) === ENOUGH;
      } catch (error) {
        if (error instanceof Problem) isEnough = !signal.aborted && fail?.(error) === ENOUGH;
        else if (!(error instanceof Unreached)) throw error;
      } finally {
        isAsking = false;
      }
    }
    if (!signal.aborted && !isEnough) timer = setTimeout(look, every);
  };
  document.addEventListener("visibilitychange", look, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  look();
}

/**
 * Hears what happens as it happens, while the page is seen and not paused, and goes on after the last event that came: none is
 * told twice. Where the daemon has no such stream, or no place for one more, it is asked every so many milliseconds instead.
 */
export function hear(every, signal, heard, fail) {
  let seen = 0;
  let stream = null;
  const take = (events) => {
    const news = events.filter(({ seq }) => seq > seen);
    seen = events.at(-1)?.seq ?? seen;
    heard(news);
  };
  const close = () => {
    stream?.close();
    stream = null;
  };
  const ends = new AbortController();
  signal.addEventListener("abort", () => ends.abort());
  const askInstead = () => {
    ends.abort();
    if (!signal.aborted) watch(() => `/api/v1/events?since=${seen}`, every, signal, take, fail);
  };
  const look = () => {
    if (document.hidden || state.isPaused || ends.signal.aborted) return close();
    if (stream) return;
    stream = new EventSource(`/api/v1/events/stream?since=${seen}`);
    stream.addEventListener("happened", ({ data }) => take([JSON.parse(data)]));
    // Another journal, whose numbers begin anew, or one that lost what we had not heard.
    stream.addEventListener("gap", ({ data }) => { if (JSON.parse(data).reason === "restarted") seen = 0; });
    // A browser comes back by itself to what broke, and gives up what was refused.
    stream.addEventListener("error", () => { if (stream?.readyState === EventSource.CLOSED) askInstead(); });
    stream.addEventListener("open", () => heard([]));
  };
  document.addEventListener("visibilitychange", look, { signal: ends.signal });
  addEventListener("pause", look, { signal: ends.signal });
  ends.signal.addEventListener("abort", close);
  look();
}
