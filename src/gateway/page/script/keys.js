// Closes menus, and moves through the list with the arrow keys. No single letters, which screen readers and browsers
// use.
import { asksToDelete } from "./chosen.js";
import { openSheet } from "./dialog.js";

const OPEN = "details.menu[open]";

const shut = (menu, isFocused) => {
  menu.open = false;
  if (isFocused) menu.querySelector("summary").focus();
};

const step = (row, down, from) => {
  const next = down ? row.nextElementSibling : row.previousElementSibling;
  if (!next) return;
  const all = (of) => [...of.querySelectorAll("a, summary, .pick input")];
  const at = all(row).indexOf(from);
  (all(next)[at] ?? next.querySelector("[data-main]"))?.focus();
};

// Opens the question; the key itself deletes nothing.
const askToDelete = async (row) => {
  await openSheet(row.querySelector("a[data-open]"));
  const form = document.querySelector("#sheet form[data-form=delete]");
  if (!form) return;
  form.closest("details").open = true;
  form.querySelector("button").focus();
};

export const watchKeys = () => {
  // Only one menu is open at a time, and none that has lost the focus.
  document.addEventListener("toggle", (event) => {
    // (A dialog fires this event, too; whoever opens it takes care of the focus.)
    if (!event.target.open || !event.target.matches("details")) return;
    for (const other of document.querySelectorAll(OPEN)) {
      if (other !== event.target && event.target.matches("details.menu")) shut(other, false);
    }
    event.target.querySelector("input:not([type=hidden])")?.focus();
  }, true);
  document.addEventListener("pointerdown", (event) => {
    for (const menu of document.querySelectorAll(OPEN)) {
      if (!menu.contains(event.target)) shut(menu, false);
    }
  });
  document.addEventListener("keydown", (event) => {
    const menu = document.querySelector(OPEN);
    if (event.key === "Escape" && menu) {
      event.preventDefault();
      shut(menu, true);
      return;
    }
    const row = event.target.closest?.("#files [data-key]");
    if (!row || event.target.matches("input:not([type=checkbox])") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      step(row, event.key === "ArrowDown", event.target);
    } else if (event.key === "Delete") {
      event.preventDefault();
      if (!asksToDelete(row)) askToDelete(row);
    }
  });
};
