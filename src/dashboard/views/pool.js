// The pool of indexers, best first; `#/pool/12D3…` shows why one has its score.

import { badge, english, Facts, fill, link, make, part, section, strong, Table } from "../draw.js";
import { follow, lately } from "../lately.js";
import { legend, Plot } from "../plot.js";
import { ago, clock, DASH, known, millis, number, speed, who, whoText } from "../say.js";
import { SLOWLY, watch } from "../source.js";
import { named, t } from "../words.js";

const WHEN = { every: SLOWLY, on: /^(member|indexer|standby|referent|others)_/ };
// Of the events behind a score, the latest; the command line has them all.
const SEEN_MAX = 50;

const STATES = { answering: "good", joining: "idle", suspect: "warn", down: "bad", standby: "idle" };
const MARKS = ["referent", "seed", "sticky"];
// In the order of the daemon.
const PARTS = ["uptime", "challenges", "latency", "fill", "fill_consistency", "witnesses", "dht"];
// The lines of the large drawing, as the values of a sample.
const LINES = [{ kind: "score" }, { kind: "threshold" }, { kind: "bound" }, { kind: "bound" }];
const BAND = [2, 3];

export function show(main, signal, about) {
  let pool = null;
  const tell = () => pool && table.show(pool);
  let over = () => {};
  const curves = follow(signal, () => {
    tell();
    over(curves(about));
  });
  const table = new Table(main, {
    caption: "pool",
    key: ({ peer_id }) => peer_id,
    empty: "no_pool",
    columns: [
      { head: "name", name: true, cell: ({ peer_id, name }) => who(peer_id, name) },
      { head: "state", cell: ({ state }) => badge(STATES[state] ?? "idle", named("pool", state)) },
      { head: "score", number: true, cell: ({ score }) => known(score, (value) => number(value, 1)) },
      { head: "lately", cell: ({ peer_id }) => lately(curves(peer_id)) },
      { head: "why", cell: ({ peer_id, name }) => link(`#/pool/${peer_id}`, t("why"), t("why_of", whoText(peer_id, name))) },
      { head: "threshold", number: true, cell: ({ threshold }) => number(threshold, 1) },
      { head: "round_trip", number: true, cell: ({ rtt_ms }) => known(rtt_ms, millis) },
      { head: "nodes", number: true, cell: nodes },
      { head: "beats", number: true, cell: ({ beats }) => number(beats) },
      { head: "missed", number: true, cell: ({ missed }) => number(missed) },
      { head: "last_answer", cell: ({ last_answer }) => known(last_answer, ago) },
      { head: "marks", cell: (one) => MARKS.filter((mark) => one[mark]).map((mark) => t(mark)).join(", ") || DASH },
    ],
    dress: (line, { peer_id }) => line.toggleAttribute("data-chosen", peer_id === about),
  });
  watch("/api/v1/indexers", WHEN, signal, (now) => {
    pool = now;
    tell();
  }, ({ message }) => table.fail(message));
  if (about) over = why(main, signal, about);
}

const nodes = ({ peer_count: count, max_nodes: most, fill_rate: fill }) =>
  count !== null && most !== null ? t("of", number(count), number(most)) : known(fill, (rate) => `${number(rate * 100)} %`);

/** What a score rests on: its parts, its bounds, what was decided and what was seen. Gives what draws it over time. */
function why(main, signal, about) {
  const whole = section(main, "why_score");
  whole.querySelector("h2").setAttribute("tabindex", "-1");
  whole.querySelector("h2").dataset.first = "";
  whole.append(make("p", {}, part(strong(t("of_peer"))), " ", part(strong(whoText(about))), " ", make("code", {}, about)));
  const facts = new Facts(whole);
  const over = overTime(whole, signal);
  const parts = new Table(whole, {
    caption: "parts",
    key: ({ name }) => name,
    empty: "no_evidence",
    columns: [
      { head: "part", name: true, cell: ({ name }) => named("part", name) },
      { head: "value", number: true, cell: ({ value }) => known(value, (value) => `${number(100 * value, 1)} %`) },
      { head: "weight", number: true, cell: ({ share }) => `${number(share * 100)} %` },
      { head: "points", number: true, cell: ({ value, share }) => known(value, (value) => number(100 * share * value, 1)) },
      { head: "evidence", cell: ({ evidence }) => english(evidence) },
    ],
  });
  const decisions = list(whole, "decisions");
  const seen = list(whole, "seen");
  watch(`/api/v1/indexers/${encodeURIComponent(about)}/explain`, WHEN, signal, ({ indexer, explained }) => {
    const score = explained?.score;
    facts.show([
      ["score", known(score?.value, (value) => number(value, 1))],
      ["score_bounds", score ? t("lies_between", number(score.low, 1), number(score.high, 1)) : DASH],
      ["threshold", known(indexer?.threshold ?? score?.threshold, (value) => number(value, 1))],
      ["suspicions", suspicions(score)],
      ["sends_us", known(indexer?.bytes_per_sec, speed)],
    ]);
    parts.show(shares(indexer?.parts ?? []));
    decisions((explained?.ledger.decisions ?? []).map((one) => [wall(explained, one.at), decided(one)]));
    seen((explained?.ledger.entries ?? []).map((one) => [wall(explained, one.at), observed(one.seen)]));
  }, ({ message }) => parts.fail(message));
  return over;
}

/** The score with its bounds, and each of its parts, as they were at each judgement. */
function overTime(parent, signal) {
  const title = make("h3", {}, t("over_time"));
  const note = make("p", { class: "note" }, t("loading"));
  const panes = make("div");
  parent.append(title, note, panes);
  let whole = null;
  let parts = [];
  const begin = () => {
    whole = new Plot(panes, signal, { name: t("score_of_100"), height: 200, most: 100, say: number, lines: LINES, band: BAND });
    const grid = make("div", { class: "plots" });
    panes.append(legend([
      { kind: "score", words: t("score_of_100") }, { kind: "band", words: t("score_bounds_95") }, { kind: "threshold", words: t("goes_below") },
    ]), grid);
    parts = PARTS.map((part) => {
      const words = make("figcaption");
      const figure = make("figure", {}, words);
      grid.append(figure);
      const say = (value) => `${number(100 * value)} %`;
      return { part, figure, words, plot: new Plot(figure, signal, { name: named("part", part), height: 96, most: 1, say, lines: [{ kind: "score" }] }) };
    });
  };
  return (samples) => {
    const seen = samples.map((sample) => ({ ...sample, when: Date.parse(sample.at) }));
    note.textContent = seen.length < 2 ? t("no_curve") : "";
    if (seen.length < 2) return;
    if (!whole) begin();
    whole.show(seen.map(({ when, value, threshold, low, high }) => ({ at: when, values: [value, threshold, low, high] })));
    for (const { part, figure, words, plot } of parts) {
      figure.hidden = !seen.some((sample) => part in sample.parts);
      fill(words, [strong(named("part", part)), " ", known(seen.at(-1).parts[part], (value) => `${number(100 * value, 1)} %`)]);
      plot.show(seen.map(({ when, parts: values }) => ({ at: when, values: [values[part]] })));
    }
  };
}

/** The weights of parts without evidence are shared among the others. */
function shares(parts) {
  const known = parts.filter(({ value }) => value !== null).reduce((sum, { weight }) => sum + weight, 0);
  return parts.map((part) => ({ ...part, share: part.value === null || known === 0 ? 0 : part.weight / known }));
}

function suspicions(score) {
  const sums = Object.entries(score?.suspicions.sums ?? {}).map(([check, sum]) => `${check} ${number(sum, 1)}`);
  if (score?.suspicions.is_caught) return badge("bad", [t("caught"), ...sums].join(", "));
  return sums.length === 0 ? t("none") : badge("warn", sums.join(", "));
}

const seconds = ({ secs, nanos }) => secs + nanos / 1e9;
const wall = ({ at, now }, then) => new Date(Date.parse(at) - (seconds(now) - seconds(then)) * 1000);

/** A value of the daemon that is a name, or a name with what belongs to it. */
const split = (value) => (typeof value === "string" ? [value, {}] : Object.entries(value)[0]);

function decided({ what, verdict }) {
  const [name, more] = split(what);
  const score = verdict ? t("with_score", number(verdict.value, 1), number(verdict.threshold, 1)) : "";
  return [named("decision", name), pairs(more), score].filter(Boolean).join("; ");
}

function observed(seen) {
  const [name, more] = split(seen);
  return [named("seen", name), pairs(more)].filter(Boolean).join("; ");
}

function pairs(more) {
  const say = (value) => {
    if (typeof value === "number") return number(value, Number.isInteger(value) ? 0 : 3);
    if (value !== null && typeof value === "object" && "secs" in value) return millis(seconds(value) * 1000);
    return typeof value === "string" ? value : JSON.stringify(value);
  };
  return Object.entries(more).map(([name, value]) => `${name.replaceAll("_", " ")} ${say(value)}`).join(", ");
}

/** A list that is folded away until it is asked for; newest first. */
function list(parent, title) {
  const items = make("ol", { class: "events" });
  const count = make("span", { class: "soft" });
  parent.append(make("details", {}, make("summary", {}, t(title), " ", count), items));
  return (lines) => {
    const signature = `${lines.length} ${lines.at(-1)?.[0]}`;
    if (items.shown === signature) return;
    items.shown = signature;
    count.textContent = `(${number(lines.length)})`;
    items.replaceChildren(...lines.slice(-SEEN_MAX).reverse().map(([at, words]) =>
      make("li", {}, make("time", { datetime: at.toISOString() }, clock(at)), " ", words)));
  };
}
