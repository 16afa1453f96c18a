// What HTML cannot do by itself: menus that close, lists that arrow keys walk, texts that are copied, clicks
// that are one too many. htmx does the rest.
"use strict";
(() => {
  const menus = () => document.querySelectorAll("details.menu[open]");

  document.addEventListener("click", (event) => {
    for (const menu of menus()) if (!menu.contains(event.target)) menu.open = false;
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
  });

  // The second click of a double click sends nothing again: its answer would take the place of one that is shown once.
  document.addEventListener("click", (event) => {
    if (event.detail < 2 || !event.target.closest("button:not([type=button])")) return;
    event.preventDefault();
    event.stopPropagation();
  }, true);

  // In `data-arrows` the arrow keys go from one `data-stop` to the next: from a search field to what it found.
  function step(event) {
    const stops = [...(event.target.closest("[data-arrows]")?.querySelectorAll("[data-stop]") ?? [])];
    const at = stops.indexOf(event.target);
    const next = at < 0 ? undefined : stops[at + (event.key === "ArrowDown" ? 1 : -1)];
    if (!next) return;
    event.preventDefault();
    next.focus();
  }

  document.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") step(event);
    if (event.key !== "Escape") return;
    for (const menu of menus()) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });

  // `data-copy` holds the selector of what is copied; outside HTTPS and this machine browsers have no clipboard.
  async function copy(button) {
    const source = document.querySelector(button.dataset.copy);
    const text = source.value ?? source.textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const range = document.createRange();
      range.selectNodeContents(source);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      document.execCommand("copy");
    }
    const label = button.querySelector("span") ?? button;
    const before = (label.dataset.before ??= label.textContent); // it may say "Copied" still
    label.textContent = document.body.dataset.copied;
    setTimeout(() => { label.textContent = before; }, 1500);
  }
})();
