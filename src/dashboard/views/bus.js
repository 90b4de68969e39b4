// The bus of the organisation, as this member sees it.

import { badge, code, english, Facts, make } from "../draw.js";
import { known, number } from "../say.js";
import { ENOUGH, SLOWLY, watch } from "../source.js";
import { named, t } from "../words.js";

const WHEN = { every: SLOWLY, on: /^bus/ };

const STATES = { ready: "good", entering: "warn", away: "bad" };
const COUNTS = ["taken", "repeated", "put_off", "refused", "own_ignored", "announced", "dropped", "waiting"];

/** Asks how the bus is; a member that has none, which its settings say, is not asked. */
export function watchBus(signal, show, none, fail) {
  watch("/api/v1/config", WHEN, signal, (settings) => {
    if (settings.find(({ key }) => key === "bus.url")?.value) watch("/api/v1/bus", WHEN, signal, show, fail);
    else none();
    // A life of the daemon has a bus or has none.
    return ENOUGH;
  }, fail);
}

export function show(main, signal) {
  const note = make("p", { class: "note" }, t("loading"));
  const facts = new Facts(main);
  main.append(note);
  watchBus(signal, (bus) => {
    note.textContent = t("bus_counts");
    note.classList.remove("wrong");
    facts.show([
      ["state", badge(STATES[bus.state] ?? "idle", named("bus", bus.state))],
      ["address", code(bus.url)],
      ["mode", known(bus.mode, (mode) => named("mode", mode))],
      ["server", known(bus.server)],
      ["cause", english(known(bus.cause))],
      ...COUNTS.map((count) => [`bus_${count}`, number(bus[count])]),
    ]);
  }, () => { note.textContent = t("no_bus"); }, ({ message }) => {
    facts.show([]);
    note.textContent = t("failed", message);
    note.classList.add("wrong");
  });
}
