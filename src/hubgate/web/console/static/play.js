// The playground: text fields that are added and removed, and streamed text. All messages come from the page.
"use strict";
(() => {
  const form = document.getElementById("play");
  const find = (selector) => form.querySelector(selector);

  // Text fields: all of them are in the page, the unused ones hidden.
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
    if (button?.matches("[data-new-conversation]")) startConversation();
  });

  // Streams
  const kind = form.dataset.stream;
  if (!kind) return;
  const conversation = find("#conversation"), status = find("#status");
  const prompt = find("#prompt"), history = find("[name=messages]");
  let running = null;

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!running) generate();
  });

  prompt.addEventListener("keydown", (event) => {
    if (kind !== "chat" || event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });

  function message(template, text = "") {
    const element = document.getElementById(template).content.firstElementChild.cloneNode(true);
    element.querySelector(":scope > .content").textContent = text;
    conversation.append(element);
    conversation.hidden = false;
    conversation.scrollTop = conversation.scrollHeight;
    return element;
  }

  async function generate() {
    const sent = prompt.value, body = new URLSearchParams(new FormData(form));
    if (kind === "text") conversation.replaceChildren();
    status.replaceChildren();
    const question = kind === "chat" ? message("user-message", sent) : null;
    const answer = message("assistant-message");
    if (kind === "chat") prompt.value = "";
    setRunning(new AbortController());
    const outcome = await follow(body, answer);
    setRunning(null);
    if (!answer.isConnected) return; // a new conversation was started meanwhile
    finish(answer, outcome);
    const text = answer.querySelector(":scope > .content").textContent;
    if (kind === "chat" && text) remember(sent, text);
    if (!text && outcome !== "ended") {
      answer.remove();
      question?.remove();
      conversation.hidden = !conversation.childElementCount;
      if (kind === "chat" && !prompt.value) prompt.value = sent;
    }
    if (kind === "chat") prompt.focus();
    form.dispatchEvent(new Event("change"));
  }

  // Shows the stream. Returns `ended`, `failed` or `stopped`.
  async function follow(body, answer) {
    try {
      const headers = { "HX-Request": "true", Accept: "text/event-stream" };
      const response = await fetch(form.action, { method: "POST", body, headers, signal: running.signal });
      if (response.headers.has("HX-Redirect")) location.assign(response.headers.get("HX-Redirect"));
      if (!response.ok) {
        status.innerHTML = await response.text();
        return "failed";
      }
      let outcome = "";
      for await (const event of events(response.body)) outcome = show(event, answer) || outcome;
      if (!outcome) status.replaceChildren(document.getElementById("lost").content.cloneNode(true));
      return outcome || "failed";
    } catch {
      if (running.signal.aborted) return "stopped";
      status.replaceChildren(document.getElementById("lost").content.cloneNode(true));
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
    const atBottom = conversation.scrollHeight - conversation.scrollTop - conversation.clientHeight < 40;
    if (event.reasoning) {
      answer.querySelector(".reasoning").hidden = false;
      answer.querySelector(".reasoning .content").append(event.reasoning);
    }
    if (event.text) answer.querySelector(":scope > .content").append(event.text);
    if (atBottom) conversation.scrollTop = conversation.scrollHeight;
    const last = event.end ?? event.failed;
    if (last === undefined) return "";
    status.innerHTML = last;
    return event.end === undefined ? "failed" : "ended";
  }

  let count = 0;
  function finish(answer, outcome) {
    answer.removeAttribute("aria-busy");
    answer.querySelector(".stopped").hidden = outcome !== "stopped";
    const text = answer.querySelector(":scope > .content"), button = answer.querySelector("[data-copy]");
    text.id = `content-${++count}`;
    button.dataset.copy = `#${text.id}`;
    button.hidden = false;
  }

  function remember(sent, reply) {
    const messages = JSON.parse(history.value);
    messages.push({ role: "user", content: sent }, { role: "assistant", content: reply });
    history.value = JSON.stringify(messages);
    find("[data-new-conversation]").hidden = false;
  }

  function startConversation() {
    running?.abort();
    history.value = "[]";
    conversation.replaceChildren();
    conversation.hidden = true;
    status.replaceChildren();
    find("[data-new-conversation]").hidden = true;
    prompt.focus();
    form.dispatchEvent(new Event("change"));
  }

  function setRunning(controller) {
    running = controller;
    find(".run").disabled = controller !== null;
    find("[data-stop]").hidden = controller === null;
  }

  // A browser that restores the page restores the field, but not the messages shown.
  if (history) history.value = "[]";
})();
