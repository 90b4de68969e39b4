// What the scores of the pool were, as the daemon wrote it down at each judgement. Asked for once, and then for news.

import { curve } from "./draw.js";
import { DASH, number } from "./say.js";
import { SLOWLY, watch } from "./source.js";
import { t } from "./words.js";

// A judgement is no event.
const WHEN = { every: SLOWLY };
// As many as the daemon keeps.
const KEPT_MAX = 500;
// More points than a curve in a table is wide show nothing.
const DRAWN_MAX = 96;

/** Follows the scores of all until the signal, and tells whenever it asked; gives the samples of one. */
export function follow(signal, told) {
  const kept = new Map();
  let since = "";
  const path = () => `/api/v1/indexers/history${since && `?${new URLSearchParams({ since })}`}`;
  watch(path, WHEN, signal, (curves) => {
    for (const { peer_id: id, samples } of curves) {
      if (samples.length === 0) continue;
      kept.set(id, [...(kept.get(id) ?? []), ...samples].slice(-KEPT_MAX));
      // All are judged at once, so the news of one are those of all.
      const { at } = samples.at(-1);
      if (since === "" || Date.parse(at) >= Date.parse(since)) since = at;
    }
    told();
  });
  return (id) => kept.get(id) ?? [];
}

/** A score as a curve between 0 and its most. */
export function lately(samples) {
  const values = samples.slice(-DRAWN_MAX).map(({ value }) => value);
  if (values.length < 2) return DASH;
  const [least, most] = [Math.min(...values), Math.max(...values)].map((value) => number(value, 1));
  return curve(values.map((value) => value / 100), t("from_to", least, most));
}
