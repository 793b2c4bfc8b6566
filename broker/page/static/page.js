// What every page has: the switch of the theme, its own place in the navigation in sight, filters that are sent as soon
// as they are changed, times that grow and, where something is marked `data-live`, what keeps it true.
import { sendFilters } from "./filters.js";
import { keepLive } from "./live.js";
import { offerThemes } from "./theme.js";
import { growTimes } from "./times.js";

const NAMES = { live: "Live", reconnecting: "Reconnecting" };
const GROW_MS = 10000;

offerThemes(document.getElementById("theme"));
sendFilters(document.querySelectorAll("form[data-filters]"));
growTimes(GROW_MS);
document.querySelector("nav [aria-current=page]")?.scrollIntoView({ block: "nearest", inline: "center" });

const state = document.getElementById("live");
if (state && document.querySelector("[data-live]")) {
  state.hidden = false;
  keepLive(state.dataset.events, Number(state.dataset.everyMs) || Infinity, (name) => {
    state.dataset.state = name;
    state.textContent = NAMES[name];
  });
}
