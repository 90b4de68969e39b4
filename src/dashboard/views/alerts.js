// What is wrong with the member and its host, and what was measured in the last hours.

import { badge, curve, english, section, Table } from "../draw.js";
import { ago, DASH, millis, number } from "../say.js";
import { watch } from "../source.js";
import { named, t } from "../words.js";

const EVERY = 1_000;
// A sample is taken every 30 s.
const HISTORY_EVERY = 10_000;
// More points than a curve is wide show nothing.
const DRAWN_MAX = 96;

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
  watch("/api/v1/alerts", EVERY, signal, (alerts) => table.show(alerts), ({ message }) => table.fail(message));

  const history = new Table(section(main, "measured_lately"), {
    caption: "measured_lately",
    key: ({ topic }) => topic,
    empty: "no_samples",
    columns: [
      { head: "topic", name: true, cell: ({ topic }) => named("topic", topic) },
      { head: "measured", number: true, cell: ({ topic, values }) => said(topic, values.at(-1)) },
      { head: "lately", cell: drawn },
    ],
  });
  watch("/api/v1/alerts/history", HISTORY_EVERY, signal, (samples) => {
    const topics = Object.keys(samples.at(-1)?.figures ?? {});
    const values = (topic) => samples.map(({ figures }) => figures[topic]).filter((figure) => figure !== undefined);
    history.show(topics.map((topic) => ({ topic, values: values(topic) })));
  }, ({ message }) => history.fail(message));
}

/** A figure in the unit of its topic. */
function said(topic, figure) {
  if (SHARES.includes(topic)) return `${number(100 * figure, 1)} %`;
  if (SPANS.includes(topic)) return millis(figure);
  return AWAY.includes(topic) ? t(figure === 0 ? "no" : "yes") : number(figure);
}

function drawn({ topic, values: all }) {
  const values = all.slice(-DRAWN_MAX);
  if (values.length < 2) return DASH;
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const whole = SHARES.includes(topic) ? 1 : most || 1;
  return curve(values.map((value) => value / whole), t("span_from_to", said(topic, least), said(topic, most)));
}
