// The theme: that of the system, light, or dark. The server reads the cookie, so that no page begins in another one.
const THEMES = ["auto", "light", "dark"];
const A_YEAR_S = 31536000;

export function offerThemes(button) {
  const root = document.documentElement;
  const label = () => { button.textContent = `Theme: ${root.dataset.theme}`; };
  button.addEventListener("click", () => {
    root.dataset.theme = THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length];
    document.cookie = `acm-theme=${root.dataset.theme}; path=/; max-age=${A_YEAR_S}; samesite=strict`;
    label();
  });
  label();
  button.hidden = false;
}
