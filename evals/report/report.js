"use strict";
// The item browser. Whatever a model or a data set wrote reaches the page as text nodes only.

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const UNPARSED = 1, TRUNCATED = 2, EMPTY = 4;
const ROW = 52; // px, as in the style sheet
const meta = JSON.parse($("#meta").textContent);
const state = { run: 0, versus: meta.against, task: "", q: "", only: new Set(), item: "" };
let entries = []; // the run's items: {id, task, n, good, flags, brief, other}
let shown = []; // those that pass the filters
let turn = 0; // the latest search; an older one stops

/** An element; children are nodes or text, never markup. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value != null) node.setAttribute(name, value);
  node.append(...children.filter((child) => child != null));
  return node;
}

// --- data: gzipped JSON in base64, opened when it is needed ---------------------------------------------------------------

const opened = new Map();

/** The value packed in the script element of that id. */
function unpack(id) {
  if (!opened.has(id)) opened.set(id, inflate($(`[id="${id}"]`).textContent));
  return opened.get(id);
}

async function inflate(base64) {
  const binary = atob(base64);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}

/** All items of a run, in the order of its tasks. */
async function indexOf(run) {
  const tasks = await Promise.all(meta.runs[run].tasks.map(async ([task], t) => [task, t, await unpack(`i-${run}-${t}`)]));
  return tasks.flatMap(([task, t, index]) =>
    index.id.map((id, n) => ({ id: `${task}/${id}`, task, t, n, good: index.good[n], flags: index.flags[n], brief: index.brief[n] })));
}

/** An item's texts, with the start its prompt shares with its neighbours. */
async function textsOf(run, entry) {
  const block = await unpack(`b-${run}-${entry.t}-${Math.floor(entry.n / meta.block)}`);
  const texts = block.items[entry.n % meta.block];
  return { ...texts, start: block.shared[texts.shared] || "" };
}

async function load() {
  const [own, others] = await Promise.all([indexOf(state.run), state.versus >= 0 && state.versus !== state.run ? indexOf(state.versus) : []]);
  const other = new Map(others.map((entry) => [entry.id, entry]));
  for (const entry of own) entry.other = other.get(entry.id);
  entries = own;
}

// --- filters and search ---------------------------------------------------------------------------------------------------

const isWrong = (entry) => entry.good !== null && entry.good < 0.5;
const tests = {
  wrong: isWrong,
  unparsed: (entry) => entry.flags & UNPARSED,
  truncated: (entry) => entry.flags & TRUNCATED,
  empty: (entry) => entry.flags & EMPTY,
  flipped: (entry) => entry.other && entry.good !== null && entry.other.good !== null && isWrong(entry) !== isWrong(entry.other),
};
const inTask = (entry) => !state.task || entry.id.startsWith(`${state.task}/`);

/** What is searched for: words, or "several words" in quotes; all of them must be found. */
function terms() {
  const words = [...state.q.matchAll(/"([^"]+)"?|([^\s"]+)/g)].map((found) => found[1] ?? found[2]);
  return words.map((word) => new RegExp(word.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"), "iu"));
}

/** Every text of an item, as it is searched. */
function fields(id, texts) {
  texts.fields ??= [id, texts.prompt, texts.gold || "", ...texts.outputs, ...(texts.reasoning || []).filter(Boolean), ...[texts.extracted, texts.grade, texts.findings].flatMap(leaves)];
  return texts.fields;
}

const leaves = (value) => (value === null ? [] : typeof value === "object" ? Object.entries(value).flat().flatMap(leaves) : [String(value)]);

async function apply() {
  const mine = ++turn;
  const wanted = terms();
  const candidates = entries.filter((entry) => inTask(entry) && [...state.only].every((name) => tests[name](entry)));
  counts();
  if (!wanted.length) return show(candidates, "");
  const found = [];
  let rested = performance.now();
  for (let i = 0; i < candidates.length; i++) {
    const entry = candidates[i];
    const block = await unpack(`b-${state.run}-${entry.t}-${Math.floor(entry.n / meta.block)}`);
    const text = fields(entry.id, block.items[entry.n % meta.block]);
    if (wanted.every((term) => text.some((field) => term.test(field)))) found.push(entry);
    if (performance.now() - rested > 60) {
      show(found, `, searched ${Math.floor((100 * i) / candidates.length)} %`);
      await new Promise((resolve) => setTimeout(resolve));
      rested = performance.now();
    }
    if (mine !== turn) return;
  }
  show(found, "");
}

function counts() {
  const within = entries.filter(inTask);
  for (const box of $$("#only input")) $("output", box.parentNode).textContent = within.filter(tests[box.value]).length.toLocaleString("en");
}

// --- the list: only the rows in view exist ----------------------------------------------------------------------------------

const list = $("#list"), rows = $("#rows");

function show(found, progress) {
  shown = found;
  const total = entries.filter(inTask).length.toLocaleString("en");
  $("#count").textContent = `${found.length.toLocaleString("en")} of ${total} items${progress}`;
  rows.style.height = `${found.length * ROW}px`;
  paint();
}

function paint() {
  const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
  const last = Math.min(shown.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
  rows.replaceChildren(...shown.slice(first, last).map((entry, i) => row(entry, first + i)));
  const at = position();
  if (at >= first && at < last) list.setAttribute("aria-activedescendant", `row-${at}`);
  else list.removeAttribute("aria-activedescendant");
}

const position = () => shown.findIndex((entry) => entry.id === state.item);

function row(entry, at) {
  const node = el("div", { role: "option", id: `row-${at}`, class: "row", "aria-posinset": at + 1, "aria-setsize": shown.length,
    "aria-selected": entry.id === state.item }, mark(entry), el("span", { class: "id" }, entry.id), tags(entry), el("span", { class: "brief" }, entry.brief));
  node.style.top = `${at * ROW}px`;
  node.dataset.id = entry.id;
  return node;
}

const VERDICTS = { right: "✓", wrong: "✗", part: "◐", none: "–" };

function verdict(entry) {
  return entry.good === null ? "none" : isWrong(entry) ? "wrong" : entry.good < 1 ? "part" : "right";
}

function mark(entry) {
  const name = verdict(entry);
  return el("span", { class: `mark ${name}`, role: "img", "aria-label": { part: "partly right", none: "not scored" }[name] || name }, VERDICTS[name]);
}

function tags(entry) {
  const flipped = tests.flipped(entry) ? [isWrong(entry) ? "lost" : "gained"] : [];
  const names = [...flipped, ...["unparsed", "truncated", "empty"].filter((name) => tests[name](entry))];
  return el("span", { class: "tags" }, ...names.map((name) => el("span", { class: `tag ${name}` }, name)));
}

/** Bring the open item's row into view. */
function reveal() {
  const at = position();
  if (at < 0) return;
  if (at * ROW < list.scrollTop) list.scrollTop = at * ROW;
  else if ((at + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = (at + 1) * ROW - list.clientHeight;
}

// --- one item ---------------------------------------------------------------------------------------------------------------

/** Text with what was searched for marked. */
function marked(text) {
  const wanted = terms();
  if (!wanted.length) return [text];
  const pieces = text.split(new RegExp(`(${wanted.map((term) => term.source).join("|")})`, "giu"));
  return pieces.map((piece, i) => (i % 2 ? el("mark", {}, piece) : piece));
}

const pre = (text, label) => el("pre", { tabindex: 0, role: "region", "aria-label": label }, ...marked(text));
const isPlain = (value) => value === null || typeof value !== "object";
const inWords = (value) => (isPlain(value) ? String(value) : Array.isArray(value) && value.every(isPlain) ? value.join(", ") : JSON.stringify(value, null, 1));
const panel = (title, ...children) => el("section", { class: "panel" }, el("h4", {}, title), ...children);

function promptPanel(texts) {
  const start = texts.start && el("details", {}, el("summary", {}, `The same in its neighbours: ${texts.start.length.toLocaleString("en")} characters`), pre(texts.start, "Shared start of the prompt"));
  const title = texts.sent ? "Prompt" : "Prompt, without the chat format";
  return panel(title, start || null, texts.prompt ? pre(texts.prompt, "Prompt") : el("p", { class: "quiet" }, "Not at hand."));
}

function outputPanels(texts, whose) {
  const reasons = texts.grade.finish_reasons || [], tokens = texts.grade.n_tokens || [];
  const panels = texts.outputs.map((output, i) => {
    const outcome = texts.findings[`sample/${i}`]?.outcome;
    const end = reasons[i] || "stop";
    const words = [end === "length" ? "cut at the token limit" : end === "stop" ? null : `ended: ${end.replace("_", " ")}`, tokens[i] != null ? `${tokens[i].toLocaleString("en")} tokens` : null,
      outcome && `${outcome.status} ${outcome.detail}`.trim()].filter(Boolean);
    const title = texts.outputs.length > 1 ? `Output ${i + 1}` : "Output";
    const thought = (texts.reasoning || [])[i], spent = (texts.grade.n_reasoning_tokens || [])[i];
    const reasoning = thought != null && el("details", {}, el("summary", {}, `Reasoning, not graded${spent != null ? `: ${spent.toLocaleString("en")} tokens` : ""}`), pre(thought, `Reasoning of ${title.toLowerCase()}`));
    return panel(title + (whose ? ` of ${whose}` : ""), el("p", { class: "about" }, words.join(" · ")), reasoning || null,
      output.trim() ? pre(output, title) : el("p", { class: "quiet" }, "Empty."));
  });
  const sorted = panels.length > 1 ? [samples(panels, texts)] : [];
  return [...(texts.logprobs ? [choices(texts.logprobs, whose)] : []), ...sorted, ...panels];
}

/** Buttons that leave only the samples of one kind: how a program ended, else how an output did. */
function samples(panels, texts) {
  const kinds = panels.map((_, i) => texts.findings[`sample/${i}`]?.outcome?.status || (texts.grade.finish_reasons || [])[i] || "stop");
  const only = (kind) => panels.forEach((one, i) => (one.hidden = kind !== "" && kinds[i] !== kind));
  const buttons = ["", ...new Set(kinds)].map((kind) => {
    const n = kind ? kinds.filter((one) => one === kind).length : kinds.length;
    const button = el("button", { type: "button", class: "step", "aria-pressed": String(!kind) }, `${kind.replaceAll("_", " ") || "all"} ${n}`);
    button.addEventListener("click", () => {
      only(kind);
      for (const one of buttons) one.setAttribute("aria-pressed", String(one === button));
    });
    return button;
  });
  return el("p", { class: "samples", role: "group", "aria-label": "Samples of one kind" }, ...buttons);
}

function choices(logprobs, whose) {
  const lines = Object.entries(logprobs).map(([label, value]) => {
    const share = Math.exp(Number(value)), bar = el("i");
    bar.style.width = `${100 * share}%`;
    return el("tr", {}, el("th", { scope: "row" }, label), el("td", {}, el("span", { class: "share" }, bar)), el("td", {}, `${(100 * share).toFixed(1)} %`));
  });
  return panel("Probability of each answer" + (whose ? `, ${whose}` : ""), el("table", { class: "choices" }, el("tbody", {}, ...lines)));
}

function facts(entry, texts) {
  const gold = texts.gold === null ? "Not at hand." : texts.gold || "None: a judge or a check decides.";
  const grade = Object.entries(texts.grade).filter(([, value]) => value !== null && value !== false);
  const list = el("dl", {}, ...grade.flatMap(([name, value]) => [el("dt", {}, name.replaceAll("_", " ")), el("dd", {}, ...marked(inWords(value)))]));
  const read = texts.extracted === null ? el("p", { class: "quiet" }, "Nothing was extracted.") : pre(inWords(texts.extracted), "Answer as read");
  return el("div", { class: "facts" }, panel("Answer as read", read), panel("Gold", pre(gold, "Gold")), panel("Grade", list));
}

function judgements(findings) {
  const said = Object.entries(findings).filter(([name]) => !name.startsWith("sample/"));
  return said.map(([name, { by, text, ...rest }]) => panel(`Verdict ${name}, by ${by}`, pre(text ?? inWords(rest), `Verdict ${name}`)));
}

async function open() {
  const detail = $("#detail"), id = state.item, entry = entries.find((one) => one.id === id);
  document.body.classList.toggle("reading", Boolean(entry));
  if (!entry) return detail.replaceChildren(el("p", { class: "quiet" }, id ? `There is no item ${id} in this run.` : "Choose an item. ↑ ↓ or j k move, / searches, Esc clears."));
  const [texts, other] = await Promise.all([textsOf(state.run, entry), entry.other && textsOf(state.versus, entry.other)]);
  if (state.item !== id) return;
  const versus = other && meta.runs[state.versus].name;
  const step = (by, label, sign) => {
    const button = el("button", { type: "button", "aria-label": label, class: "step" }, sign);
    button.addEventListener("click", () => move(by));
    return button;
  };
  const back = el("button", { type: "button", class: "back" }, "← List");
  back.addEventListener("click", () => go({ item: "" }));
  const lacks = meta.runs[state.run].tasks[entry.t][3].map((sentence) => el("p", { class: "quiet" }, sentence));
  detail.replaceChildren(
    el("header", {}, back, mark(entry), el("h3", {}, el("a", { href: hash({ item: id }) }, id)), tags(entry), el("span", { class: "steps" }, step(-1, "Previous item", "↑"), step(1, "Next item", "↓"))),
    ...(other ? [el("p", { class: "about" }, mark(entry.other), ` in ${versus}, answer as read: `, inWords(other.extracted))] : []),
    facts(entry, texts),
    el("div", { class: "sides" }, promptPanel(texts), el("div", {}, ...outputPanels(texts, other ? meta.runs[state.run].name : "")),
      ...(other ? [el("div", {}, ...outputPanels(other, versus))] : [])),
    ...judgements(texts.findings), ...lacks,
    el("p", { class: "quiet" }, "Everything behind it, judges' prompts too, is in the run's folder, ", el("code", {}, meta.runs[state.run].folder), "."));
  detail.scrollTop = 0;
}

// --- where we are, kept in the address ---------------------------------------------------------------------------------------

/** The address of a view: what is asked for, with all else as it is. */
function hash(changes = {}) {
  const { run, versus, task, q, only, item } = { ...state, ...changes };
  const parts = { item, run: run || "", versus: versus === meta.against ? "" : versus, task, q, only: [...only].join(",") };
  const encode = (value) => encodeURIComponent(value).replaceAll("%2F", "/").replaceAll("%2C", ",");
  return "#" + Object.entries(parts).filter(([, value]) => value !== "").map(([name, value]) => `${name}=${encode(value)}`).join("&");
}

/** Read the address; false when it names no view but a section of the page. */
function readHash() {
  if (!location.hash.includes("=")) return false;
  const parts = new URLSearchParams(location.hash.slice(1).replaceAll("+", "%2B"));
  const number = (name, fallback) => (meta.runs[parts.get(name)] || parts.get(name) === "-1" ? Number(parts.get(name)) : fallback);
  Object.assign(state, { run: Math.max(0, number("run", 0)), versus: number("versus", meta.against), task: parts.get("task") || "",
    q: parts.get("q") || "", only: new Set((parts.get("only") || "").split(",").filter((name) => tests[name])), item: parts.get("item") || "" });
  return true;
}

/** Go to a view: the address, the list and the item follow. */
async function go(changes, { keep = true } = {}) {
  const before = { ...state };
  Object.assign(state, changes);
  if (keep) history.replaceState(null, "", hash());
  if (!entries.length || before.run !== state.run || before.versus !== state.versus) await load();
  controls();
  if (Object.keys(changes).some((name) => name !== "item")) {
    list.scrollTop = 0;
    await apply();
  }
  reveal();
  paint();
  await open();
}

function move(by) {
  const at = Math.min(shown.length - 1, Math.max(0, position() + by));
  if (shown[at]) go({ item: shown[at].id });
}

function controls() {
  const tasks = meta.runs[state.run].tasks.map(([task, n]) => [task, `${task} (${n.toLocaleString("en")})`]);
  if (state.task && !tasks.some(([task]) => task === state.task)) tasks.push([state.task, state.task]);
  const fill = (id, options, value) => {
    $(id).replaceChildren(...options.map(([key, text]) => el("option", { value: key }, text)));
    $(id).value = value;
  };
  fill("#task", [["", "All tasks"], ...tasks], state.task);
  fill("#run", meta.runs.map((run, i) => [i, run.name]), state.run);
  fill("#versus", [[-1, "nothing"], ...meta.runs.map((run, i) => [i, run.name])], state.versus);
  if ($("#q").value !== state.q) $("#q").value = state.q;
  for (const box of $$("#only input")) box.checked = state.only.has(box.value);
  $("#flipped").hidden = state.versus < 0 || state.versus === state.run;
}

// --- hands: pointer and keyboard ---------------------------------------------------------------------------------------------

const KEYS = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: 10, PageUp: -10, Home: -Infinity, End: Infinity };
let typing;
$("#q").addEventListener("input", (event) => {
  clearTimeout(typing);
  typing = setTimeout(() => go({ q: event.target.value.trim() }), 120);
});
$("#find").addEventListener("submit", (event) => event.preventDefault());
for (const id of ["run", "versus"]) $(`#${id}`).addEventListener("change", (event) => go({ [id]: Number(event.target.value) }));
$("#task").addEventListener("change", (event) => go({ task: event.target.value }));
$("#only").addEventListener("change", () => go({ only: new Set($$("#only input:checked").map((box) => box.value)) }));
list.addEventListener("scroll", paint, { passive: true });
list.addEventListener("click", (event) => event.target.closest(".row") && go({ item: event.target.closest(".row").dataset.id }));
new ResizeObserver(paint).observe(list);
addEventListener("hashchange", async () => {
  if (readHash()) await go({ ...state }, { keep: false }).then(() => $("#items").scrollIntoView());
});
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const target = event.target, inField = target.matches("input[type=search], select");
  if (event.key === "Escape") {
    hideTip();
    if (target.id === "q") go({ q: "" }).then(() => list.focus());
  } else if (event.key === "/" && !inField) {
    event.preventDefault();
    $("#items").scrollIntoView();
    $("#q").focus();
  } else if (KEYS[event.key] && (target === list || ((event.key === "j" || event.key === "k") && !inField) || (target.id === "q" && event.key === "ArrowDown"))) {
    event.preventDefault();
    list.focus();
    move(KEYS[event.key]);
  }
});

const tip = $("#tip");
const hideTip = () => (tip.hidden = true);
function showTip(event) {
  const about = event.target.closest?.("[data-tip]");
  if (!about) return hideTip();
  tip.textContent = about.dataset.tip;
  tip.hidden = false;
  const box = about.getBoundingClientRect(), own = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(8, Math.min(innerWidth - own.width - 8, box.left + box.width / 2 - own.width / 2))}px`;
  tip.style.top = `${box.top > own.height + 12 ? box.top - own.height - 8 : box.bottom + 8}px`;
}
for (const kind of ["pointerover", "focusin"]) addEventListener(kind, showTip);
addEventListener("scroll", hideTip, true);

for (const button of $$("th button")) button.addEventListener("click", () => {
  const head = button.parentNode, at = head.cellIndex, down = head.getAttribute("aria-sort") !== "descending";
  for (const one of head.parentNode.cells) one.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (line) => line.cells[at]?.dataset.v ?? line.cells[at]?.textContent.trim().toLowerCase() ?? "";
  const order = (a, b) => (a === "" || b === "" ? (a === "") - (b === "") : (down ? -1 : 1) * (isNaN(a) || isNaN(b) ? a.localeCompare(b) * -1 : a - b));
  for (const body of head.closest("table").tBodies) body.append(...[...body.rows].sort((a, b) => order(value(a), value(b))));
});

$("#copy").addEventListener("click", async () => {
  const said = (text) => ($("#copied").textContent = text);
  try {
    await navigator.clipboard.writeText($("#markdown").textContent);
    said("Copied.");
  } catch { // no permission, or a browser that gives a page from disk no clipboard
    getSelection().selectAllChildren($("#markdown"));
    said("Selected: copy it with Ctrl-C.");
  }
});

const THEMES = ["light dark", "light", "dark"];
const theme = (scheme) => {
  document.documentElement.style.colorScheme = scheme;
  $("#theme").setAttribute("aria-label", `Colours: ${{ "light dark": "as the system", light: "light", dark: "dark" }[scheme]}. Change`);
};
$("#theme").addEventListener("click", () => {
  const next = THEMES[(THEMES.indexOf(document.documentElement.style.colorScheme) + 1) % THEMES.length];
  theme(next);
  try { localStorage.setItem("evals-theme", next); } catch { /* a page from disk may have no storage */ }
});
try { theme(localStorage.getItem("evals-theme") || THEMES[0]); } catch { theme(THEMES[0]); }

const named = readHash();
go({ ...state }, { keep: false }).then(() => {
  if (named) $("#items").scrollIntoView({ behavior: "instant" });
  performance.mark("ready");
  document.body.dataset.ready = "yes";
}, (error) => { $("#count").textContent = `The items cannot be opened: ${error.message}. A browser of 2023 or later is needed.`; });
