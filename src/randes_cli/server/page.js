"use strict";
const at = id => document.getElementById(id);
const make = (tag, text = "", kind = "") => {
  const made = document.createElement(tag);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
};
const KINDS = {
  generate: ["Write", "Prompt"], classify: ["Classify", "Text to classify"], embed: ["Embed", "Text to embed"],
};
const FIRST = 4;
let models = [], shared = {}, kind = "", key = "", running = null;
const chosen = new Set();

const heads = () => ({ "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) });
const size = bytes => {
  const unit = bytes >= 9.995e8 ? [1e9, "GB"] : bytes >= 9.995e5 ? [1e6, "MB"] : [1e3, "kB"];
  return `${(bytes / unit[0]).toPrecision(3)} ${unit[1]}`;
};
const percent = value => `${Math.round(100 * value)} %`;
const expected = model => {
  if (model.randes.base) return "the base, as it was";
  const range = model.randes.expected;
  if (range) return `expected to keep ${Math.round(100 * range[0])}–${percent(range[1])} of its accuracy`;
  return model.randes.verdict ? `expected to keep ${model.randes.verdict}` : "";
};

async function load() {
  const answer = await fetch("v1/models", { headers: heads() });
  at("lock").hidden = answer.status !== 401;
  if (answer.status === 401) {
    at("lead").textContent = key ? "The key was not the right one." : "";
    at("key").focus();
    return;
  }
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  const told = await answer.json();
  models = told.data;
  shared = told.randes;
  const count = models.length, one = shared.bytes.model, all = shared.bytes.tasks;
  at("lead").textContent = `${count} models answer here, from one bank, in one batch. In memory: ` +
    `${size(one)} of one model, and ${size(all)} for all that was fine-tuned. ` +
    `A process a model would hold ${size(count * one)}.`;
  const there = Object.keys(KINDS).filter(name => models.some(m => m.randes.kind === name));
  if (!there.includes(kind)) kind = there[0];
  showKinds(there);
  show();
  at("ask").hidden = false;
}

function showKinds(there) {
  const row = make("div", "", "row");
  for (const name of there) {
    const label = make("label"), radio = make("input");
    radio.type = "radio";
    radio.name = "kind";
    radio.checked = name === kind;
    radio.addEventListener("change", () => { kind = name; show(); });
    label.append(radio, ` ${KINDS[name][0]}`);
    row.append(label);
  }
  at("kinds").querySelector(".row")?.remove();
  at("kinds").append(row);
  at("kinds").hidden = there.length < 2;
}

const ofKind = () => models.filter(model => model.randes.kind === kind);

function show() {
  const here = ofKind(), names = new Set(here.map(model => model.id));
  for (const name of chosen) if (!names.has(name)) chosen.delete(name);
  if (!chosen.size) here.slice(0, FIRST).forEach(model => chosen.add(model.id));
  at("what").textContent = KINDS[kind][1];
  at("settings").hidden = kind !== "generate";
  at("search").hidden = here.length <= 12;
  at("models").replaceChildren(...here.map(picker));
  filter();
  tell();
}

function picker(model) {
  const label = make("label", "", "pick"), box = make("input");
  box.type = "checkbox";
  box.checked = chosen.has(model.id);
  box.addEventListener("change", () => {
    if (box.checked) chosen.add(model.id); else chosen.delete(model.id);
    tell();
  });
  label.append(box, make("b", model.id), make("small", expected(model)));
  label.dataset.name = model.id;
  return label;
}

function filter() {
  const word = at("filter").value.toLowerCase();
  for (const label of at("models").children) label.hidden = !label.dataset.name.toLowerCase().includes(word);
}

function tell() {
  at("count").textContent = `Models (${chosen.size} of ${ofKind().length} chosen)`;
}

function pick(all) {
  for (const label of at("models").children) {
    if (label.hidden) continue;
    label.firstChild.checked = all;
    if (all) chosen.add(label.dataset.name); else chosen.delete(label.dataset.name);
  }
  tell();
}

function request(model, text) {
  if (kind !== "generate") return [kind === "embed" ? "v1/embeddings" : "v1/classify", { model: model.id, input: text }];
  const body = { model: model.id, temperature: Number(at("heat").value), seed: Math.trunc(Number(at("seed").value)),
    max_tokens: Number(at("most").value), stream: true, stream_options: { include_usage: true } };
  if (model.randes.chat && at("talk").checked) {
    return ["v1/chat/completions", { ...body, messages: [{ role: "user", content: text }] }];
  }
  return ["v1/completions", { ...body, prompt: text }];
}

const quoted = text => `'${text.replaceAll("'", "'\\''")}'`;
const curl = (path, body) => [
  `curl -N ${quoted(new URL(path, location.href).href)}`, "-H 'Content-Type: application/json'",
  ...(key ? ["-H \"Authorization: Bearer $RANDES_API_KEY\""] : []), `-d ${quoted(JSON.stringify(body))}`,
].join(" \\\n  ");

class Card {
  constructor(model, path, body) {
    this.model = model;
    this.root = make("article");
    this.said = make("div", "", "said coming");
    this.speed = make("span", "waits …", "soft");
    const foot = make("div", "", "foot"), copy = make("button", "Copy as curl");
    copy.type = "button";
    copy.setAttribute("aria-label", `Copy the request to ${model.id} as curl`);
    copy.addEventListener("click", () => this.copy(copy, curl(path, body)));
    foot.append(this.speed, copy);
    this.root.append(make("h3", model.id), make("p", expected(model), "soft"), this.said, foot);
    this.tokens = 0;
  }

  async copy(button, text) {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy as curl"; }, 2000);
    } catch {
      this.root.querySelector("pre")?.remove();
      const shown = make("pre", text);
      shown.tabIndex = 0;
      this.root.append(shown);
    }
    at("status").textContent = `The request to ${this.model.id} as curl is copied, or shown below its answer.`;
  }

  add(text) {
    this.began ??= performance.now();
    this.said.append(text);
    this.tokens += 1;
    this.measure();
  }

  measure() {
    const seconds = (performance.now() - this.began) / 1000;
    const rate = this.tokens > 1 && seconds > 0 ? `, ${((this.tokens - 1) / seconds).toFixed(1)} tokens/s` : "";
    this.speed.textContent = `${this.tokens} token${this.tokens === 1 ? "" : "s"}${rate}`;
  }

  fail(message) {
    this.said.append(make("span", `${this.said.textContent ? "\n" : ""}${message}`, "bad"));
    this.speed.textContent = "no answer";
  }

  end() { this.said.classList.remove("coming"); }
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
  }
}

async function ask(card, path, body, signal) {
  try {
    const answer = await fetch(path, { method: "POST", headers: heads(), body: JSON.stringify(body), signal });
    if (!answer.ok) throw new Error((await answer.json()).error.message);
    if (body.stream) await streamed(card, answer.body);
    else whole(card, await answer.json());
  } catch (error) {
    card.fail(error.name === "AbortError" ? "(stopped)" : error.message);
  } finally {
    card.end();
  }
}

async function streamed(card, stream) {
  for await (const event of events(stream)) {
    if (event.error) throw new Error(event.error.message);
    const choice = event.choices[0], text = choice?.delta?.content ?? choice?.text;
    if (text) card.add(text);
    if (event.usage) {
      card.tokens = event.usage.completion_tokens;
      card.began ??= performance.now();
      card.measure();
    }
  }
  if (!card.said.textContent) card.said.append(make("span", "(an empty answer)", "soft"));
}

function whole(card, told) {
  card.speed.textContent = `${told.usage.prompt_tokens} tokens read`;
  if (told.labels) {
    const list = make("ul", "", "classes"), probs = told.data[0].probs;
    const order = [...probs.keys()].sort((a, b) => probs[b] - probs[a]);
    for (const place of order.slice(0, 8)) {
      const row = make("li"), bar = make("progress");
      bar.value = Math.min(1, Math.max(0, probs[place]));
      bar.setAttribute("aria-label", told.labels[place]);
      const shown = told.labels.length === 1 ? probs[place].toPrecision(4) : percent(probs[place]);
      row.append(make("span", told.labels[place]), make("span", shown), bar);
      list.append(row);
    }
    card.said.replaceWith(list);
    return;
  }
  const vector = told.data[0].embedding, length = Math.hypot(...vector);
  card.vector = vector.map(value => value / (length || 1));
  card.said.textContent = `${vector.length} numbers of length ${length.toPrecision(3)}: ` +
    `${vector.slice(0, 6).map(value => value.toFixed(3)).join(", ")} …`;
}

async function go() {
  const text = at("text").value, picked = ofKind().filter(model => chosen.has(model.id));
  if (!text || !picked.length) {
    at("status").textContent = text ? "Choose a model first." : "Type something first.";
    (text ? at("models").querySelector("input") : at("text")).focus();
    return;
  }
  running?.abort();
  const mine = running = new AbortController();
  const asked = picked.map(model => [model, ...request(model, text)]);
  const cards = asked.map(one => new Card(...one));
  at("answers").replaceChildren(...cards.map(card => card.root));
  at("title").hidden = false;
  at("stop").disabled = false;
  at("status").textContent = `${cards.length} of ${models.length} models answer …`;
  const began = performance.now();
  await Promise.all(asked.map(([, path, body], place) => ask(cards[place], path, body, mine.signal)));
  if (running !== mine) return;
  const tokens = cards.reduce((sum, card) => sum + card.tokens, 0), seconds = (performance.now() - began) / 1000;
  at("status").textContent = `${cards.length} answer${cards.length === 1 ? "" : "s"} in ${seconds.toFixed(1)} s` +
    (tokens ? `: ${tokens} tokens, ${(tokens / seconds).toFixed(1)} tokens/s together.` : ".");
  at("stop").disabled = true;
  running = null;
}

at("ask").addEventListener("submit", event => { event.preventDefault(); go(); });
at("lock").addEventListener("submit", event => {
  event.preventDefault();
  key = at("key").value;
  load().catch(broken);
});
at("text").addEventListener("keydown", event => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); go(); }
});
at("filter").addEventListener("input", filter);
at("all").addEventListener("click", () => pick(true));
at("none").addEventListener("click", () => pick(false));
at("stop").addEventListener("click", () => running?.abort());
addEventListener("focus", () => { if (!running && !at("ask").hidden) load().catch(broken); });
const broken = error => { at("lead").textContent = `The server cannot be asked: ${error.message}`; };
load().catch(broken);
