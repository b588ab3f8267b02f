// Shows a file, or its earlier versions, in front of the list. Each also is a page of its own, whose card is shown
// here.
import { say } from "./say.js";
import { make } from "./show.js";
import { enhance, fetched, focusAgain, noted } from "./view.js";

let sheet;
let back;
let body;
// Where the focus was, and the pages before this one.
let opener;
let trail = [];

const build = () => {
  if (sheet) return;
  back = make("button", { type: "button", className: "quiet", hidden: true }, "Back");
  const close = make("button", { type: "button", className: "quiet", "aria-keyshortcuts": "Escape" }, "Close");
  body = make("div", { className: "body" });
  sheet = make("dialog", { id: "sheet", "aria-labelledby": "sheet-title" }, make("div", { className: "head" }, back, close), body);
  back.addEventListener("click", () => {
    trail.pop();
    fill(trail.at(-1));
  });
  close.addEventListener("click", () => sheet.close());
  sheet.addEventListener("click", (event) => {
    if (event.target === sheet) sheet.close();
  });
  sheet.addEventListener("close", () => {
    // Stops reading for a preview.
    body.dispatchEvent(new Event("gone"));
    body.replaceChildren();
    focusAgain(opener);
  });
  document.getElementById("main").append(sheet);
};

// The page uses these ids, too.
const renamed = (card) => {
  for (const attribute of ["id", "for", "list", "aria-labelledby"]) {
    for (const one of [card, ...card.querySelectorAll(`[${attribute}]`)]) {
      const value = one.getAttribute(attribute);
      if (value) one.setAttribute(attribute, `sheet-${value}`);
    }
  }
  return card;
};

const fill = async ({ url, form }) => {
  body.setAttribute("aria-busy", "true");
  try {
    const fresh = await fetched(url, form);
    const card = fresh?.getElementById("item");
    if (!card) return false;
    const was = fresh.querySelector(".past span");
    body.dispatchEvent(new Event("gone"));
    body.replaceChildren(...(was ? [make("p", { className: "notice" }, was)] : []), renamed(card));
    back.hidden = trail.length < 2;
    if (!sheet.open) sheet.showModal();
    enhance(body);
    body.scrollTop = 0;
    document.getElementById("sheet-title").focus();
    return true;
  } catch (error) {
    if (sheet.open) body.replaceChildren(make("p", { className: "notice bad", role: "alert" }, error.message));
    else say(error.message, true);
    return true;
  } finally {
    body.removeAttribute("aria-busy");
  }
};

const open = (from, page) => {
  build();
  if (!sheet.open) {
    opener = noted() ?? noted(from);
    trail = [];
  }
  trail.push(page);
  return fill(page);
};

// Opens the target of a link.
export const openSheet = async (link) => {
  if (!(await open(link, { url: link.href }))) location.assign(link.href);
};

// Opens the target of a form that changes nothing.
export const openQuestion = async (form, button) => {
  const fields = new URLSearchParams(new FormData(form));
  fields.set(button.name, button.value);
  // (`form.action` would be a button of that name.)
  if (!(await open(button, { url: form.getAttribute("action"), form: fields }))) say("This does not go. Load the page again.", true);
};

export const closeSheet = (element) => {
  if (!sheet?.contains(element)) return null;
  sheet.close();
  return opener;
};

export const watchDialogs = () => {
  document.addEventListener("click", (event) => {
    if (event.button !== 0 || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    const link = event.target.closest("a[href]");
    if (!link || link.hasAttribute("download")) return;
    const isInside = link.closest("dialog") && link.pathname === "/page/history";
    if (!link.hasAttribute("data-open") && !isInside) return;
    event.preventDefault();
    openSheet(link);
  });
};
