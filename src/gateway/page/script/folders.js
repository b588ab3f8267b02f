// Suggests existing folders while the user types a target.
const WAIT = 200;
const MOST = 50;

const offer = async (input, list) => {
  const typed = input.value.replace(/^\//, "");
  // A visitor who sees only a part of the vault is offered none outside of it.
  if (!input.isConnected || !typed.startsWith(input.dataset.folders)) return;
  const query = new URLSearchParams({ prefix: typed, recursive: "false", limit: "200" });
  const reply = await fetch(`/files/?${query}`);
  if (!reply.ok || typed !== input.value.replace(/^\//, "")) return;
  const { files } = await reply.json();
  const folders = files.filter((file) => file.kind === "directory").slice(0, MOST);
  list.replaceChildren(...folders.map((file) => new Option(file.s3_key, file.s3_key)));
};

export const suggestFolders = (content) => {
  for (const input of content.querySelectorAll("input[data-folders]")) {
    let timer;
    const soon = () => {
      clearTimeout(timer);
      timer = setTimeout(() => offer(input, input.list).catch(() => {}), WAIT);
    };
    input.addEventListener("input", soon);
    input.addEventListener("focus", soon);
  }
};
