// Sends the forms that change something without leaving the page. The result is announced, and the focus stays nearby.
import { keepFailed } from "./chosen.js";
import { closeSheet } from "./dialog.js";
import { say } from "./say.js";
import { make } from "./show.js";
import { focusAgain, noted, refresh, visit } from "./view.js";

const complain = (form, text) => {
  form.querySelector(".notice.bad")?.remove();
  form.prepend(make("p", { className: "notice bad", role: "alert" }, text));
  (form.querySelector("input:not([type=hidden])") ?? form.querySelector("button"))?.focus();
};

const post = async (form) => {
  const reply = await fetch(form.action, {
    method: "POST",
    headers: { Accept: "application/json" },
    body: new URLSearchParams(new FormData(form)),
  });
  const answer = await reply.json().catch(() => ({}));
  if (reply.status === 401) {
    location.reload();
    return null;
  }
  if (!reply.ok) {
    const error = new Error(answer.message ?? `It was refused (${reply.status}).`);
    throw Object.assign(error, { failed: answer.failed });
  }
  return answer;
};

// In the list: closes the sheet and the menu, reloads the list, and moves the focus to what was made or is left.
const settle = async (form, answer) => {
  const menu = form.closest("details.menu");
  const place = closeSheet(form) ?? noted(menu && menu.querySelector("summary"));
  if (menu) menu.open = false;
  form.reset();
  await refresh().catch(() => {});
  const own = [...document.querySelectorAll("#files [data-key]")].find((row) => row.dataset.key === answer.key);
  focusAgain(own ? { ...place, key: answer.key, id: "", control: -1 } : place);
  say(answer.message);
};

const submit = async (form) => {
  const button = form.querySelector("button[type=submit]");
  form.setAttribute("aria-busy", "true");
  button.disabled = true;
  try {
    const answer = await post(form);
    if (!answer) return;
    if (document.getElementById("files")) await settle(form, answer);
    else if (form.closest("[data-view=snapshots]")) {
      await visit("/page/snapshots", false);
      say(answer.message);
    } else location.assign(`${answer.href}&done=${answer.done}`);
  } catch (error) {
    button.disabled = false;
    complain(form, error instanceof TypeError ? "The service does not answer. Try again." : error.message);
    if (error.failed) {
      keepFailed(form, error.failed);
      await refresh().catch(() => {});
    }
  } finally {
    form.removeAttribute("aria-busy");
    button.disabled = false;
  }
};

export const watchForms = () => {
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.matches("[data-form]")) return;
    event.preventDefault();
    if (!form.hasAttribute("aria-busy")) submit(form);
  });
};
