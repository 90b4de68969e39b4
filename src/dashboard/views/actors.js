// Every actor with its vitals, in the tree of their supervisors; each may be restarted by hand.

import { badge, button, english, make, soft, Table } from "../draw.js";
import { order } from "../order.js";
import { clock, micros, number, span, withNames } from "../say.js";
import { SLOWLY, watch } from "../source.js";
import { named, t } from "../words.js";

const WHEN = { every: SLOWLY, on: /^actor_/ };
// The tree is four deep; what claims to be deeper is cut.
const DEPTH_MAX = 16;

const STATES = { running: "good", starting: "idle", stuck: "bad", waiting: "warn", stopped: "idle" };
/** It does not do its work now. */
export const isIll = ({ state }) => state === "stuck" || state === "waiting" || state === "stopped";

export function show(main, signal) {
  const folded = new Set();
  let actors = [];
  const summary = make("p", { class: "lead", "data-summary": true });
  const last = make("p", { class: "lead", role: "status", "data-last": true });
  main.append(summary, last);
  const table = new Table(main, {
    caption: "actors",
    key: ({ name }) => name,
    empty: "no_actors",
    columns: [
      { head: "actor", name: true, cell: label },
      { head: "state", cell: (actor) => badge(STATES[actor.state] ?? "idle", stateOf(actor)) },
      { head: "uptime", number: true, cell: ({ uptime_ms }) => span(uptime_ms) },
      { head: "restarts", number: true, cell: ({ restarts }) => number(restarts) },
      { head: "last_failure", cell: failure },
      { head: "by_hand", cell: byHand },
      { head: "handled", number: true, cell: ({ handled }) => number(handled) },
      { head: "in_flight", number: true, cell: ({ in_flight: now, in_flight_max: most }) => t("now_most", number(now), number(most)) },
      { head: "shed", number: true, cell: ({ shed }) => number(shed) },
      { head: "handle_p50", number: true, cell: ({ handle_p50_us }) => micros(handle_p50_us) },
      { head: "handle_p99", number: true, cell: ({ handle_p99_us }) => micros(handle_p99_us) },
      { head: "wait_p99", number: true, cell: ({ wait_p99_us }) => micros(wait_p99_us) },
    ],
    dress: (line, { depth, state }) => {
      line.style.setProperty("--depth", depth);
      line.dataset.state = state;
    },
    pressed: async (actor, what) => {
      if (what === "restart") {
        if (await restart(actor, signal)) last.textContent = t("restart_ordered", clock(Date.now()), withNames(actor.name));
        return;
      }
      if (!folded.delete(actor.name)) folded.add(actor.name);
      tell();
    },
  });
  const tell = () => {
    table.show(flat(actors, folded));
    const restarts = actors.reduce((sum, actor) => sum + actor.restarts, 0);
    summary.textContent = t("actors_are", actors.length, actors.filter(isIll).length, restarts);
  };
  watch("/api/v1/actors", WHEN, signal, (now) => {
    const change = changed(actors, now);
    if (change) last.textContent = change;
    actors = now;
    tell();
  }, ({ message }) => table.fail(message));
}

/** What became of an actor since the last look, in words; the last one where there were several. */
function changed(before, now) {
  const old = new Map(before.map((actor) => [actor.name, actor]));
  let words = "";
  for (const actor of now) {
    const was = old.get(actor.name);
    if (!was) continue;
    const at = clock(Date.now());
    if (actor.restarts > was.restarts) words = t("was_restarted", at, withNames(actor.name));
    else if (actor.state !== was.state) words = t("is_now", at, withNames(actor.name), named("actor", actor.state));
  }
  return words;
}

/** The tree in the order in which it is read, without what is folded away. */
function flat(actors, folded) {
  const names = new Set(actors.map(({ name }) => name));
  const children = Map.groupBy(actors, ({ name, parent }) => (names.has(parent) && parent !== name ? parent : ""));
  const rows = [];
  const walk = (parent, depth) => {
    for (const actor of depth < DEPTH_MAX ? children.get(parent) ?? [] : []) {
      const isOpen = children.has(actor.name) ? !folded.has(actor.name) : undefined;
      rows.push({ ...actor, depth, isOpen });
      if (isOpen) walk(actor.name, depth + 1);
    }
  };
  walk("", 0);
  return rows;
}

function label({ name, parent, isOpen }) {
  const own = withNames(parent && name.startsWith(`${parent}/`) ? name.slice(parent.length + 1) : name);
  if (isOpen === undefined) return own;
  return [button("fold", isOpen ? "▾" : "▸", t("below", own), isOpen), " ", own];
}

/** The root is the process, and is restarted by whatever runs that. */
const byHand = ({ name, parent }) =>
  parent ? button("restart", t("restart"), t("restart_of", withNames(name))) : soft("–");

const restart = ({ name, kind }, signal) => order({
  title: t("restart_of", withNames(name)),
  words: t(kind === "supervisor" ? "restart_branch_words" : "restart_words"),
  action: t("restart"),
  path: `/api/v1/actors/${encodeURIComponent(name)}/restart`,
}, signal);

const stateOf = ({ state, busy_ms }) =>
  state === "stuck" ? `${named("actor", state)}, ${t("busy", span(busy_ms))}` : named("actor", state);

function failure(actor) {
  if (!actor.last_error || (actor.restarts === 0 && !isIll(actor))) return soft("–");
  return english(actor.last_error);
}
