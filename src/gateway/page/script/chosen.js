// Several entries at once: ticked boxes stay ticked while the list is reloaded, and their number is shown. Then one
// action for all of them: a question in front of the list, or downloads one after the other.
import { openQuestion } from "./dialog.js";
import { say } from "./say.js";
import { count, make } from "./show.js";

// The pause between two downloads: browsers drop some of those that come faster.
const PAUSE = 500;

// The names, as the form sends them.
let chosen = new Set();

const bar = () => document.getElementById("chosen");
const boxes = () => [...document.querySelectorAll("#files .pick input")];
const ticked = () => boxes().filter((box) => box.checked);

const tell = () => {
  const form = bar();
  if (!form) return;
  const [all, some] = [boxes(), ticked()];
  chosen = new Set(some.map((box) => box.value));
  form.hidden = all.length === 0;
  form.querySelector(".row").hidden = some.length === 0;
  const every = form.querySelector("#choose-all");
  every.checked = all.length > 0 && some.length === all.length;
  every.indeterminate = some.length > 0 && !every.checked;
  const text = some.length > 0 ? `${count(some.length, "entry", "entries")} chosen` : "None chosen";
  const place = form.querySelector("#chosen-count");
  if (place.textContent !== text) place.textContent = text;
};

// A new list: shows the boxes to everybody, and ticks those that were ticked before. In another view nothing is chosen.
export const dressChosen = (content) => {
  if (content.querySelector("#chosen")) chosen.clear();
  for (const hidden of content.querySelectorAll(".pick[hidden], .choice label[hidden]")) hidden.hidden = false;
  for (const box of boxes()) box.checked = chosen.has(box.value);
  tell();
};

const download = async () => {
  const rows = ticked().map((box) => box.closest("tr").querySelector("a.get"));
  const files = rows.filter(Boolean).map((link) => [link.href, link.download]);
  const parts = [];
  if (files.length > 0) parts.push(`Downloading ${count(files.length, "file", "files")}.`);
  if (files.length < rows.length) parts.push("Folders are left out: choose the files in them.");
  say(parts.join(" "), files.length === 0);
  for (const [href, name] of files) {
    make("a", { href, download: name }).click();
    await new Promise((done) => setTimeout(done, PAUSE));
  }
};

// If this row is chosen, asks about all chosen entries; returns whether it does.
export const asksToDelete = (row) => {
  const button = bar()?.querySelector("#chosen-delete");
  if (!button || !row.querySelector(".pick input")?.checked) return false;
  openQuestion(bar(), button);
  return true;
};

// After an answer: entries that failed stay in the question, with the reason.
export const keepFailed = (form, failed) => {
  const why = new Map(failed.map(({ name, message }) => [name, message]));
  for (const input of form.querySelectorAll("input[name=name]")) if (!why.has(input.value)) input.remove();
  for (const item of form.closest(".item").querySelectorAll("[data-name]")) {
    const reason = why.get(item.dataset.name);
    item.querySelector(".why")?.remove();
    if (reason === undefined) item.remove();
    else item.append(" ", make("span", { className: "why" }, reason));
  }
};

export const watchChosen = () => {
  document.addEventListener("change", ({ target }) => {
    if (target.id === "choose-all") for (const box of boxes()) box.checked = target.checked;
    if (target.matches("#choose-all, #files .pick input")) tell();
  });
  document.addEventListener("submit", (event) => {
    if (event.target !== bar()) return;
    event.preventDefault();
    const button = event.submitter;
    if (!button || button.value === "download") download();
    else openQuestion(event.target, button);
  });
};
