// Loads this page again, and puts what is marked `data-live` in it in the place of what is shown.
const FOCUSABLE = "a[href], button, input, select, textarea, summary, [tabindex]";

export async function exchange() {
  let answer;
  try {
    answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" });
  } catch {
    return false; // no connection
  }
  if (answer.redirected && new URL(answer.url).pathname === "/login") {
    location.reload(); // the session has ended
    return false;
  }
  if (!answer.ok) return false;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const shown of document.querySelectorAll("[data-live]")) {
    const next = fresh.getElementById(shown.id);
    if (next && next.innerHTML !== shown.innerHTML) replace(shown, next);
  }
  document.documentElement.dataset.now = fresh.documentElement.dataset.now;
  document.dispatchEvent(new Event("exchanged"));
  return true;
}

function replace(shown, next) {
  const places = [...shown.querySelectorAll(FOCUSABLE)];
  const focused = places.indexOf(document.activeElement);
  const opened = [...shown.querySelectorAll("details[open]")].map((it) => it.id);
  for (const id of opened) next.querySelector(`#${CSS.escape(id)}`)?.setAttribute("open", "");
  shown.replaceChildren(...next.childNodes);
  if (focused >= 0) again(shown, places[focused], focused)?.focus({ preventScroll: true });
}

// What had the focus is what has the same address or id; else what is in its place.
function again(shown, before, place) {
  const same = [...shown.querySelectorAll(FOCUSABLE)];
  const address = before.getAttribute("href");
  return same.find((it) => (before.id && it.id === before.id) || (address && it.getAttribute("href") === address))
    ?? same[Math.min(place, same.length - 1)];
}
