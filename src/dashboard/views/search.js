// Searches for members and for resources; hits are shown as they come.

import { badge, code, make, part, section, soft, spans, strong, Table } from "../draw.js";
import { DASH, known, millis, moment, number, who } from "../say.js";
import { named, t } from "../words.js";

// Both are what the daemon takes.
const SCOPES = ["all", "known", "partner"];
const KINDS = ["compute", "storage", "processing", "data", "workflow"];
// The daemon ends a search long before; this bounds what a broken one could fill the page with.
const HITS_MAX = 1_000;

const OUTCOMES = { answered: "good", refused: "warn", lost: "bad", open: "warn" };

export function show(main, signal) {
  const text = make("input", { id: "search-text", type: "search", autocomplete: "off", spellcheck: "false", "data-first": true });
  const what = choice("what", ["members", "resources"], t);
  const scope = choice("scope", SCOPES, (name) => named("scope", name));
  const kind = choice("kind", ["", ...KINDS], (name) => (name ? named("kind", name) : t("any")));
  const traced = make("input", { type: "checkbox", "data-traced": true });
  const only = make("span", { class: "only" }, scope.label, kind.label);
  const form = make("form", { class: "search", role: "search" },
    make("label", { for: "search-text" }, t("search_for")), text, what.label, only,
    make("label", { class: "tick" }, traced, t("trace_wanted")),
    make("button", { type: "submit" }, t("search")));
  const progress = make("p", { class: "lead", role: "status", "data-progress": true });
  const hits = make("ol", { class: "hits" });
  main.append(form);
  section(main, "hits", progress, hits);
  const waterfall = make("div");
  main.append(waterfall);
  const adapt = () => { only.hidden = what.field.value !== "resources"; };
  what.field.addEventListener("change", adapt);
  adapt();
  progress.textContent = t("search_hint");

  let running = new AbortController();
  signal.addEventListener("abort", () => running.abort());
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    running.abort();
    running = new AbortController();
    hits.replaceChildren();
    waterfall.replaceChildren();
    const asked = path(text.value.trim(), what.field.value, scope.field.value, kind.field.value);
    run(traced.checked ? `${asked}&trace=true` : asked, running.signal, hits, progress, waterfall);
  });
}

function choice(title, values, say) {
  const field = make("select", {}, ...values.map((value) => make("option", { value }, say(value))));
  return { field, label: make("label", {}, make("span", {}, t(title)), " ", field) };
}

function path(text, what, scope, kind) {
  if (what === "resources") {
    const question = new URLSearchParams({ text, scope });
    if (kind) question.set("kind", kind);
    return `/api/v1/searches?${question}`;
  }
  const field = text.startsWith("did:") ? "did" : /^(12D3Koo|Qm)\w{30,}$/.test(text) ? "peer_id" : "name";
  return `/api/v1/search?${new URLSearchParams({ [field]: text })}`;
}

function run(path, signal, hits, progress, waterfall) {
  const events = new EventSource(path);
  signal.addEventListener("abort", () => events.close());
  let count = 0;
  progress.textContent = t("searching", count);
  events.addEventListener("hit", ({ data }) => {
    if (count >= HITS_MAX) return;
    count += 1;
    const hit = JSON.parse(data);
    hits.append(hit.resource ? resource(hit) : member(hit));
    progress.textContent = t("searching", count);
  });
  events.addEventListener("trace", ({ data }) => fall(waterfall, JSON.parse(data)));
  events.addEventListener("end", ({ data }) => {
    events.close();
    progress.replaceChildren(...lastWord(JSON.parse(data)).map(part));
  });
  // A stream that breaks would be asked for again, which is another search.
  events.addEventListener("error", async () => {
    events.close();
    if (count > 0) {
      progress.textContent = t("broken_off", count);
      return;
    }
    progress.textContent = t("broken_off", 0);
    const why = await refusal(path, signal);
    if (why && !signal.aborted) progress.replaceChildren(part(badge("bad", t("failed", why))));
  });
}

/** Who was asked when, and when each answered. */
function fall(parent, { trace_id: id, took_ms: took, asked, left_out: left }) {
  const whole = section(parent, "where_time");
  whole.append(make("p", { class: "lead", "data-trace": true }, t("trace_took", millis(took)), " ", part(code(id))),
    make("p", { class: "lead" }, t("trace_bars")));
  const after = (ms) => known(ms, millis);
  const table = new Table(whole, {
    caption: "where_time",
    key: ({ at }) => at,
    empty: "nobody_asked",
    columns: [
      { head: "asked", name: true, cell: ({ peer_id }) => who(peer_id) },
      { head: "asked_how", cell: ({ how }) => named("how", how) },
      { head: "time", cell: (one) => bar(one, took) },
      { head: "outcome", cell: ({ outcome }) => badge(OUTCOMES[outcome] ?? "idle", named("outcome", outcome)) },
      { head: "asked_at", number: true, cell: ({ asked_ms }) => after(asked_ms) },
      { head: "connected_at", number: true, cell: ({ connected_ms }) => after(connected_ms) },
      { head: "first_answer", number: true, cell: ({ first_ms }) => after(first_ms) },
      { head: "newest_answer", number: true, cell: ({ last_ms }) => after(last_ms) },
      { head: "hits", number: true, cell: ({ hits }) => number(hits) },
      { head: "its_indexers", cell: ({ indexers }) => indexers ? t("of", number(indexers.answered), number(indexers.asked)) : DASH },
    ],
  });
  // One may be asked on a stream and by gossip.
  table.show(asked.map((one, at) => ({ ...one, at })));
  if (left > 0) whole.append(make("p", { class: "note" }, t("and_more", left)));
}

/** Its way to be asked, its thinking, its answers, as parts of the whole search. */
function bar({ asked_ms: asked, connected_ms: connected, first_ms: first, last_ms: last, outcome }, took) {
  const place = (ms) => Math.min(1, Math.max(0, ms / (took || 1)));
  const end = place(outcome === "open" ? took : last ?? took);
  const answers = Math.min(end, place(first ?? Infinity));
  const waits = Math.min(answers, place(connected ?? asked));
  const begins = Math.min(waits, place(asked));
  const parts = [["dial", begins, waits], ["wait", waits, answers]].filter(([, from, to]) => to > from);
  if (first !== null && first !== undefined) parts.push(["answers", answers, end]);
  return spans(parts, t("time_from_to", millis(asked), millis(end * took)));
}

/** Why a search was not begun: an event source keeps that to itself. */
async function refusal(path, signal) {
  const asked = new AbortController();
  signal.addEventListener("abort", () => asked.abort());
  try {
    const answer = await fetch(path, { signal: asked.signal, cache: "no-store" });
    if (!answer.ok) return String((await answer.json()).detail ?? "");
  } catch {
    // Not reached: the page says so above.
  }
  asked.abort();
  return "";
}

function lastWord(end) {
  const why = end.ended ?? end.reason;
  const took = end.took_ms ?? end.elapsed_ms;
  const isWhole = why === "complete" || (why === "idle" && end.asked === 0);
  const words = [t("found_in", end.hits, millis(took))];
  words.push(end.asked > 0 ? t("answered_of", end.answered, end.asked) : t("answered_by", end.answered));
  if (end.refused) words.push(t("refused_by", end.refused));
  if (end.timed_out) words.push(t("late_were", end.timed_out));
  if (end.truncated) words.push(t("left_some_out"));
  return [badge(isWhole && !end.truncated ? "good" : "warn", named("ended", why)), " ", words.join(", ")];
}

function member({ peer_id, name, did, source, expiry_date, after_ms, record }) {
  return make("li", {},
    make("p", {}, ...who(peer_id, name).map(part), " ",
      part(soft([named("source", source), t("valid_to", moment(expiry_date)), t("after", millis(after_ms))].join(", ")))),
    make("p", {}, part(code(peer_id)), " ", part(code(did))),
    whole("record", record));
}

function resource({ peer_id, resource, elapsed_ms }) {
  return make("li", {},
    make("p", {}, part(strong(resource.name)), " ", part(soft([named("kind", resource.kind), t("after", millis(elapsed_ms))].join(", ")))),
    make("p", {}, resource.short_description ?? "", " ", part(soft(t("offered_by"))), " ", ...who(peer_id).map(part), " ", part(code(resource.id))),
    whole("resource", resource));
}

/** As it was signed, for those who want to see it. */
function whole(title, value) {
  const lines = JSON.stringify(value, null, 2).split("\n");
  return make("details", {}, make("summary", {}, t(title)), make("pre", { tabindex: "0" }, ...lines.flatMap((line) => [line, make("br")])));
}
