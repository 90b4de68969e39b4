// The page around the views: which is shown, who the member is, whether it is reached, in which language.

import { fill, badge, make, strong } from "./draw.js";
import { clock, learn, role } from "./say.js";
import { hearAnew, SLOWLY, state, watch } from "./source.js";
import { choose, language, t } from "./words.js";
import * as actors from "./views/actors.js";
import * as alerts from "./views/alerts.js";
import * as bus from "./views/bus.js";
import * as config from "./views/config.js";
import * as network from "./views/network.js";
import * as outbox from "./views/outbox.js";
import * as overview from "./views/overview.js";
import * as partners from "./views/partners.js";
import * as peers from "./views/peers.js";
import * as planner from "./views/planner.js";
import * as pool from "./views/pool.js";
import * as resources from "./views/resources.js";
import * as search from "./views/search.js";
import * as sessions from "./views/sessions.js";

// In the order of the navigation; a name is the address, the word and the module.
const VIEWS = {
  overview, alerts, actors, network, pool, peers, sessions, search, resources, partners, planner, outbox, bus, config,
};

// Whatever happens may change how it stands.
const STATUS_WHEN = { every: SLOWLY, on: /./ };
// Who comes brings its name; what an operator calls one is a relation.
const NAMES_WHEN = { every: SLOWLY, on: /^(member|indexer|relation)_/ };

const at = (id) => document.getElementById(id);
let view = new AbortController();
let bornAt = null;
let lastStatus = null;

/** The view of the address and what it is about: `#/pool/12D3…`. */
function address() {
  const [, name, about] = location.hash.split("/");
  return Object.hasOwn(VIEWS, name) ? [name, decoded(about ?? "")] : ["overview", ""];
}

/** An address that somebody typed wrongly is about nothing. */
function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

function show(isAsked) {
  view.abort();
  view = new AbortController();
  const [name, about] = address();
  document.title = `${t(name)} – muster`;
  for (const link of at("nav").querySelectorAll("a")) {
    if (link.hash === `#/${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const heading = make("h1", { tabindex: "-1" }, t(name));
  at("main").replaceChildren(heading, make("p", { class: "lead" }, t(`${name}_lead`)));
  VIEWS[name].show(at("main"), view.signal, about);
  at("main").dataset.view = name;
  if (isAsked) (at("main").querySelector("[data-first]") ?? heading).focus();
}

function translate() {
  document.documentElement.lang = language();
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = t(element.dataset.word);
  at("nav").setAttribute("aria-label", t("views"));
  at("nav").firstElementChild.replaceChildren(
    ...Object.keys(VIEWS).map((name) => make("li", {}, make("a", { href: `#/${name}` }, t(name)))),
  );
  tellLink();
  tellPause();
  if (lastStatus) tellMember(lastStatus);
}

function tellLink() {
  const { lostSince } = state;
  fill(at("link"), lostSince ? badge("bad", t("lost_since", clock(lostSince))) : badge("good", t("connected")));
  document.body.classList.toggle("lost", lostSince !== null);
}

function tellPause() {
  at("pause").setAttribute("aria-pressed", state.isPaused);
}

function tellMember(status) {
  lastStatus = status;
  learn("own", [status]);
  fill(at("member"), [strong(status.name), ` ${role(status.role)}`]);
  // Another life counts its events anew, and nothing of the last one's is true of it.
  if (bornAt !== null && bornAt !== status.born_at) {
    hearAnew();
    show(false);
  }
  bornAt = status.born_at;
}

at("language").value = language();
at("language").addEventListener("change", ({ target }) => {
  choose(target.value);
  translate();
  show(false);
});
at("pause").addEventListener("click", () => {
  state.isPaused = !state.isPaused;
  dispatchEvent(new Event("pause"));
  tellPause();
});
// Followed, it would be the address of a view.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  at("main").focus();
});
addEventListener("hashchange", () => show(true));
state.changed = tellLink;

const always = new AbortController().signal;
translate();
show(false);
watch("/api/v1/status", STATUS_WHEN, always, tellMember);
for (const from of ["peers", "partners"]) {
  watch(`/api/v1/${from}`, NAMES_WHEN, always, (peers) => learn(from, peers));
}
