// Values over time as lines between two axes, drawn as wide as there is room.

import { draw, make } from "./draw.js";
import { clock } from "./say.js";
import { t } from "./words.js";

// Room for what stands beside the lines.
const EDGE = { right: 14, top: 12, bottom: 26 };
// A letter of the axes, and their distance.
const LETTER = 7;
const APART = 6;
// A pane that is not shown has no width.
const NARROWEST = 160;
// Where the upright axis says its value, as shares of the most.
const GRID = [0, 0.5, 1];

/**
 * One drawing. `lines` are `{ kind }` in the order of a sample's values, `band` which two of them bound an area; `say` says a value
 * with its unit; `most` is the top of the upright axis, for which there may be a function of the greatest value.
 */
export class Plot {
  #pane;
  #chart = draw("svg", { role: "img" });
  #of;
  #samples = [];

  constructor(parent, signal, { name, height, most, say, lines, band }) {
    this.#of = { name, height, most, say, lines, band };
    this.#pane = make("div", { class: "plot" }, this.#chart);
    parent.append(this.#pane);
    const sized = new ResizeObserver(() => this.#draw());
    sized.observe(this.#pane);
    signal.addEventListener("abort", () => sized.disconnect());
  }

  /** Shows samples, `{ at, values }` with `at` in milliseconds, the oldest first; a value that is missing breaks its line. */
  show(samples) {
    this.#samples = samples;
    this.#draw();
  }

  #draw() {
    const { name, height, say, lines, band } = this.#of;
    const width = Math.max(NARROWEST, this.#pane.clientWidth);
    const samples = this.#samples;
    const most = top(this.#of.most, samples);
    const left = LETTER * Math.max(...GRID.map((share) => say(share * most).length)) + 2 * APART;
    const signature = `${width} ${samples.length} ${samples.at(-1)?.at}`;
    this.#pane.hidden = samples.length < 2;
    if (this.#chart.shown === signature || samples.length < 2) return;
    this.#chart.shown = signature;
    const [first, last] = [samples[0].at, samples.at(-1).at];
    const x = (at) => left + ((at - first) / Math.max(1, last - first)) * (width - left - EDGE.right);
    const y = (value) => EDGE.top + (1 - value / most) * (height - EDGE.top - EDGE.bottom);
    const point = (at, value) => `${x(at).toFixed(1)},${y(Math.min(most, Math.max(0, value))).toFixed(1)}`;
    const grid = GRID.flatMap((share) => [
      draw("line", { class: "grid", x1: left, x2: width - EDGE.right, y1: y(share * most), y2: y(share * most) }),
      draw("text", { x: left - APART, y: y(share * most) + 4, "text-anchor": "end" }, say(share * most)),
    ]);
    const times = [[first, "start"], [last, "end"]].map(([at, anchor]) =>
      draw("text", { x: x(at), y: height - 6, "text-anchor": anchor }, clock(at)));
    const areas = band ? [draw("polygon", { class: "band", points: between(samples, band, point) })] : [];
    const drawn = lines.flatMap(({ kind }, index) => stretches(samples, index).map((stretch) => {
      const points = stretch.map(({ at, values }) => point(at, values[index]));
      // One alone is no line, and would not be seen.
      const [cx, cy] = points[0].split(",");
      return points.length === 1 ? draw("circle", { class: `dot ${kind}`, cx, cy, r: 2.5 }) : draw("polyline", { class: `line ${kind}`, points: points.join(" ") });
    }));
    this.#chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.#chart.setAttribute("width", width);
    this.#chart.setAttribute("height", height);
    this.#chart.setAttribute("aria-label", words(name, lines, samples, say));
    this.#chart.replaceChildren(...areas, ...grid, ...times, ...drawn);
  }
}

const top = (most, samples) =>
  typeof most === "number" ? most : most(Math.max(0, ...samples.flatMap(({ values }) => values.filter((value) => value !== undefined))));

/** Samples that follow each other and have this value. */
function stretches(samples, index) {
  const all = [[]];
  for (const sample of samples) {
    if (sample.values[index] === undefined) all.push([]);
    else all.at(-1).push(sample);
  }
  return all.filter((stretch) => stretch.length > 0);
}

function between(samples, [low, high], point) {
  const above = samples.map(({ at, values }) => point(at, values[high]));
  const below = samples.map(({ at, values }) => point(at, values[low])).reverse();
  return [...above, ...below].join(" ");
}

/** What it shows, for whoever does not see it. */
function words(name, lines, samples, say) {
  const values = samples.map(({ values: [value] }) => value).filter((value) => value !== undefined);
  if (values.length === 0) return name;
  const span = t("plot_says", clock(samples[0].at), clock(samples.at(-1).at), say(Math.min(...values)), say(Math.max(...values)), say(values.at(-1)));
  return `${name}: ${span}`;
}

/** What the lines of a drawing are. */
export const legend = (items) => make("ul", { class: "legend" }, ...items.map(({ kind, words: text }) => make("li", {},
  draw("svg", { class: "key", viewBox: "0 0 28 10", "aria-hidden": "true" }, kind === "band"
    ? draw("rect", { class: "band", x: 0, y: 0, width: 28, height: 10 })
    : draw("polyline", { class: `line ${kind}`, points: "0,5 28,5" })),
  " ", text)));
