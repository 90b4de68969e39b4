// Builds what is seen. Texts go in as text and never as markup, for many of them come from strangers.

import { t } from "./words.js";

// Control characters, and those that turn the direction of text, so that a name could show as another.
const MISLEADING = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/** What peers say of themselves, without what could mislead a reader. */
const clean = (text) => String(text).replace(MISLEADING, "\ufffd");

/** An element with these attributes and children. A function as an attribute listens to the event of that name. */
export function make(tag, attributes = {}, ...children) {
  return dress(document.createElement(tag), attributes, children);
}

/** The same for a part of a drawing. */
export function draw(tag, attributes = {}, ...children) {
  return dress(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function dress(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : clean(value));
    }
  }
  element.append(...children.map((child) => (child instanceof Node ? child : clean(child))));
  return element;
}

const SHAPES = { good: "●", warn: "▲", bad: "✖", idle: "○" };

/** Parts of which the content of a cell consists; a plain text is one too. */
export const badge = (kind, text) => ({ badge: kind, text });
export const code = (text) => ({ code: text });
export const soft = (text) => ({ soft: text });
export const strong = (text) => ({ strong: text });
export const link = (href, text, name) => ({ link: href, text, name });
export const button = (press, text, name, expanded) => ({ button: press, text, name, expanded });
/** Values from 0 to 1 in their order, and what they say in words. */
export const curve = (values, name) => ({ curve: values.map((value) => value.toFixed(3)), name });
/** Parts of a whole in time, `[kind, from, to]` from 0 to 1, and what they say in words. */
export const spans = (parts, name) => ({ spans: parts.map(([kind, ...ends]) => [kind, ...ends.map((end) => end.toFixed(3))]), name });
/** Words of the daemon, which speaks English only. */
export const english = (text) => ({ english: text });

/** A content as it stands in a page. */
export function part(content) {
  if (typeof content !== "object") return document.createTextNode(clean(content));
  if ("badge" in content) {
    const shape = make("span", { "aria-hidden": "true" }, SHAPES[content.badge]);
    return make("span", { class: `badge ${content.badge}` }, shape, " ", content.text);
  }
  if ("code" in content) return make("code", {}, content.code);
  if ("soft" in content) return make("span", { class: "soft" }, content.soft);
  if ("strong" in content) return make("strong", {}, content.strong);
  if ("english" in content) return make("span", { lang: "en" }, content.english);
  if ("curve" in content) return line(content);
  if ("spans" in content) return bar(content);
  if ("link" in content) return make("a", { href: content.link, "aria-label": content.name }, content.text);
  const { button: press, text, name, expanded } = content;
  return make("button", { type: "button", "data-press": press, "aria-label": name, "aria-expanded": expanded?.toString() }, text);
}

// How large a curve is drawn, with room for its ends.
const CURVE = { width: 96, height: 20 };

function line({ curve: values, name }) {
  const points = values.map((value, at) =>
    `${(at * CURVE.width) / (values.length - 1)},${CURVE.height - value * (CURVE.height - 4) - 2}`);
  return draw("svg", { class: "curve", viewBox: `-2 0 ${CURVE.width + 4} ${CURVE.height}`, role: "img", "aria-label": name },
    draw("title", {}, name), draw("polyline", { points: points.join(" ") }));
}

// How large a bar is drawn. What took no time still has a mark.
const BAR = { width: 200, height: 14, least: 2 };

function bar({ spans: parts, name }) {
  const rects = parts.map(([kind, from, to]) => draw("rect", {
    class: kind, x: from * BAR.width, y: 2, width: Math.max(BAR.least, (to - from) * BAR.width), height: BAR.height - 4,
  }));
  return draw("svg", { class: "spans", viewBox: `0 0 ${BAR.width + BAR.least} ${BAR.height}`, role: "img", "aria-label": name },
    draw("title", {}, name), ...rects);
}

/** Puts a content into an element, and touches nothing where it is there already. */
export function fill(element, content) {
  const parts = Array.isArray(content) ? content : [content];
  const signature = JSON.stringify(parts);
  if (element.shown === signature) return;
  const held = element.contains(document.activeElement) ? document.activeElement.dataset.press : undefined;
  element.shown = signature;
  element.replaceChildren(...parts.map(part));
  if (held) element.querySelector(`[data-press="${held}"]`)?.focus();
}

let tables = 0;

/** A table that changes what has changed and nothing else, so that hundreds of rows may change every second. */
export class Table {
  #rows = new Map();
  #body = make("tbody");
  #note = make("p", { class: "note" });
  #region;
  #columns;
  #key;
  #empty;
  #dress;

  /**
   * Columns are `{ head, cell, number, name }`: a word, what a row shows there, whether it is a number, whether it names
   * the row. `pressed(row, what)` hears the buttons in it.
   */
  constructor(parent, { caption, columns, key, empty, dress, pressed }) {
    [this.#columns, this.#key, this.#empty, this.#dress] = [columns, key, empty, dress];
    const id = `table-${++tables}`;
    const heads = columns.map(({ head, number }) => make("th", { scope: "col", class: number && "number" }, t(head)));
    const table = make("table", {}, make("caption", { class: "unseen", id }, t(caption)),
      make("thead", {}, make("tr", {}, ...heads)), this.#body);
    this.#region = make("div", { class: "scroll", role: "region", tabindex: "0", "aria-labelledby": id, hidden: true }, table);
    this.#note.textContent = t("loading");
    this.#body.addEventListener("click", ({ target }) => {
      const press = target.closest("[data-press]");
      if (press) pressed?.(press.closest("tr").row, press.dataset.press);
    });
    parent.append(this.#region, this.#note);
  }

  /** Shows these rows and no others. */
  show(rows) {
    const left = new Set(this.#rows.keys()).difference(new Set(rows.map(this.#key)));
    for (const key of left) {
      this.#rows.get(key).remove();
      this.#rows.delete(key);
    }
    let before = this.#body.firstElementChild;
    for (const row of rows) {
      const key = this.#key(row);
      let line = this.#rows.get(key);
      if (!line) {
        line = make("tr", { "data-key": key }, ...this.#columns.map(({ number, name }) =>
          make(name ? "th" : "td", { scope: name && "row", class: number && "number" })));
        this.#rows.set(key, line);
      }
      line.row = row;
      this.#columns.forEach(({ cell }, at) => fill(line.children[at], cell(row)));
      this.#dress?.(line, row);
      // Moved only where the order is another than before: a moved row loses the focus.
      if (line === before) before = before.nextElementSibling;
      else this.#body.insertBefore(line, before);
    }
    this.#region.hidden = rows.length === 0;
    this.#say(rows.length === 0 ? t(this.#empty) : "", false);
  }

  /** Says why nothing new can be shown; what is shown stays. */
  fail(words) {
    this.#say(t("failed", words), true);
  }

  #say(words, isWrong) {
    this.#note.hidden = words === "";
    this.#note.classList.toggle("wrong", isWrong);
    if (this.#note.textContent !== words) this.#note.textContent = words;
  }
}

/** A section with its heading. */
export function section(parent, title, ...children) {
  const id = `part-${++tables}`;
  const made = make("section", { "aria-labelledby": id }, make("h2", { id }, t(title)), ...children);
  parent.append(made);
  return made;
}

/** Facts, each with its name; changed in place. */
export class Facts {
  #lines = new Map();
  #list;

  constructor(parent, kind = "facts") {
    this.#list = make("dl", { class: kind });
    parent.append(this.#list);
  }

  /** Shows pairs of a word and a content. */
  show(facts) {
    const left = new Set(this.#lines.keys());
    for (const [name, content] of facts) {
      left.delete(name);
      let value = this.#lines.get(name);
      if (!value) {
        value = make("dd");
        this.#lines.set(name, value);
        this.#list.append(make("div", {}, make("dt", {}, t(name)), value));
      }
      fill(value, content);
    }
    for (const name of left) {
      this.#lines.get(name).parentElement.remove();
      this.#lines.delete(name);
    }
  }
}

/** A field that narrows a list, and what is in it. */
export function filter(parent, changed) {
  const field = make("input", { type: "search", autocomplete: "off", spellcheck: "false", input: () => changed() });
  const count = make("span", { class: "soft" });
  parent.append(make("p", { class: "filter" }, make("label", {}, make("span", {}, t("filter")), " ", field), " ", count));
  return {
    /** Those in whose texts it occurs. */
    of(rows, texts) {
      const wanted = field.value.trim().toLowerCase();
      const found = rows.filter((row) => texts(row).some((text) => text.toLowerCase().includes(wanted)));
      count.textContent = t("count_of", found.length, rows.length);
      return found;
    },
  };
}
