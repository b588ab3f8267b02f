// What the page does better with script: drag and drop, progress, local times, states that keep up.
// Everything works without it.
"use strict";

(() => {
  const one = (selector, within = document) => within.querySelector(selector);
  const form = one("#upload");
  const list = one("#progress");

  // Times in the reader's own zone.
  const localize = (within) => {
    const format = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
    for (const time of within.querySelectorAll("time")) {
      const date = new Date(time.dateTime);
      if (!Number.isNaN(date.valueOf())) {
        time.textContent = format.format(date);
        time.title = time.dateTime;
      }
    }
  };
  localize(document);

  // The state of the vault and of the files, without losing what somebody is at.
  const refresh = async () => {
    const busy = one("#files details[open]");
    const focused = document.activeElement?.closest("#files");
    const reply = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (reply.redirected) {
      location.reload();
      return;
    }
    if (!reply.ok) return;
    const fresh = new DOMParser().parseFromString(await reply.text(), "text/html");
    for (const id of busy || focused ? ["status"] : ["status", "files"]) {
      const [old, now] = [document.getElementById(id), fresh.getElementById(id)];
      if (old && now) {
        localize(now);
        old.replaceWith(now);
      }
    }
  };
  const isMoving = () => one('#status[data-state="uploading"], tr[data-state="uploading"]') !== null;
  const watch = async () => {
    if (!document.hidden && one("#status")) {
      try {
        await refresh();
      } catch {
        // Away for a moment; the next time tells.
      }
    }
    setTimeout(watch, isMoving() ? 2000 : 20000);
  };
  setTimeout(watch, isMoving() ? 1000 : 20000);

  // One question at a time.
  document.addEventListener("toggle", (event) => {
    if (!event.target.open) return;
    for (const other of document.querySelectorAll("#files details[open]")) {
      if (other !== event.target) other.open = false;
    }
  }, true);
  document.addEventListener("keydown", (event) => {
    const open = one("#files details[open]");
    if (event.key === "Escape" && open) {
      open.open = false;
      one("summary", open).focus();
    }
  });

  if (!form) return;
  const input = one("#file");
  const label = one("label", form);
  label.textContent = "Drop files here, or choose them";
  one("button", form).hidden = true;

  const size = (bytes) => {
    let value = bytes;
    for (const unit of ["B", "kB", "MB", "GB", "TB"]) {
      if (value < 999.5 || unit === "TB") {
        return `${unit === "B" || value >= 9.95 ? value.toFixed(0) : value.toFixed(1)} ${unit}`;
      }
      value /= 1000;
    }
    return "";
  };

  // One line for each file: its name, how far it is, a bar.
  const line = (file) => {
    const item = document.createElement("li");
    const what = document.createElement("span");
    const far = document.createElement("span");
    const bar = document.createElement("progress");
    what.className = "what";
    what.textContent = file.name;
    far.className = "far";
    far.textContent = "waiting";
    bar.max = 1;
    bar.value = 0;
    bar.setAttribute("aria-label", `Upload of ${file.name}`);
    item.append(what, far, bar);
    list.append(item);
    return { item, far, bar };
  };

  const send = (file, { item, far, bar }) => new Promise((done) => {
    const request = new XMLHttpRequest();
    const body = new FormData();
    body.append("file", file);
    request.open("POST", form.dataset.url);
    request.setRequestHeader("X-CSRF-Token", form.dataset.csrf);
    request.responseType = "json";
    request.upload.addEventListener("progress", (event) => {
      if (!event.lengthComputable) return;
      bar.value = event.loaded / event.total;
      far.textContent = `${size(event.loaded)} of ${size(event.total)}`;
    });
    const failed = (why) => {
      far.textContent = why;
      far.classList.add("bad");
      bar.remove();
      done();
    };
    request.addEventListener("load", () => {
      if (request.status !== 201) {
        failed(request.response?.message ?? `It was refused (${request.status}).`);
        return;
      }
      bar.value = 1;
      far.textContent = "encrypted and kept; on its way to the bucket";
      setTimeout(() => item.remove(), 6000);
      done();
    });
    request.addEventListener("error", () => failed("The connection broke. Nothing was kept; try again."));
    request.addEventListener("abort", () => failed("Stopped. Nothing was kept."));
    request.send(body);
  });

  // One after the other: each has the whole line, and the list tells the truth.
  let turn = Promise.resolve();
  let waiting = 0;
  const take = (files) => {
    for (const file of files) {
      const shown = line(file);
      waiting += 1;
      turn = turn.then(() => send(file, shown)).then(refresh).catch(() => {}).finally(() => { waiting -= 1; });
    }
  };
  input.addEventListener("change", () => {
    take([...input.files]);
    input.value = "";
  });
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("beforeunload", (event) => {
    if (waiting > 0) event.preventDefault();
  });

  // Anywhere on the page.
  let depth = 0;
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => {
    if (carriesFiles(event)) {
      depth += 1;
      form.classList.add("over");
    }
  });
  addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    if (depth === 0) form.classList.remove("over");
  });
  addEventListener("dragover", (event) => {
    if (carriesFiles(event)) event.preventDefault();
  });
  addEventListener("drop", (event) => {
    depth = 0;
    form.classList.remove("over");
    if (carriesFiles(event)) {
      event.preventDefault();
      take([...event.dataTransfer.files]);
    }
  });
})();
