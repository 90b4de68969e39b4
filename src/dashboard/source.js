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

// After what happened the parts of a member agree within this.
const SOON = 200;
// However much happens, what it changes is not asked for more often.
const LEAST = 1_000;
// Events that are kept for a view that is opened later: as many as one shows.
export const EVENTS_MAX = 200;

/** How often what may change without an event is asked for; what an event names is asked for when it happens. */
export const SLOWLY = 5_000;

/**
 * Asks now, soon after an event whose kind is one of `on`, and every so many milliseconds, until the signal; tells what came and
 * what the daemon could not do. That it cannot be reached is said by the whole page. The path may be a function, for one that asks for news
 * only; both may say that it is enough.
 */
export function watch(path, { every, on }, signal, show, fail) {
  let timer;
  let askedAt = -Infinity;
  let isAsking = false;
  let isStale = false;
  let isHurried = false;
  let isEnough = false;
  const later = (wait) => {
    clearTimeout(timer);
    timer = setTimeout(look, wait);
  };
  const look = async () => {
    clearTimeout(timer);
    isHurried = false;
    if (signal.aborted || isAsking || isEnough || document.hidden) return;
    if (!state.isPaused) {
      isAsking = true;
      askedAt = performance.now();
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
    if (signal.aborted || isEnough) return;
    if (isStale) hurry();
    else later(every);
  };
  const hurry = () => {
    // What is being answered may be from before the event.
    isStale = isAsking;
    if (isAsking || isHurried || isEnough || signal.aborted) return;
    isHurried = true;
    later(Math.max(SOON, askedAt + LEAST - performance.now()));
  };
  document.addEventListener("visibilitychange", look, { signal });
  signal.addEventListener("abort", () => clearTimeout(timer));
  listen({ heard: (events) => events.some(({ kind }) => on?.test(kind)) && hurry(), turned: hurry }, signal);
  look();
}

// What happens, as the whole page hears it: one stream, for a browser opens six connections to an origin.
const journal = { seen: 0, kept: [], isRead: false, stream: null, readers: new Set(), isRefused: false };

function listen(reader, signal) {
  journal.readers.add(reader);
  signal.addEventListener("abort", () => journal.readers.delete(reader));
  attend();
}

function take(events) {
  const news = events.filter(({ seq }) => seq > journal.seen);
  journal.seen = events.at(-1)?.seq ?? journal.seen;
  journal.kept.push(...news);
  journal.kept.splice(0, journal.kept.length - EVENTS_MAX);
  for (const { heard } of journal.readers) heard(news);
}

/** The stream began, or broke: what there is now is another than what was known. */
function turn() {
  for (const { turned } of journal.readers) turned?.();
}

/**
 * Keeps the stream while the page is seen and not paused. It goes on after the last event that came: none is told twice. Where
 * the daemon has none, or no place for one more, events are asked for.
 */
function attend() {
  if (document.hidden || state.isPaused) {
    journal.stream?.close();
    journal.stream = null;
    return;
  }
  if (journal.stream || journal.isRefused) return;
  const stream = new EventSource(`/api/v1/events/stream?since=${journal.seen}`);
  journal.stream = stream;
  stream.addEventListener("happened", ({ data }) => take([JSON.parse(data)]));
  // Another journal, whose numbers begin anew, or one that lost what we had not heard.
  stream.addEventListener("gap", ({ data }) => {
    if (JSON.parse(data).reason === "restarted") Object.assign(journal, { seen: 0, kept: [] });
    turn();
  });
  stream.addEventListener("open", () => {
    journal.isRead = true;
    take([]);
    turn();
  });
  // A browser comes back by itself to what broke, with the number of the last event, and gives up what was refused.
  stream.addEventListener("error", () => {
    if (stream.readyState === EventSource.CLOSED && !journal.isRefused) {
      journal.isRefused = true;
      const always = new AbortController().signal;
      const fail = (error) => { for (const { failed } of journal.readers) failed?.(error); };
      watch(() => `/api/v1/events?since=${journal.seen}`, { every: LEAST }, always, take, fail);
    }
    turn();
  });
}

document.addEventListener("visibilitychange", attend);
addEventListener("pause", attend);

/** Hears the latest events, and each one after them as it happens. */
export function hear(signal, heard, failed) {
  if (journal.isRead) heard(journal.kept);
  listen({ heard, failed }, signal);
}

/** Reads the journal from its beginning: it is that of another life. */
export function hearAnew() {
  journal.stream?.close();
  Object.assign(journal, { seen: 0, kept: [], isRead: false, stream: null });
  attend();
}
