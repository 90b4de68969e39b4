// What is held here: what we offer, and what partners told us of theirs.

import { badge, code, make, soft, strong, Table } from "../draw.js";
import { ago, known, number, who } from "../say.js";
import { SLOWLY, watch } from "../source.js";
import { named, t } from "../words.js";

// A change of the catalogue is no event: there may be hundreds a second.
const WHEN = { every: SLOWLY };
// A few screens; further ones are asked for.
const PAGE = 100;

export function show(main, signal, after) {
  const table = new Table(main, {
    caption: "resources",
    key: ({ creator, id }) => `${creator}/${id}`,
    empty: "no_resources",
    columns: [
      { head: "name", name: true, cell: ({ resource }) => [strong(known(resource.name)), " ", soft(resource.short_description ?? "")] },
      { head: "kind", cell: ({ resource }) => named("kind", resource.kind) },
      { head: "access", cell: ({ resource }) => badge(resource.access === "public" ? "good" : "idle", named("access", resource.access)) },
      { head: "creator", cell: ({ creator }) => who(creator) },
      { head: "id", cell: ({ id }) => code(id) },
      { head: "version", number: true, cell: ({ version }) => String(version) },
      { head: "changed", cell: ({ updated_at }) => ago(updated_at) },
    ],
  });
  const pages = make("p", { class: "pages" });
  main.append(pages);
  const question = new URLSearchParams({ limit: PAGE });
  if (after) question.set("after", after);
  let shown = "";
  watch(`/api/v1/resources?${question}`, WHEN, signal, ({ resources, next }) => {
    table.show(resources);
    if (shown === `${next}`) return;
    shown = `${next}`;
    pages.replaceChildren();
    if (after) pages.append(make("a", { href: "#/resources" }, t("first_page")), " ");
    if (next) pages.append(make("a", { href: `#/resources/${encodeURIComponent(next)}` }, t("next_page")));
  }, ({ message }) => table.fail(message));
}
