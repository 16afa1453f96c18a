// What HTML and htmx cannot do: closing menus, arrow keys in lists, copying, reading files, and ignoring double clicks.
"use strict";
(() => {
  const menus = () => document.querySelectorAll("details.menu[open]");

  document.addEventListener("click", (event) => {
    for (const menu of menus()) if (!menu.contains(event.target)) menu.open = false;
    const button = event.target.closest("[data-copy]");
    if (button) copy(button);
  });

  // The second click of a double click submits nothing: its reply would replace one that is shown only once.
  document.addEventListener("click", (event) => {
    if (event.detail < 2 || !event.target.closest("button:not([type=button])")) return;
    event.preventDefault();
    event.stopPropagation();
  }, true);

  // In `data-arrows`, arrow keys move between `data-stop` elements: from a search field to its results.
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

  // `data-into` of a file input is the selector of the text area that shows the file. The file itself is not sent.
  document.addEventListener("change", async (event) => {
    const area = event.target.dataset.into && document.querySelector(event.target.dataset.into);
    const file = event.target.files?.[0];
    if (area && file) area.value = await file.text();
  });

  // `data-copy` is the selector of the text to copy. Without HTTPS, browsers have a clipboard on localhost only.
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
    const before = (label.dataset.before ??= label.textContent); // the label may still be "Copied"
    label.textContent = document.body.dataset.copied;
    setTimeout(() => { label.textContent = before; }, 1500);
  }
})();
