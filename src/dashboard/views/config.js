// The settings in force, each with where it was set, and what waits for a restart. `#/config/set` and `#/config/waiting` narrow it.

import { badge, code, english, filter, make, soft, Table } from "../draw.js";
import { SLOWLY, watch } from "../source.js";
import { named, t } from "../words.js";

const WHEN = { every: SLOWLY, on: /^settings_/ };

const KINDS = ["all", "set", "waiting"];

const isWaiting = (setting) => "after_restart" in setting;
// The daemon's words for what nobody set.
const isSet = ({ origin }) => !origin.startsWith("built in");
const belongs = { all: () => true, set: isSet, waiting: isWaiting };

export function show(main, signal, about) {
  const kind = KINDS.includes(about) ? about : "all";
  const summary = make("p", { class: "lead", role: "status", "data-summary": true });
  const links = KINDS.map((name) =>
    make("a", { href: `#/config/${name}`, "aria-current": name === kind && "true" }, named("settings", name)));
  main.append(summary, make("p", { class: "pages" }, ...links.flatMap((link) => [link, " "])));
  let settings = [];
  const narrow = filter(main, () => tell());
  const table = new Table(main, {
    caption: "config",
    key: ({ key }) => key,
    empty: "no_settings",
    columns: [
      { head: "setting", name: true, cell: ({ key }) => code(key) },
      { head: "value", cell: value },
      { head: "origin", cell: origin },
      { head: "change", cell: ({ live }) => live ? badge("good", t("change_live")) : badge("idle", t("change_restart")) },
      { head: "variable", cell: ({ variable }) => code(variable) },
    ],
    dress: (line, setting) => line.toggleAttribute("data-waiting", isWaiting(setting)),
  });
  const tell = () => {
    const shown = settings.filter(belongs[kind]);
    table.show(narrow.of(shown, ({ key, variable, origin: from, value: is }) => [key, variable, from, said(is)]));
    const waiting = settings.filter(isWaiting).length;
    summary.textContent = t("settings_are", settings.length, settings.filter(isSet).length, waiting);
  };
  watch("/api/v1/config", WHEN, signal, (now) => {
    settings = now;
    tell();
  }, ({ message }) => table.fail(message));
}

/** As it would be written; a text without its quotes, unless it is empty. */
const said = (value) => (typeof value === "string" && value !== "" ? value : JSON.stringify(value));

function value(setting) {
  const now = code(said(setting.value));
  if (!isWaiting(setting)) return now;
  return [now, " ", badge("warn", t("after_restart", said(setting.after_restart)))];
}

const origin = (setting) => (isSet(setting) ? english(setting.origin) : soft(t("built_in")));
