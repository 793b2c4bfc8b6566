// Keeps what a page shows true: it follows the events of the ledger, and loads what is marked `data-live` again.
//
// Every answer of the server is a whole page as of one moment, so nothing is computed from events here: they only say
// that something has happened. After a gap, such as the sleep of the machine, the page is loaded again and follows from
// there.
import { exchange } from "./exchange.js";

const PAUSE_MS = 300; // events that come together are one look
const LEAST_BETWEEN_MS = 2000; // between two looks, however much happens
const AGAIN_MS = 5000; // after a stream that the server has refused
const TICK_MS = 5000;
const SLEPT_MS = 20000; // so much later than its time, a tick means that the machine has slept
const HIDDEN_MS = 30000; // then a page that nobody sees gives its connection back: a browser has six for a server
const CLOSED = 2; // EventSource.CLOSED

// `everyMs`: so often the page is loaded again also without an event, for what there is none of.
export function keepLive(address, everyMs, shows) {
  let source = null;
  let timer = null;
  let lookedAt = performance.now() - LEAST_BETWEEN_MS;
  let tickedAt = Date.now();
  let isLooking = false;
  let isStale = false;
  let hiding = null;

  function open() {
    source?.close();
    const since = encodeURIComponent(document.documentElement.dataset.now);
    source = new EventSource(`${address}${address.includes("?") ? "&" : "?"}since=${since}`);
    source.addEventListener("open", () => shows("live"));
    source.addEventListener("error", onError);
    for (const type of document.documentElement.dataset.eventTypes.split(" ")) source.addEventListener(type, lookSoon);
  }

  function onError(event) {
    shows("reconnecting");
    // The browser connects again by itself and says which event it had last; unless it was refused: then from now on.
    if (event.target.readyState === CLOSED && event.target === source) setTimeout(startAgain, AGAIN_MS);
  }

  async function startAgain() {
    if (await look()) open();
    else setTimeout(startAgain, AGAIN_MS);
  }

  function lookSoon() {
    if (document.hidden) {
      isStale = true;
      return;
    }
    const wait = Math.max(PAUSE_MS, lookedAt + LEAST_BETWEEN_MS - performance.now());
    timer ??= setTimeout(look, wait);
  }

  async function look() {
    clearTimeout(timer);
    timer = null;
    if (isLooking) {
      isStale = true;
      return false;
    }
    isLooking = true;
    isStale = false;
    const isDone = await exchange();
    lookedAt = performance.now();
    isLooking = false;
    if (isStale) lookSoon();
    return isDone;
  }

  function tick() {
    const late = Date.now() - tickedAt - TICK_MS;
    tickedAt = Date.now();
    if (late > SLEPT_MS) startAgain(); // the connection may be dead without an error
    else if (performance.now() - lookedAt > everyMs) lookSoon();
  }

  function onVisibility() {
    clearTimeout(hiding);
    if (document.hidden) hiding = setTimeout(() => { source?.close(); source = null; }, HIDDEN_MS);
    else if (source === null) startAgain();
    else if (isStale) lookSoon();
  }

  document.addEventListener("visibilitychange", onVisibility);
  window.addEventListener("online", startAgain);
  window.addEventListener("pageshow", (event) => { if (event.persisted) startAgain(); });
  setInterval(tick, TICK_MS);
  open();
}
