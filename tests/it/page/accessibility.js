// What whoever cannot see the page, or sees it badly, needs of it. Gives what is wrong, in words.
(() => {
  const wrong = [];
  const say = (element, words) => wrong.push(`${words}: ${element.outerHTML.slice(0, 160)}`);
  const isShown = (element) => element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0;
  const all = (selector) => [...document.querySelectorAll(selector)].filter(isShown);

  if (!["en", "fr"].includes(document.documentElement.lang)) wrong.push(`the language is ${document.documentElement.lang}`);
  if (document.title.trim() === "") wrong.push("the page has no title");
  for (const landmark of ["header", "nav", "main"]) {
    if (all(landmark).length !== 1) wrong.push(`there is not one ${landmark}`);
  }

  const ids = [...document.querySelectorAll("[id]")].map(({ id }) => id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) wrong.push(`two elements have the id ${id}`);
  for (const attribute of ["aria-labelledby", "aria-controls", "for"]) {
    for (const element of document.querySelectorAll(`[${attribute}]`)) {
      if (!document.getElementById(element.getAttribute(attribute))) say(element, `${attribute} names nobody`);
    }
  }

  const nameOf = (element) =>
    element.getAttribute("aria-label")
    || document.getElementById(element.getAttribute("aria-labelledby"))?.textContent
    || [...(element.labels ?? [])].map((label) => label.textContent).join(" ")
    || (element.matches("input, select") ? "" : element.textContent);
  for (const element of all("a, button, input, select, summary, [role=region], [role=img], [role=log], section, nav, dialog")) {
    if (nameOf(element).trim() === "") say(element, "it has no name");
  }
  for (const element of all("[tabindex]")) if (element.tabIndex > 0) say(element, "it jumps the queue of the keyboard");

  let level = 0;
  for (const heading of all("h1, h2, h3, h4, h5, h6")) {
    const next = Number(heading.localName[1]);
    if (next > level + 1) say(heading, `a heading skips a level after ${level}`);
    level = next;
  }
  if (all("h1").length !== 1) wrong.push("there is not one h1");

  for (const table of all("table")) {
    if (!table.caption?.textContent.trim()) say(table, "a table has no caption");
    for (const head of table.tHead?.querySelectorAll("th") ?? []) {
      if (head.scope !== "col" || head.textContent.trim() === "") say(head, "a column has no head");
    }
    for (const row of table.tBodies[0].rows) {
      if (!row.querySelector("th[scope=row]")) say(row, "a row has no head");
    }
  }

  const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
  const light = ([red, green, blue]) => {
    const [r, g, b] = [red, green, blue].map((of) => of / 255).map((of) => (of <= 0.04045 ? of / 12.92 : ((of + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = channels(getComputedStyle(at).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const pairs = new Set();
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (texts.currentNode.textContent.trim() === "" || !isShown(element) || element.closest(".unseen, option")) continue;
    const style = getComputedStyle(element);
    const [ink, under] = [channels(element.closest("svg") ? style.fill : style.color), ground(element)];
    const pair = `${ink} on ${under}`;
    if (pairs.has(pair)) continue;
    pairs.add(pair);
    const [bright, dark] = [light(ink), light(under)].sort((one, other) => other - one);
    const contrast = (bright + 0.05) / (dark + 0.05);
    if (contrast < 4.5) say(element, `a contrast of ${contrast.toFixed(2)}, expected 4.5 (${pair})`);
  }
  if (pairs.size < 3) wrong.push(`only ${pairs.size} pairs of colours were seen`);

  // A narrow window scrolls its tables and never the page.
  if (document.documentElement.scrollWidth > innerWidth) wrong.push(`the page is ${document.documentElement.scrollWidth} wide in a window of ${innerWidth}`);
  return wrong;
})()
