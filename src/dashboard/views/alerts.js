// What is wrong with the member and its host, and what was measured in the last hours.

import { badge, english, fill, make, section, strong, Table } from "../draw.js";
import { Plot } from "../plot.js";
import { ago, DASH, known, millis, number } from "../say.js";
import { SLOWLY, watch } from "../source.js";
import { named, t } from "../words.js";

const WHEN = { every: SLOWLY, on: /^alert/ };
// A sample is taken every 30 s.
const HISTORY_WHEN = { every: 10_000 };

const SEVERITIES = { warning: "warn", critical: "bad" };
const SHARES = ["cpu", "memory", "disk"];
const SPANS = ["latency", "database_slow"];
const AWAY = ["database", "bus", "isolated"];

export function show(main, signal) {
  const table = new Table(main, {
    caption: "alerts",
    key: ({ topic }) => topic,
    empty: "no_alerts",
    columns: [
      { head: "topic", name: true, cell: ({ topic }) => named("topic", topic) },
      { head: "severity", cell: ({ severity }) => badge(SEVERITIES[severity] ?? "idle", named("severity", severity)) },
      { head: "since", cell: ({ since }) => ago(since) },
      { head: "measured", number: true, cell: ({ topic, figure }) => said(topic, figure) },
      { head: "allowed", number: true, cell: ({ topic, bound }) => (AWAY.includes(topic) ? DASH : said(topic, bound)) },
      { head: "remedy", cell: ({ remedy }) => english(remedy) },
    ],
  });
  watch("/api/v1/alerts", WHEN, signal, (alerts) => table.show(alerts), ({ message }) => table.fail(message));

  measured(section(main, "measured_lately"), signal);
}

/** Each figure with its unit, and as it was in the last hours. */
function measured(parent, signal) {
  const note = make("p", { class: "note" }, t("loading"));
  const grid = make("div", { class: "plots" });
  parent.append(note, grid);
  const panes = new Map();
  const paneOf = (topic) => {
    if (!panes.has(topic)) {
      const words = make("figcaption");
      const figure = make("figure", {}, words);
      grid.append(figure);
      const most = SHARES.includes(topic) || AWAY.includes(topic) ? 1 : (greatest) => greatest || 1;
      const say = (value) => said(topic, value);
      panes.set(topic, { words, plot: new Plot(figure, signal, { name: named("topic", topic), height: 110, most, say, lines: [{ kind: "score" }] }) });
    }
    return panes.get(topic);
  };
  watch("/api/v1/alerts/history", HISTORY_WHEN, signal, (samples) => {
    note.classList.remove("wrong");
    note.textContent = samples.length === 0 ? t("no_samples") : "";
    const now = samples.at(-1)?.figures ?? {};
    for (const topic of new Set(samples.flatMap(({ figures }) => Object.keys(figures)))) {
      const { words, plot } = paneOf(topic);
      fill(words, [strong(named("topic", topic)), " ", known(now[topic], (figure) => said(topic, figure))]);
      plot.show(samples.map(({ at, figures }) => ({ at: Date.parse(at), values: [figures[topic]] })));
    }
  }, ({ message }) => {
    note.textContent = t("failed", message);
    note.classList.add("wrong");
  });
}

/** A figure in the unit of its topic. */
function said(topic, figure) {
  if (SHARES.includes(topic)) return `${number(100 * figure, 1)} %`;
  if (SPANS.includes(topic)) return millis(figure);
  if (AWAY.includes(topic)) return figure === 0 ? t("no") : figure === 1 ? t("yes") : "";
  return number(figure, Number.isInteger(figure) ? 0 : 1);
}
