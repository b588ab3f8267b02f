// Improves the upload form: whole folders, and a list of the uploads under way, each with its progress, to cancel or
// retry them.
import { MOST, queue } from "./queue.js";
import { say } from "./say.js";
import { count, make, size } from "./show.js";
import { refresh } from "./view.js";

// The most lines shown; a folder can have thousands of files.
const LINES = 50;
const STAYS = 4000;

let panel;
let heading;
let list;
let rest;
const lines = new Map();
// Counts since the queue was last empty.
let kept = 0;
let failed = 0;

const button = (text, label, click) => {
  const made = make("button", { type: "button", className: "quiet", "aria-label": label }, text);
  made.addEventListener("click", click);
  return made;
};

const buildPanel = () => {
  heading = make("h2", { id: "uploads-title", tabIndex: -1 });
  list = make("ul");
  rest = make("p", { className: "hint", hidden: true });
  const all = make("div", { className: "row" },
    button("Cancel all", "Cancel all uploads", () => queue.jobs.forEach((job) => queue.cancel(job))),
    button("Retry", "Try again what failed", () => queue.jobs.forEach((job) => queue.retry(job))),
    button("Clear", "Clear the list of what is over", () => {
      for (const job of [...queue.jobs]) if (["failed", "cancelled"].includes(job.state)) drop(job);
      summarize();
      document.getElementById("files")?.focus();
    }));
  panel = make("section", { id: "uploads", className: "card", "aria-labelledby": "uploads-title" },
    make("div", { className: "row spread" }, heading, all), list, rest);
  document.getElementById("view").before(panel);
};

const drop = (job) => {
  queue.forget(job);
  const line = lines.get(job);
  if (!line) return;
  if (line.item.contains(document.activeElement)) heading.focus();
  line.item.remove();
  lines.delete(job);
};

const lineOf = (job) => {
  if (lines.has(job)) return lines.get(job);
  if (job.state === "waiting" && lines.size >= LINES) return null;
  const line = {
    item: make("li"),
    far: make("span", { className: "far" }),
    bar: make("progress", { max: 1, value: 0, "aria-label": `Upload of ${job.name}` }),
    act: button("", "", () => (["waiting", "sending"].includes(job.state) ? queue.cancel(job) : queue.retry(job))),
  };
  line.item.append(make("span", { className: "what" }, job.name), line.far, line.act, line.bar);
  lines.set(job, line);
  list.append(line.item);
  return line;
};

const far = (job) => ({
  waiting: "waiting",
  sending: job.total ? `${size(job.loaded)} of ${size(job.total)}` : "sending",
  kept: "kept, on its way to the bucket",
}[job.state] ?? job.why);

const draw = (job) => {
  const line = lineOf(job);
  if (!line) return;
  const isOver = ["failed", "cancelled"].includes(job.state);
  line.item.dataset.job = job.state;
  line.far.textContent = far(job);
  line.far.classList.toggle("bad", isOver);
  line.bar.hidden = isOver;
  line.bar.value = job.state === "kept" ? 1 : job.total ? job.loaded / job.total : 0;
  line.act.hidden = job.state === "kept";
  line.act.textContent = isOver ? "Retry" : "Cancel";
  line.act.setAttribute("aria-label", `${isOver ? "Retry" : "Cancel"} the upload of ${job.name}`);
};

const summarize = () => {
  const { open } = queue;
  const over = queue.jobs.filter((job) => ["failed", "cancelled"].includes(job.state)).length;
  panel.hidden = queue.jobs.length === 0;
  const [cancel, retry, clear] = panel.querySelectorAll(".spread button");
  [cancel.hidden, retry.hidden, clear.hidden] = [open === 0, over === 0, over === 0];
  const parts = [];
  if (open > 0) parts.push(`Uploading: ${count(open, "file", "files")} to go`);
  if (kept > 0) parts.push(`${kept} done`);
  if (over > 0) parts.push(`${over} not uploaded`);
  heading.textContent = parts.join(", ");
  const hidden = queue.jobs.filter((job) => !lines.has(job)).length;
  rest.hidden = hidden === 0;
  rest.textContent = `${hidden} more wait.`;
};

// The list of files is updated, but not after each of a thousand uploads.
let refreshing = null;
const soon = () => {
  refreshing ??= setTimeout(() => {
    refreshing = null;
    refresh().catch(() => {});
  }, 300);
};

const finish = () => {
  if (kept + failed === 0) return;
  const parts = [];
  if (kept > 0) parts.push(`${count(kept, "file", "files")} uploaded.`);
  if (failed > 0) parts.push(`${count(failed, "file was", "files were")} not uploaded.`);
  say(parts.join(" "), failed > 0);
  [kept, failed] = [0, 0];
};

const tell = (job) => {
  if (!panel) buildPanel();
  draw(job);
  if (job.state === "sending" && job.loaded > 0) return;
  if (job.state === "kept") {
    kept += 1;
    soon();
    setTimeout(() => {
      drop(job);
      summarize();
    }, STAYS);
  }
  if (job.state === "failed") failed += 1;
  summarize();
  if (queue.open === 0) finish();
};

const escaped = (path) => path.split("/").map(encodeURIComponent).join("/");

// Uploads files (each with its path of folders) and empty folders to the form's directory.
export const upload = (found) => {
  const form = document.getElementById("upload");
  if (!form || found.length === 0) return;
  if (queue.jobs.length + found.length > MOST) {
    say(`More than ${MOST} files at once are too many for a page. Nothing of this was begun.`, true);
    return;
  }
  const { url, folders, path, csrf } = form.dataset;
  const inside = (folder) => (folder ? `${path ? "/" : ""}${escaped(folder)}` : "");
  queue.add(found.map(({ file, folder }) => (file
    ? { file, name: folder ? `${folder}/${file.name}` : file.name, url: `${url}${inside(folder)}`, csrf }
    : { folder, name: `${folder}/`, url: folders })));
  say(`Uploading ${count(found.length, "file", "files")}.`);
};

const picked = (input) => {
  const folderOf = (file) => file.webkitRelativePath.split("/").slice(0, -1).join("/");
  upload([...input.files].map((file) => ({ file, folder: folderOf(file) })));
  input.value = "";
};

// The buttons that script adds to the form.
export const dressUpload = (content) => {
  const form = content.querySelector("#upload");
  if (!form) return;
  const files = form.querySelector("#file");
  const folder = make("input", { type: "file", id: "folder", webkitdirectory: true, tabIndex: -1, hidden: true });
  form.querySelector("label").textContent = "Drop files or folders here, or choose them";
  form.querySelector("button").remove();
  files.hidden = true;
  files.required = false;
  const choose = button("Choose files", "Choose files to upload", () => files.click());
  const chooseFolder = button("Choose a folder", "Choose a folder to upload", () => folder.click());
  choose.className = "main";
  form.querySelector(".row").append(choose, chooseFolder, folder);
  for (const input of [files, folder]) input.addEventListener("change", () => picked(input));
  form.addEventListener("submit", (event) => event.preventDefault());
};

export const watchUploads = () => {
  queue.tell = tell;
  addEventListener("beforeunload", (event) => {
    if (queue.open > 0) event.preventDefault();
  });
};
