// The playground: texts that come and go, and what a model writes while it writes it. All words are the page's own.
"use strict";
(() => {
  const form = document.getElementById("play");
  const find = (selector) => form.querySelector(selector);

  // Texts: all fields are in the page, and those that are not needed are hidden.
  const texts = () => [...form.querySelectorAll(".text")];

  function add() {
    const next = texts().find((text) => text.hidden);
    if (!next) return;
    next.hidden = false;
    next.querySelector("textarea").focus();
    find("[data-add]").disabled = !texts().some((text) => text.hidden);
  }

  function remove(gone) {
    const fields = texts().filter((text) => !text.hidden).map((text) => text.querySelector("textarea"));
    const from = fields.indexOf(gone.querySelector("textarea"));
    for (let place = from; place < fields.length - 1; place++) fields[place].value = fields[place + 1].value;
    fields.at(-1).value = "";
    if (fields.length > 1) fields.at(-1).closest(".text").hidden = true;
    find("[data-add]").disabled = false;
    fields[Math.min(from, Math.max(0, fields.length - 2))].focus();
    form.dispatchEvent(new Event("change"));
  }

  form.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.matches("[data-add]")) add();
    if (button?.matches("[data-remove]")) remove(button.closest(".text"));
    if (button?.matches("[data-stop]")) running?.abort();
    if (button?.matches("[data-anew]")) anew();
  });

  // Streams
  const kind = form.dataset.stream;
  if (!kind) return;
  const talk = find("#talk"), told = find("#told"), prompt = find("#prompt"), said = find("[name=messages]");
  let running = null;

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!running) write();
  });

  prompt.addEventListener("keydown", (event) => {
    if (kind !== "chat" || event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });

  function message(template, text = "") {
    const made = document.getElementById(template).content.firstElementChild.cloneNode(true);
    made.querySelector(":scope > .said").textContent = text;
    talk.append(made);
    talk.hidden = false;
    talk.scrollTop = talk.scrollHeight;
    return made;
  }

  async function write() {
    const asked = prompt.value, body = new URLSearchParams(new FormData(form));
    if (kind === "text") talk.replaceChildren();
    told.replaceChildren();
    const question = kind === "chat" ? message("asked", asked) : null;
    const answer = message("answered");
    if (kind === "chat") prompt.value = "";
    switchTo(new AbortController());
    const outcome = await follow(body, answer);
    switchTo(null);
    if (!answer.isConnected) return; // a new conversation was begun meanwhile
    finish(answer, outcome);
    const text = answer.querySelector(":scope > .said").textContent;
    if (kind === "chat" && text) remember(asked, text);
    if (!text && outcome !== "ended") {
      answer.remove();
      question?.remove();
      talk.hidden = !talk.childElementCount;
      if (kind === "chat" && !prompt.value) prompt.value = asked;
    }
    if (kind === "chat") prompt.focus();
    form.dispatchEvent(new Event("change"));
  }

  // How it ended: `ended`, `failed` or `stopped`.
  async function follow(body, answer) {
    try {
      const headers = { "HX-Request": "true", Accept: "text/event-stream" };
      const response = await fetch(form.action, { method: "POST", body, headers, signal: running.signal });
      if (response.headers.has("HX-Redirect")) location.assign(response.headers.get("HX-Redirect"));
      if (!response.ok) {
        told.innerHTML = await response.text();
        return "failed";
      }
      let outcome = "";
      for await (const event of events(response.body)) outcome = show(event, answer) || outcome;
      if (!outcome) told.replaceChildren(document.getElementById("lost").content.cloneNode(true));
      return outcome || "failed";
    } catch {
      if (running.signal.aborted) return "stopped";
      told.replaceChildren(document.getElementById("lost").content.cloneNode(true));
      return "failed";
    }
  }

  async function* events(stream) {
    const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) yield JSON.parse(part.slice("data: ".length));
    }
  }

  function show(event, answer) {
    const below = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 40;
    if (event.thought) {
      answer.querySelector(".thought").hidden = false;
      answer.querySelector(".thought .said").append(event.thought);
    }
    if (event.text) answer.querySelector(":scope > .said").append(event.text);
    if (below) talk.scrollTop = talk.scrollHeight;
    const last = event.end ?? event.failed;
    if (last === undefined) return "";
    told.innerHTML = last;
    return event.end === undefined ? "failed" : "ended";
  }

  let count = 0;
  function finish(answer, outcome) {
    answer.removeAttribute("aria-busy");
    answer.querySelector(".stopped").hidden = outcome !== "stopped";
    const text = answer.querySelector(":scope > .said"), button = answer.querySelector("[data-copy]");
    text.id = `said-${++count}`;
    button.dataset.copy = `#${text.id}`;
    button.hidden = false;
  }

  function remember(asked, answered) {
    const messages = JSON.parse(said.value);
    messages.push({ role: "user", content: asked }, { role: "assistant", content: answered });
    said.value = JSON.stringify(messages);
    find("[data-anew]").hidden = false;
  }

  function anew() {
    running?.abort();
    said.value = "[]";
    talk.replaceChildren();
    talk.hidden = true;
    told.replaceChildren();
    find("[data-anew]").hidden = true;
    prompt.focus();
    form.dispatchEvent(new Event("change"));
  }

  function switchTo(controller) {
    running = controller;
    find(".run").disabled = controller !== null;
    find("[data-stop]").hidden = controller === null;
  }

  // A page that a browser brings back has forgotten what is in the conversation's bubbles.
  if (said) said.value = "[]";
})();
