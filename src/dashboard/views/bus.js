// The bus of the organisation, as this member sees it.

import { badge, code, english, Facts, make } from "../draw.js";
import { known, number } from "../say.js";
import { ENOUGH, watch } from "../source.js";
import { named, t } from "../words.js";

const EVERY = 1_000;

const STATES = { ready: "good", entering: "warn", away: "bad" };
const COUNTS = ["taken", "repeated", "put_off", "refused", "own_ignored", "announced", "dropped", "waiting"];

export function show(main, signal) {
  const note = make("p", { class: "note" }, t("loading"));
  const facts = new Facts(main);
  main.append(note);
  watch("/api/v1/bus", EVERY, signal, (bus) => {
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
  }, (problem) => {
    facts.show([]);
    note.textContent = problem.status === 404 ? t("no_bus") : t("failed", problem.message);
    note.classList.toggle("wrong", problem.status !== 404);
    // A life of the daemon has a bus or has none.
    return problem.status === 404 && ENOUGH;
  });
}
