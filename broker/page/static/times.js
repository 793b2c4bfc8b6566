// Lets times that are shown as distances from now grow. Now is the server's time: the clock of this machine may be off.
const UNITS = [[2 * 86400, 86400, "days"], [2 * 3600, 3600, "h"], [120, 60, "min"], [0, 1, "s"]];

function rough(seconds) {
  const [, unit, name] = UNITS.find(([least]) => seconds >= least);
  return `${Math.floor(seconds / unit)} ${name}`;
}

export function growTimes(everyMs) {
  let loadedAt = performance.now();
  const grow = () => {
    const now = Date.parse(document.documentElement.dataset.now) + performance.now() - loadedAt;
    for (const time of document.querySelectorAll("time[data-distance]")) {
      const seconds = (now - Date.parse(time.dateTime)) / 1000;
      time.textContent = seconds >= 0 ? `${rough(seconds)} ago` : `in ${rough(-seconds)}`;
    }
  };
  document.addEventListener("exchanged", () => { loadedAt = performance.now(); });
  setInterval(grow, everyMs);
}
