// What the scores of the pool were while the page has been open: the daemon keeps no history of them yet.

import { curve } from "./draw.js";
import { DASH, number } from "./say.js";
import { t } from "./words.js";

// At one every five seconds the last twenty-five minutes.
const KEPT_MAX = 300;

let kept = new Map();

/** Adds what the pool says now, and forgets who is no member any more. */
export function remember(pool) {
  kept = new Map(pool.map(({ peer_id, score, parts }) => {
    const before = kept.get(peer_id) ?? new Map();
    const now = [["", score === null ? null : score / 100], ...parts.map(({ name, value }) => [name, value])];
    return [peer_id, new Map(now.map(([name, value]) => [name, [...(before.get(name) ?? []), value].slice(-KEPT_MAX)]))];
  }));
}

/** A score, or one part of it, as a curve between 0 and its most. */
export function lately(peer, part = "") {
  const values = (kept.get(peer)?.get(part) ?? []).filter((value) => value !== null);
  if (values.length < 2) return DASH;
  const [least, most] = [Math.min(...values), Math.max(...values)].map((value) => number(100 * value, 1));
  return curve(values, t("from_to", least, most));
}
