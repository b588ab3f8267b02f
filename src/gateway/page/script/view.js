// The view: follows changes of the vault, and is replaced without losing the uploads or the focus.
import { queue } from "./queue.js";
import { say } from "./say.js";
import { localize } from "./show.js";

const isUploading = () => queue.open > 0;
const byId = (id, within = document) => within.getElementById(id);
const dressers = [];

// Calls back with all content that is loaded, now and later.
export const onContent = (dress) => dressers.push(dress);

export const enhance = (content) => {
  localize(content);
  for (const dress of dressers) dress(content);
};

// Fetches another page of ours as an inert document. `null`: this page is being left.
export const fetched = async (url, form) => {
  const post = form ? { method: "POST", body: form } : {};
  const reply = await fetch(url, { headers: { Accept: "text/html" }, ...post });
  if (reply.redirected && new URL(reply.url).pathname === "/login") {
    location.reload();
    return null;
  }
  const kind = reply.headers.get("Content-Type") ?? "";
  if (!kind.startsWith("text/html")) {
    const problem = await reply.json().catch(() => ({}));
    throw new Error(problem.message ?? `The service answers ${reply.status}.`);
  }
  return new DOMParser().parseFromString(await reply.text(), "text/html");
};

// Where the focus is: its row, and the control in it.
const controls = (row) => [...row.querySelectorAll("a, button, summary, input")];
export const noted = (element = document.activeElement) => {
  const row = element?.closest("[data-key]");
  if (!element?.closest("#view, #status")) return null;
  return {
    id: element.id,
    key: row?.dataset.key,
    index: row ? [...row.parentElement.children].indexOf(row) : -1,
    control: row ? controls(row).indexOf(element) : -1,
  };
};

// Moves the focus back there; if that is gone, to what took its place.
export const focusAgain = (place) => {
  if (!place) return;
  const rows = [...document.querySelectorAll("#view [data-key]")];
  const same = rows.find((row) => row.dataset.key === place.key);
  const row = same ?? (place.index >= 0 ? rows[Math.min(place.index, rows.length - 1)] : null);
  // The control itself may be gone or hidden by now.
  const target = (place.id && [byId(place.id)].find((one) => one?.checkVisibility()))
    || (row && ((same && controls(row)[place.control]) || row.querySelector("[data-main]") || row))
    || byId("files") || byId("title");
  target?.focus({ preventScroll: Boolean(same) });
};

// What the server sent last, by part: a part that is the same is not replaced, so a screen reader keeps its place.
const last = new Map();

const exchange = (fresh, ids) => {
  const place = noted();
  let lost = false;
  for (const id of ids) {
    const [old, now] = [byId(id), byId(id, fresh)];
    if (!old || !now || last.get(id) === now.outerHTML) continue;
    last.set(id, now.outerHTML);
    lost ||= old.contains(document.activeElement);
    old.replaceWith(now);
    enhance(now);
  }
  if (lost) focusAgain(place);
};

const isBusy = () => document.querySelector("#files details[open], dialog[open]") !== null;

// Updates the state of the vault, and the directory's content.
export const refresh = async () => {
  if (!byId("files")) return;
  const url = location.href;
  const fresh = await fetched(url);
  // The user went elsewhere meanwhile.
  if (fresh && url === location.href) exchange(fresh, ["status", "files"]);
};

const isMoving = () => document.querySelector('[data-state="uploading"]') !== null;
const watch = async () => {
  if (!document.hidden && !isBusy()) await refresh().catch(() => {}); // the next time tells
  setTimeout(watch, isMoving() ? 2000 : 20000);
};

// Shows another page in this one, so that uploads go on.
export const visit = async (url, isNew = true) => {
  try {
    const fresh = await fetched(url);
    const [old, now] = [byId("view"), fresh && byId("view", fresh)];
    if (!fresh) return;
    if (!old || !now) {
      location.assign(url);
      return;
    }
    if (isNew) history.pushState(null, "", url);
    document.title = fresh.title;
    last.clear();
    for (const stale of document.querySelectorAll("#main > .notice")) stale.remove();
    byId("status")?.remove();
    const status = byId("status", fresh);
    if (status) {
      old.before(status);
      enhance(status);
    }
    old.replaceWith(now);
    enhance(now);
    scrollTo(0, 0);
    byId("title")?.focus();
  } catch (error) {
    say(error.message, true);
  }
};

const isPlain = (event) =>
  event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey && !event.defaultPrevented;

export const watchView = () => {
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href]");
    if (!link || !isPlain(event) || link.hasAttribute("download") || link.closest("dialog")) return;
    const ours = link.getAttribute("href").startsWith("/?") || ["/", "/page/snapshots"].includes(link.pathname);
    if (ours && isUploading()) {
      event.preventDefault();
      visit(link.href);
    }
  });
  addEventListener("popstate", () => visit(location.href, false));
  // A time field is in the reader's own zone, and means the end of the minute.
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.matches("[data-look]")) return;
    event.preventDefault();
    const time = new Date(form.elements.time.value);
    time.setSeconds(59);
    const url = `/page/look?path=${form.dataset.look}&time=${time.toISOString()}`;
    if (isUploading()) visit(url);
    else location.assign(url);
  });
  onContent((content) => {
    for (const zone of content.querySelectorAll("[data-zone]")) zone.textContent = "";
  });
  setTimeout(watch, isMoving() ? 1000 : 20000);
};
