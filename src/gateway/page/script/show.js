// Numbers and times for people, and DOM elements.

// `1.2 MB`: three digits at most, powers of a thousand.
export const size = (bytes) => {
  let value = bytes;
  for (const unit of ["B", "kB", "MB", "GB", "TB"]) {
    if (value < 999.5 || unit === "TB") {
      return `${unit === "B" || value >= 9.95 ? value.toFixed(0) : value.toFixed(1)} ${unit}`;
    }
    value /= 1000;
  }
  return "";
};

export const count = (number, one, many) => `${number} ${number === 1 ? one : many}`;

const zone = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

// Times in the reader's own zone.
export const localize = (within) => {
  for (const time of within.querySelectorAll("time")) {
    const date = new Date(time.dateTime);
    if (!Number.isNaN(date.valueOf())) {
      time.textContent = zone.format(date);
      time.title = time.dateTime;
    }
  }
};

// An element with properties (or attributes, if the name has a dash) and content, which is text unless it is a node.
export const make = (tag, properties = {}, ...content) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "role") made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...content);
  return made;
};
