// Announces what happened: visible at the foot of the page, and read by screen readers.
let timer;

export const say = (text, isBad = false) => {
  const place = document.getElementById("said");
  if (!place) return;
  // Emptied first, so that the same words are read again.
  place.textContent = "";
  place.classList.toggle("bad", isBad);
  requestAnimationFrame(() => { place.textContent = text; });
  clearTimeout(timer);
  timer = setTimeout(() => { place.textContent = ""; }, isBad ? 20000 : 8000);
};
