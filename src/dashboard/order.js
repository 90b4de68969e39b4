// What an operator orders: asked once more before it is done, and done with the admin token. The token is kept in this
// page's memory alone, so that it goes with the page and no other page finds it.

import { make } from "./draw.js";
import { tell } from "./source.js";
import { t } from "./words.js";

// Longer than a token is, and too short to be a file pasted by mistake.
const TOKEN_MAX = 256;
const NOT_ALLOWED = 401;

let token = "";
let dialogs = 0;

/** Asks whether it is meant, and for the token where none was given yet; true once the daemon took the order. */
export function order({ title, words, action, path }, signal) {
  return new Promise((resolve) => {
    const id = `order-${++dialogs}`;
    const field = make("input", {
      id: `${id}-token`, class: "secret", type: "text", autocomplete: "off", autocapitalize: "off", spellcheck: "false",
      maxlength: TOKEN_MAX, "aria-describedby": `${id}-hint`,
    });
    const asked = make("div", {},
      make("label", { for: `${id}-token` }, t("token")), field,
      make("p", { class: "soft", id: `${id}-hint` }, t("token_hint")));
    const trouble = make("p", { class: "note wrong", role: "alert" });
    const confirm = make("button", { type: "submit", class: "main" }, action);
    const cancel = make("button", { type: "button", click: () => dialog.close() }, t("cancel"));
    const form = make("form", {}, make("h2", { id }, title), make("p", {}, words), asked, trouble,
      make("p", { class: "buttons" }, confirm, " ", cancel));
    const dialog = make("dialog", { "aria-labelledby": id }, form);

    let isTaken = false;
    const look = () => { asked.hidden = token !== ""; };
    form.addEventListener("submit", async (event) => {
      // Sent by us, with a header: the page's policy lets no form send itself.
      event.preventDefault();
      if (confirm.disabled) return;
      const given = token || field.value.trim();
      if (given === "") {
        trouble.textContent = t("token_needed");
        field.focus();
        return;
      }
      confirm.disabled = true;
      trouble.textContent = "";
      try {
        await tell("POST", path, given, signal);
        token = given;
        isTaken = true;
        dialog.close();
      } catch (error) {
        if (error.status === NOT_ALLOWED) token = "";
        trouble.textContent = error.status ? t("failed", error.message) : t("not_reached");
        look();
        if (error.status === NOT_ALLOWED) field.select();
      } finally {
        confirm.disabled = false;
      }
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(isTaken);
    });
    signal.addEventListener("abort", () => dialog.close(), { once: true });
    look();
    document.body.append(dialog);
    dialog.showModal();
    (token === "" ? field : confirm).focus();
  });
}
