// Files and folders that are dropped anywhere on the page.
import { MOST } from "./queue.js";
import { say } from "./say.js";
import { upload } from "./uploads.js";

const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");

const listed = async (directory) => {
  const reader = directory.createReader();
  const all = [];
  for (;;) {
    // Entries come in batches, until an empty one.
    const part = await new Promise((done, failed) => reader.readEntries(done, failed));
    if (part.length === 0) return all;
    all.push(...part);
    if (all.length > MOST) return all;
  }
};

// All files below an entry, each with its path of folders, and the empty folders.
const walk = async (entry, folder, found) => {
  if (found.length > MOST) return;
  if (entry.isFile) {
    const file = await new Promise((done, failed) => entry.file(done, failed));
    found.push({ file, folder });
    return;
  }
  const path = folder ? `${folder}/${entry.name}` : entry.name;
  const inside = await listed(entry);
  if (inside.length === 0) found.push({ folder: path });
  for (const each of inside) await walk(each, path, found);
};

const take = async (transfer) => {
  // The items are gone when the event is over.
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  const found = entries.length ? [] : [...transfer.files].map((file) => ({ file, folder: "" }));
  try {
    for (const entry of entries) await walk(entry, "", found);
  } catch {
    say("A folder that was dropped cannot be read. Nothing of this was begun.", true);
    return;
  }
  upload(found);
};

export const watchDrops = () => {
  let depth = 0;
  const mark = (isOver) => document.getElementById("upload")?.classList.toggle("over", isOver);
  addEventListener("dragenter", (event) => {
    if (!carriesFiles(event)) return;
    depth += 1;
    mark(true);
  });
  addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    if (depth === 0) mark(false);
  });
  addEventListener("dragover", (event) => {
    if (carriesFiles(event)) event.preventDefault();
  });
  addEventListener("drop", (event) => {
    depth = 0;
    mark(false);
    if (!carriesFiles(event)) return;
    event.preventDefault();
    if (document.getElementById("upload")) take(event.dataTransfer);
    else say("Nothing can be uploaded here.", true);
  });
};
