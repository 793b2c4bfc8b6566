// What every page has: the switch of the theme, filters that are sent as soon as they are changed, times that grow and,
// where something is marked `data-live`, what keeps it true.
import { sendFilters } from "./filters.js";
import { keepLive } from "./live.js";
import { offerThemes } from "./theme.js";
import { growTimes } from "./times.js";

const NAMES = { live: "Live", reconnecting: "Reconnecting" };
const GROW_MS = 10000;

offerThemes(document.getElementById("theme"));
sendFilters(document.querySelectorAll("form[data-filters]"));
growTimes(GROW_MS);

const state = document.getElementById("live");
if (state && document.querySelector("[data-live]")) {
  state.hidden = false;
  keepLive(state.dataset.events, (name) => {
    state.dataset.state = name;
    state.textContent = NAMES[name];
  });
}
