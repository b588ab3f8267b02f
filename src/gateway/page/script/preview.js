// A preview never runs what is in a file. Images: raster formats recognised by their first bytes, given to the browser
// as exactly that type; an SVG drawing counts as text. Text: the beginning, as text.
import { make, size } from "./show.js";

const TEXT_MAX = 64 << 10;
const PICTURE_MAX = 32 << 20;

const begins = (bytes, at, text) => [...text].every((char, index) => bytes[at + index] === char.charCodeAt(0));

export const pictureKind = (bytes) => {
  if (begins(bytes, 0, "\x89PNG\r\n\x1a\n")) return "image/png";
  if (begins(bytes, 0, "\xff\xd8\xff")) return "image/jpeg";
  if (begins(bytes, 0, "GIF87a") || begins(bytes, 0, "GIF89a")) return "image/gif";
  if (begins(bytes, 0, "RIFF") && begins(bytes, 8, "WEBP")) return "image/webp";
  if (begins(bytes, 4, "ftypavif") || begins(bytes, 4, "ftypavis")) return "image/avif";
  return null;
};

// The text, or nothing if the bytes are not text: if they have other control characters, or are not UTF-8.
export const asText = (bytes, isWhole) => {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: !isWhole });
    // eslint-disable-next-line no-control-regex
    return /[\x00-\x08\x0e-\x1a\x1c-\x1f]/.test(text) ? null : text;
  } catch {
    return null;
  }
};

const read = async (url, most, signal) => {
  const headers = most ? { Range: `bytes=0-${most - 1}` } : {};
  const reply = await fetch(url, { headers, signal });
  if (!reply.ok) {
    const problem = await reply.json().catch(() => ({}));
    throw new Error(problem.message ?? `The service answers ${reply.status}.`);
  }
  return new Uint8Array(await reply.arrayBuffer());
};

const picture = async (bytes, kind, name) => {
  const image = make("img", { alt: `Preview of ${name}` });
  const url = URL.createObjectURL(new Blob([bytes], { type: kind }));
  try {
    image.src = url;
    await image.decode();
    return image;
  } catch {
    throw new Error("This picture cannot be shown. It may be damaged; it can be downloaded.");
  } finally {
    URL.revokeObjectURL(url);
  }
};

const shown = async ({ preview: url, size: text, name }, signal) => {
  const length = Number(text);
  if (length === 0) return [make("p", { className: "hint" }, "The file is empty.")];
  const first = await read(url, Math.min(length, TEXT_MAX), signal);
  const kind = pictureKind(first);
  if (kind && length <= PICTURE_MAX) {
    return [await picture(first.length < length ? await read(url, 0, signal) : first, kind, name)];
  }
  const words = kind ? null : asText(first, first.length === length);
  if (words !== null) {
    const part = first.length < length
      ? [make("p", { className: "hint" }, `The first ${size(first.length)} of ${size(length)}.`)] : [];
    return [make("pre", { tabIndex: 0, role: "region", "aria-label": `Beginning of ${name}` }, words), ...part];
  }
  const why = kind ? `A picture of more than ${size(PICTURE_MAX)} is not previewed.` : "There is no preview of this kind of file.";
  return [make("p", { className: "hint" }, why)];
};

export const preview = (content) => {
  for (const place of content.querySelectorAll("[data-preview]")) {
    const stop = new AbortController();
    content.addEventListener("gone", () => stop.abort(), { once: true });
    place.setAttribute("aria-busy", "true");
    place.replaceChildren(make("p", { className: "hint" }, "The preview is being made."));
    shown(place.dataset, stop.signal)
      .catch((error) => [make("p", { className: "hint" }, error.message)])
      .then((made) => {
        place.replaceChildren(...made);
        place.removeAttribute("aria-busy");
      });
  }
};
