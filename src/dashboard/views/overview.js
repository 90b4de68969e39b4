// Who this member is, how it stands, and what happened lately.

import { badge, code, english, Facts, make, part, section, soft } from "../draw.js";
import { clock, known, moment, number, span, who, withNames } from "../say.js";
import { EVENTS_MAX, hear, SLOWLY, watch } from "../source.js";
import { named, t } from "../words.js";
import { isIll } from "./actors.js";
import { watchBus } from "./bus.js";

// Whatever happens may change how it stands.
const STATUS_WHEN = { every: SLOWLY, on: /./ };
const ALERTS_WHEN = { every: SLOWLY, on: /^alert/ };
const ACTORS_WHEN = { every: SLOWLY, on: /^actor_/ };

const STANDINGS = { whole: "good", joined: "warn", joining: "warn", isolated: "bad", leaving: "warn" };
const BUSES = { ready: "good", entering: "warn", away: "bad" };

const RELIEF = /joined|whole|restarted|ready$|over$|cleared|unbanned/;
const HARM = /alert$|failed|escalated|lost|isolated|banned|removed|suspected|down$|refused|dropped|exposed|unreachable|trouble/;
const mark = (kind) => (RELIEF.test(kind) ? "good" : HARM.test(kind) ? "warn" : "idle");

export function show(main, signal) {
  const tiles = new Facts(main, "tiles");
  const troubles = make("ul", { class: "troubles" });
  main.append(troubles);
  const log = make("ol", { class: "events", role: "log", tabindex: "0", "aria-label": t("events") });
  const quiet = make("p", { class: "note" }, t("loading"));
  section(main, "events", log, quiet);
  const facts = new Facts(section(main, "member"));

  let status = null;
  const parts = { alerts: soft(t("loading")), actors: soft(t("loading")), bus: soft(t("loading")) };
  const tell = () => status && tiles.show(summary(status, parts));
  const say = (name, content) => {
    parts[name] = content;
    tell();
  };
  const unknown = (name) => () => say(name, badge("bad", t("unknown")));
  watch("/api/v1/status", STATUS_WHEN, signal, (now) => {
    status = now;
    tell();
    facts.show(details(now));
    tellTroubles(troubles, now.reasons.map(english));
  }, ({ message }) => tellTroubles(troubles, [english(message)]));
  watch("/api/v1/alerts", ALERTS_WHEN, signal, (alerts) => say("alerts", alarm(alerts)), unknown("alerts"));
  watch("/api/v1/actors", ACTORS_WHEN, signal, (actors) => say("actors", health(actors)), unknown("actors"));
  watchBus(signal, ({ state }) => say("bus", badge(BUSES[state] ?? "idle", named("bus", state))),
    () => say("bus", badge("idle", t("none"))), unknown("bus"));

  hear(signal, (events) => {
    for (const event of events) log.prepend(line(event));
    while (log.childElementCount > EVENTS_MAX) log.lastElementChild.remove();
    quiet.textContent = log.childElementCount === 0 ? t("no_events") : "";
  }, ({ message }) => { quiet.textContent = t("failed", message); });
}

function tellTroubles(list, troubles) {
  const texts = JSON.stringify(troubles);
  if (list.shown === texts) return;
  list.shown = texts;
  list.replaceChildren(...troubles.map((trouble) => make("li", {}, part(badge("warn", "")), part(trouble))));
}

function alarm(alerts) {
  const critical = alerts.filter(({ severity }) => severity === "critical").length;
  if (critical > 0 && critical === alerts.length) return badge("bad", t("alerts_all_critical", number(critical)));
  if (critical > 0) return badge("bad", t("alerts_critical", number(alerts.length), number(critical)));
  return alerts.length > 0 ? badge("warn", number(alerts.length)) : badge("good", t("none"));
}

function health(actors) {
  const ill = actors.filter(isIll).length;
  if (ill > 0) return badge("bad", t("actors_ill", number(ill), number(actors.length)));
  return badge("good", t("actors_well", number(actors.length)));
}

function summary(status, { alerts, actors, bus }) {
  const { pool_answering: answering, pool_members: members, pool_min: least } = status;
  const tiles = [
    ["standing", badge(STANDINGS[status.standing] ?? "idle", named("standing", status.standing))],
    ["readiness", status.ready ? badge("good", t("ready")) : badge("bad", t("not_ready"))],
    ["pool", badge(answering === 0 ? "bad" : answering < least ? "warn" : "good", t("answer_of", answering, members))],
  ];
  if (status.role.indexer) {
    const sessions = t("of", number(status.sessions), number(status.max_nodes));
    tiles.push(["sessions", status.drained ? badge("warn", `${sessions}, ${t("drained")}`) : badge("good", sessions)]);
  }
  tiles.push(
    ["alerts", alerts],
    ["actors", actors],
    ["connections", number(status.connections)],
    ["database", status.store_ok ? badge("good", t("answers")) : badge("bad", t("answers_not"))],
    ["bus", bus],
  );
  return tiles;
}

function details(status) {
  return [
    ["peer_id", code(status.peer_id)],
    ["did", code(status.did)],
    ["network_id", `${status.network_id} (${status.profile})`],
    ["version", `${status.version}, ${t("up", span(status.uptime_ms))}`],
    ["born_at", moment(status.born_at)],
    ["listens", status.listen.length === 0 ? "–" : status.listen.flatMap((address) => [code(address), " "])],
    ["pool_bounds", t("pool_bounds_are", status.pool_min, status.pool_max)],
    ["represented_by", status.referent ? who(status.referent) : "–"],
    ["indexers_known", number(status.indexers_known)],
    ["record_number", known(status.record_seq || null)],
  ];
}

function line({ at, kind, subject, detail }) {
  return make("li", {},
    make("time", { datetime: at }, clock(at)), " ",
    part(badge(mark(kind), named("event", kind))), " ",
    make("strong", { title: subject }, withNames(subject)), " ",
    make("span", { class: "soft", lang: "en" }, detail));
}
