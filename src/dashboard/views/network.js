// A drawing of this member, its pool, those who beat here and whom else it is connected with; the same below as a table.

import { badge, draw, make, section, Table } from "../draw.js";
import { known, millis, role, who, whoText } from "../say.js";
import { SLOWLY, watch } from "../source.js";
import { named, t } from "../words.js";

const WHEN = { every: SLOWLY, on: /^(member|indexer|peer|session|standby|referent)_|^(isolated|joined|joining|whole)$/ };
// How large a drawing is. More than `most` cannot be told apart in it; the table has them all.
const RINGS = { width: 960, height: 600, most: 48, inner: [210, 130], outer: [400, 245], places: around };
// On a narrow screen the pool stands above us and the others below, two in a row.
const ROWS = { width: 420, most: 12, step: 85, places: inRows };
const INNER_TURN = 0.25;
// Tried for the outer ring.
const TURNS = Array.from({ length: 12 }, (_, at) => (at + 0.5) / 12);
const NARROW = matchMedia("(max-width: 48rem)");

const STATES = { answering: "good", joining: "idle", suspect: "warn", down: "bad", standby: "idle" };

export function show(main, signal) {
  const chart = draw("svg", { class: "map", role: "img", "aria-label": t("loading") });
  const left = make("p", { class: "note" }, t("loading"));
  main.append(chart, left, legend());
  const table = new Table(section(main, "neighbours"), {
    caption: "neighbours",
    key: ({ id }) => id,
    empty: "no_neighbours",
    columns: [
      { head: "name", name: true, cell: ({ id, name }) => who(id, name) },
      { head: "role", cell: (one) => one.role },
      { head: "state", cell: (one) => badge(one.mark, one.state) },
      { head: "round_trip", number: true, cell: ({ rtt }) => known(rtt, millis) },
    ],
  });

  const told = {};
  const tell = () => {
    if (!told.status || !told.indexers || !told.sessions || !told.peers) return;
    const ones = neighbours(told);
    table.show(ones);
    const frame = NARROW.matches ? ROWS : RINGS;
    picture(chart, told.status, ones.slice(0, frame.most), frame);
    left.textContent = ones.length > frame.most ? t("left_out", ones.length - frame.most) : "";
  };
  for (const what of ["status", "indexers", "sessions", "peers"]) {
    watch(`/api/v1/${what}`, WHEN, signal, (data) => {
      told[what] = data;
      tell();
    }, ({ message }) => table.fail(message));
  }
}

/** Each peer once, as the nearest thing that it is to us: in the pool, then with a session, then connected. */
function neighbours({ indexers, sessions, peers }) {
  const known = new Map(peers.map((peer) => [peer.peer_id, peer]));
  const ones = new Map();
  const add = (id, one) => ones.has(id) || ones.set(id, { id, ...one });
  for (const { peer_id: id, name, state, referent, rtt_ms: rtt } of indexers) {
    const words = referent ? `${named("pool", state)}, ${t("referent")}` : named("pool", state);
    add(id, { name, isIndexer: true, ring: "inner", mark: STATES[state] ?? "idle", state: words, rtt, role: t("role_indexer") });
  }
  for (const { peer_id: id, name, indexer: isIndexer, rtt_ms: rtt } of sessions) {
    const is = t(isIndexer ? "role_indexer" : "role_node");
    add(id, { name, isIndexer, ring: "outer", mark: "good", state: t("in_session"), rtt, role: is });
  }
  for (const { peer_id: id, name, role: is, connected } of known.values()) {
    const state = t(connected ? "connected" : "not_connected");
    add(id, { name, isIndexer: is.indexer, ring: "outer", mark: connected ? "good" : "idle", state, role: role(is) });
  }
  const rank = ({ ring, mark }) => (ring === "inner" ? 0 : mark === "good" ? 1 : 2);
  return [...ones.values()].sort((one, other) => rank(one) - rank(other) || (one.id < other.id ? -1 : 1));
}

function picture(chart, status, ones, frame) {
  const signature = JSON.stringify([frame.width, status.name, status.standing, ones.map(({ rtt, ...one }) => one)]);
  if (chart.shown === signature) return;
  chart.shown = signature;
  const [inner, outer] = ["inner", "outer"].map((name) => ones.filter(({ ring }) => ring === name));
  const { height, centre, places } = frame.places(inner, outer);
  const [x1, y1] = centre;
  const lines = places.map(([one, x2, y2]) => draw("line", { class: `edge ${one.mark}`, x1, y1, x2, y2 }));
  const us = { id: status.peer_id, name: status.name, isIndexer: status.role.indexer, mark: "self", state: named("standing", status.standing) };
  chart.setAttribute("viewBox", `0 0 ${frame.width} ${height}`);
  chart.replaceChildren(...lines, ...places.map(([one, x, y]) => shape(one, x, y)), shape(us, ...centre));
  chart.setAttribute("aria-label", t("map_shows", status.name, ones.length));
}

/** Two rings around us, the inner one turned so that few lines go straight down through a label, the outer one past the inner. */
function around(inner, outer) {
  const { width, height } = RINGS;
  const centre = [width / 2, height / 2];
  const ring = (ones, [wide, high], turn) => ones.map((one, at) => {
    const angle = (2 * Math.PI * (at + turn)) / ones.length - Math.PI / 2;
    return [one, centre[0] + wide * Math.cos(angle), centre[1] + high * Math.sin(angle)];
  });
  const turn = past(inner.length, outer.length);
  return { height, centre, places: [...ring(inner, RINGS.inner, INNER_TURN), ...ring(outer, RINGS.outer, turn)] };
}

/** By which turn of the outer ring its lines stay farthest from those of the inner one, which they would run through. */
function past(inner, outer) {
  const places = (count, turn) => Array.from({ length: count }, (_, at) => (at + turn) / count);
  const apart = (one, other) => Math.abs(((one - other + 1.5) % 1) - 0.5);
  const room = (turn) => Math.min(1, ...places(outer, turn).flatMap((one) => places(inner, INNER_TURN).map((other) => apart(one, other))));
  return TURNS.reduce((best, turn) => (room(turn) > room(best) ? turn : best));
}

function inRows(inner, outer) {
  const { width, step } = ROWS;
  const above = Math.ceil(inner.length / 2);
  const middle = step * (above + 0.5);
  const place = (one, at, way) => [one, width * (at % 2 === 0 ? 0.22 : 0.78), middle + way * step * (Math.floor(at / 2) + 1)];
  const places = [...inner.map((one, at) => place(one, at, -1)), ...outer.map((one, at) => place(one, at, 1))];
  return { height: middle + step * (Math.ceil(outer.length / 2) + 0.8), centre: [width / 2, middle], places };
}

/** Indexers are square and nodes are round; those that do not answer are hollow. The words say it again. */
function shape({ id, name, isIndexer, mark, state }, x, y) {
  const body = isIndexer
    ? draw("rect", { x: -13, y: -13, width: 26, height: 26, rx: 3 })
    : draw("circle", { r: 14 });
  return draw("g", { class: `peer ${mark}`, transform: `translate(${Math.round(x)} ${Math.round(y)})`, "data-peer": id },
    draw("title", {}, `${whoText(id, name)}: ${state}`), body,
    draw("text", { y: 30, class: "label" }, whoText(id, name)),
    draw("text", { y: 45, class: "state" }, state));
}

function legend() {
  const item = (mark, isIndexer, words) => make("li", {},
    draw("svg", { viewBox: "-18 -18 36 36", "aria-hidden": "true" },
      draw("g", { class: `peer ${mark}` },
        isIndexer ? draw("rect", { x: -13, y: -13, width: 26, height: 26, rx: 3 }) : draw("circle", { r: 14 }))),
    " ", t(words));
  return make("ul", { class: "legend", "aria-label": t("legend") },
    item("good", true, "legend_indexer"), item("good", false, "legend_node"), item("bad", false, "legend_hollow"));
}
