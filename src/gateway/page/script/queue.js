// Uploads, a few at a time, in the order in which they were added. Knows nothing about the page.
const AT_ONCE = 2;
export const MOST = 20000;

// waiting -> sending -> kept | failed | cancelled; from the last two a job may wait again.
class Queue {
  constructor() {
    this.jobs = [];
    this.sending = 0;
    // Called with each change of a job.
    this.tell = () => {};
  }

  get open() {
    return this.jobs.filter((job) => job.state === "waiting" || job.state === "sending").length;
  }

  // What to send: `url`, `csrf`, and a `file`, or the `folder` to make.
  add(jobs) {
    for (const job of jobs) {
      Object.assign(job, { state: "waiting", loaded: 0, total: job.file?.size ?? 0, why: "" });
      this.jobs.push(job);
      this.tell(job);
    }
    this.go();
  }

  go() {
    while (this.sending < AT_ONCE) {
      const job = this.jobs.find((other) => other.state === "waiting");
      if (!job) return;
      this.sending += 1;
      job.state = "sending";
      this.tell(job);
      (job.file ? this.send(job) : this.makeFolder(job)).then((end) => {
        this.sending -= 1;
        Object.assign(job, end, { request: null });
        this.tell(job);
        this.go();
      });
    }
  }

  cancel(job) {
    if (job.state === "waiting") {
      Object.assign(job, { state: "cancelled", why: "Cancelled." });
      this.tell(job);
    } else if (job.state === "sending") {
      job.request?.abort();
    }
  }

  retry(job) {
    if (job.state !== "failed" && job.state !== "cancelled") return;
    Object.assign(job, { state: "waiting", loaded: 0, why: "" });
    this.tell(job);
    this.go();
  }

  forget(job) {
    this.jobs = this.jobs.filter((other) => other !== job);
  }

  send(job) {
    return new Promise((end) => {
      const request = new XMLHttpRequest();
      const body = new FormData();
      // With an explicit name, or a file of a folder would be sent with its path as its name.
      body.append("file", job.file, job.file.name);
      job.request = request;
      request.open("POST", job.url);
      request.setRequestHeader("X-CSRF-Token", job.csrf);
      request.responseType = "json";
      request.upload.addEventListener("progress", (event) => {
        if (!event.lengthComputable) return;
        Object.assign(job, { loaded: event.loaded, total: event.total });
        this.tell(job);
      });
      const failed = (why) => end({ state: "failed", why });
      request.addEventListener("load", () => {
        if (request.status === 201) end({ state: "kept", loaded: job.total, name: request.response?.file_name ?? job.name });
        else if (request.status === 401) failed("You are logged out. Nothing was kept; log in again.");
        else failed(request.response?.message ?? `It was refused (${request.status}).`);
      });
      request.addEventListener("error", () => failed("The connection broke, or the file cannot be read. Nothing was kept."));
      request.addEventListener("abort", () => end({ state: "cancelled", why: "Cancelled. Nothing was kept." }));
      request.send(body);
    });
  }

  async makeFolder(job) {
    try {
      const body = new URLSearchParams({ name: job.folder });
      const reply = await fetch(job.url, { method: "POST", headers: { Accept: "application/json" }, body });
      const answer = await reply.json();
      // If the folder exists, that is as good.
      return reply.ok || answer.error === "exists" ? { state: "kept" } : { state: "failed", why: answer.message };
    } catch {
      return { state: "failed", why: "The service does not answer." };
    }
  }
}

export const queue = new Queue();
