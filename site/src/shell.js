// What every page has: the theme, explanations of terms, copy buttons.
import { byId } from "./dom.js";

const THEMES = ["auto", "light", "dark"];

function useTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  const button = byId("theme");
  button.dataset.now = theme;
  button.setAttribute("aria-label", `Colours: ${theme}. Change`);
  button.title = `Colours: ${theme}`;
}

function startTheme() {
  let now = localStorage.getItem("theme");
  if (!THEMES.includes(now)) now = "auto";
  useTheme(now);
  byId("theme").addEventListener("click", () => {
    now = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
    localStorage.setItem("theme", now);
    useTheme(now);
  });
}

/** Puts an explanation below its term, inside the window. */
function placeExplanation(event) {
  if (event.newState !== "open") return;
  const box = event.target;
  const term = document.querySelector(`[popovertarget="${box.id}"][data-open]`) ?? document.querySelector(`[popovertarget="${box.id}"]`);
  const at = term.getBoundingClientRect();
  const width = Math.min(320, innerWidth - 24);
  box.style.width = `${width}px`; // first: the height follows from it
  Object.assign(box.style, {
    left: `${Math.max(12, Math.min(at.left, innerWidth - width - 12))}px`,
    top: `${at.bottom + 6 + box.offsetHeight > innerHeight ? Math.max(8, at.top - box.offsetHeight - 6) : at.bottom + 6}px`,
  });
}

function startTerms() {
  for (const term of document.querySelectorAll(".term")) {
    term.addEventListener("click", () => {
      for (const other of document.querySelectorAll(".term[data-open]")) delete other.dataset.open;
      term.dataset.open = "";
    });
  }
  for (const box of document.querySelectorAll(".explanation")) box.addEventListener("toggle", placeExplanation);
}

/** Buttons with data-copy: copy the text of the element with that id. */
export function startCopying(scope = document) {
  for (const button of scope.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", async () => {
      const label = button.textContent;
      try {
        await navigator.clipboard.writeText(byId(button.dataset.copy).textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(byId(button.dataset.copy));
        button.textContent = "Press Ctrl+C";
      }
      setTimeout(() => (button.textContent = label), 1600);
    });
  }
}

/**
 * Runs `start` of a page that reads files of the site; opened from disk it may not, and says how to serve the site.
 */
export function whereServed(start) {
  if (location.protocol === "file:") byId("unserved").hidden = false;
  else start();
}

startTheme();
startTerms();
startCopying();
