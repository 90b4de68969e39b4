// How figures, times and peers are said.

import { code, strong } from "./draw.js";
import { language, t } from "./words.js";

export const DASH = "–";

/** A dash for what is not known. */
export const known = (value, say = String) => (value === null || value === undefined || value === "" ? DASH : say(value));

/** A number with as many digits after the point. */
export const number = (value, digits = 0) =>
  value.toLocaleString(language(), { minimumFractionDigits: digits, maximumFractionDigits: digits });

/** A span in its largest units: `8 s`, `3 min`, `2 h 5 min`, `4 d 1 h`. */
export function span(millis) {
  const seconds = Math.floor(millis / 1000);
  if (seconds < 1) return `${Math.max(0, Math.round(millis))} ms`;
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min`;
  return `${Math.floor(seconds / 86400)} ${t("days")} ${Math.floor(seconds / 3600) % 24} h`;
}

/** How long ago a moment was, by this machine's clock; less than a second would only flicker. */
export const ago = (moment) => t("ago", span(Math.max(1000, Date.now() - Date.parse(moment)))).replaceAll(" ", "\u00a0");

/** A moment's time of the day. */
export const clock = (moment) => new Date(moment).toLocaleTimeString(language(), { hourCycle: "h23" });

/** A moment with its date. */
export const moment = (text) =>
  new Date(text).toLocaleString(language(), { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23" });

/** Microseconds. */
export function micros(value) {
  if (value < 1000) return `${value} µs`;
  return value < 1e6 ? `${number(value / 1000, 1)} ms` : `${number(value / 1e6, 1)} s`;
}

/** Milliseconds. */
export const millis = (value) => `${number(value, 1)} ms`;

/** Bytes per second. */
export const speed = (value) => (value < 1e6 ? `${number(value / 1e3, 1)} kB/s` : `${number(value / 1e6, 1)} MB/s`);

/** The end of a peer id, which is what people compare. */
const short = (id) => (id.length > 8 ? `…${id.slice(-8)}` : id);

/** A role in one word. */
export function role({ node, indexer }) {
  if (node && indexer) return t("role_both");
  return t(node ? "role_node" : indexer ? "role_indexer" : "role_unknown");
}

// What our operator calls a peer goes before what it calls itself.
const told = { own: new Map(), partners: new Map(), peers: new Map() };
const nameOf = (id) => told.own.get(id) ?? told.partners.get(id) ?? told.peers.get(id);

/** Keeps the names that these have among partners, peers or ourselves: never more than the daemon knows. */
export function learn(from, peers) {
  told[from] = new Map(peers.filter(({ name }) => name).map(({ peer_id, name }) => [peer_id, name]));
}

/** A peer by its name, as far as it is known, and the end of its id. */
export function who(id, called) {
  const name = called || nameOf(id);
  return name ? [strong(name), " ", code(short(id))] : [code(short(id))];
}

/** As one text. */
export const whoText = (id, called) => called || nameOf(id) || short(id);

/** A text in which peers are called by their names: the path of an actor. */
export const withNames = (text) => text.replace(/12D3Koo\w+/g, (id) => whoText(id));
