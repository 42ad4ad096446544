"use strict";
(() => {
const $ = id => document.getElementById(id);
const { facts, rows, answers } = JSON.parse($("data").textContent);
const LABELS = facts.labels; // [name, index in the logits, AudioSet's identifier, name for people where it differs]
const KINDS = { event: "events", window: "windows", tag: "tags" };
const MISSING = "no label above the threshold";

// ---- text: everything from outside is set as text, with control and direction characters made visible ----
const visible = text => String(text).replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, c =>
  c === "\u200c" || c === "\u200d" ? c : "\\u" + c.codePointAt(0).toString(16).padStart(4, "0"));
const nameOf = row => visible(row.path ?? "(waveform)") + (row.channel ? ` [channel ${row.channel}]` : "");
const labelName = number => visible(LABELS[number][3] ?? LABELS[number][0]);
const clock = (seconds, digits = 1) => {
  const unit = 10 ** digits, all = Math.round(seconds * unit), whole = Math.floor(all / unit);
  const h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60, s = whole % 60;
  const rest = digits ? "." + String(all % unit).padStart(digits, "0") : "";
  return (h ? h + ":" + String(m).padStart(2, "0") : m) + ":" + String(s).padStart(2, "0") + rest;
};
const counted = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
const scoreText = value => value.toFixed(value > -10 && value < 10 ? 3 : 1);
const el = (tag, props = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(props))
    key in node && !key.includes("-") ? (node[key] = value) : node.setAttribute(key, value);
  node.append(...children);
  return node;
};
const fill = part => {
  const bar = el("i", { className: "fill" });
  bar.style.setProperty("--part", `${100 * part}%`);
  return bar;
};
const say = text => { $("say").textContent = text; };

// ---- colors: those of the style sheet, and two ramps for scores and energies ----
const RAMPS = {
  light: { score: ["#e4f0f2", "#83c3cc", "#1f8494", "#073b49"], energy: ["#f7fafb", "#cfe3e8", "#74aebd", "#2a5f86", "#1a1f4f"] },
  dark: { score: ["#1d3036", "#256c78", "#3fbdb9", "#dcfff2"], energy: ["#0c0f14", "#2c1c50", "#7c2c6c", "#dc5c5b", "#fdcf8a", "#fffce0"] },
};
const rampColors = stops => Array.from({ length: 256 }, (_, i) => {
  const place = i / 255 * (stops.length - 1), low = Math.min(stops.length - 2, Math.floor(place)), part = place - low;
  const channel = (stop, k) => parseInt(stop.slice(1 + 2 * k, 3 + 2 * k), 16);
  return [0, 1, 2].map(k => Math.round(channel(stops[low], k) * (1 - part) + channel(stops[low + 1], k) * part));
});
let colors;
function readColors() {
  const probe = document.body.appendChild(el("i")), theme = {};
  for (const name of ["ink", "soft", "line", "accent", "good", "bad", "wave", "raised", "panel"]) {
    probe.style.color = `var(--${name})`;
    theme[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  const chosen = document.documentElement.dataset.theme;
  const isDark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const ramps = RAMPS[isDark ? "dark" : "light"];
  colors = { ...theme, isDark, energy: rampColors(ramps.energy), score: rampColors(ramps.score).map(c => `rgb(${c})`) };
}

// ---- a table of any length, of which only the rows that are seen exist ----
const MAX_HEIGHT = 8e6; // pixels; browsers stop drawing at 17 to 33 million
class Rows {
  constructor(scroller, makeRow) {
    this.scroller = scroller;
    this.makeRow = makeRow;
    this.table = scroller.querySelector("table");
    this.body = this.table.tBodies[0];
    this.items = [];
    this.drawn = new Map();
    const space = () => el("tr", { className: "space", "aria-hidden": "true" }, el("td", { colSpan: 4 }));
    this.body.append(this.top = space(), this.bottom = space());
    scroller.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.draw()).observe(scroller);
  }
  get rowHeight() { return parseFloat(getComputedStyle(this.table).getPropertyValue("--row")); }
  set(items) {
    this.items = items;
    this.table.setAttribute("aria-rowcount", items.length + 1);
    this.scroller.scrollTop = 0;
    this.redraw();
  }
  redraw() {
    for (const row of this.drawn.values()) row.remove();
    this.drawn.clear();
    this.draw();
  }
  layout() {
    const height = this.rowHeight, whole = this.items.length * height, total = Math.min(whole, MAX_HEIGHT);
    const view = this.scroller.clientHeight || 600, rest = Math.max(1, total - view);
    const scale = total < whole ? (whole - view) / rest : 1; // rows that pass for each pixel of scrolling
    return { height, total, view, scale };
  }
  draw() {
    const { height, total, view, scale } = this.layout(), top = this.scroller.scrollTop;
    const first = Math.max(0, Math.floor(top * scale / height) - 6);
    const last = Math.min(this.items.length, first + Math.ceil(view / height) + 14);
    for (const [number, row] of this.drawn)
      if (number < first || number >= last) { row.remove(); this.drawn.delete(number); }
    let after = this.top;
    for (let number = first; number < last; number++) {
      let row = this.drawn.get(number);
      if (!row) {
        row = this.makeRow(this.items[number], number);
        row.setAttribute("aria-rowindex", number + 2);
        this.drawn.set(number, row);
        after.after(row);
      }
      after = row;
    }
    const above = scale === 1 ? first * height : Math.max(0, Math.min(top, total - view) - (top * scale - first * height));
    this.top.firstChild.style.height = above + "px";
    this.bottom.firstChild.style.height = Math.max(0, total - above - (last - first) * height) + "px";
  }
  show(number) {
    const { height, view, scale } = this.layout(), head = 36, top = this.scroller.scrollTop * scale;
    if (number * height < top) this.scroller.scrollTop = number * height / scale;
    else if ((number + 1) * height > top + view - head) this.scroller.scrollTop = ((number + 1) * height - view + head) / scale;
    this.draw();
  }
}
function sortButtons(table, state, change) {
  for (const button of table.querySelectorAll("[data-sort]")) button.addEventListener("click", () => {
    const by = button.dataset.sort;
    state.down = state.by === by ? !state.down : by === "score" || by === "length";
    state.by = by;
    change();
  });
}
function markSort(table, state) {
  for (const button of table.querySelectorAll("[data-sort]")) {
    const header = button.closest("th");
    if (button.dataset.sort === state.by) header.setAttribute("aria-sort", state.down ? "descending" : "ascending");
    else header.removeAttribute("aria-sort");
  }
}

// ---- downloads ----
function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}
const cell = text => {
  let shown = visible(text);
  if (/^[=+\-@]/.test(shown)) shown = "'" + shown; // no formula for a spreadsheet
  return /[",]/.test(shown) ? `"${shown.replaceAll('"', '""')}"` : shown;
};
const csvText = lines => lines.map(line => line.join(",") + "\n").join("");
const stem = row => nameOf(row).split(/[\\/]/).pop().replace(/[^\p{L}\p{N} ._[\]-]/gu, "_").slice(0, 100);

// ---- answers, by recording and by what they are about ----
const recordKey = row => JSON.stringify([row.path_b64 || row.path, row.channel || 0]);
const itemKey = (kind, label, start, end) => JSON.stringify([kind, label, start, end]);
const answered = new Map();
let unsaved = 0;
for (const answer of answers) {
  const key = recordKey(answer);
  if (!answered.has(key)) answered.set(key, new Map());
  answered.get(key).set(itemKey(answer.kind, answer.label, answer.start_s, answer.end_s), answer);
}
function showSave() {
  let number = 0;
  for (const map of answered.values()) number += map.size;
  $("save-answers").hidden = !number && !unsaved;
  $("save-answers").textContent = `Download ${counted(number, "answer")}`;
}
$("save-answers").addEventListener("click", () => {
  const lines = [];
  for (const map of answered.values()) for (const answer of map.values()) lines.push(JSON.stringify(answer) + "\n");
  download("answers.jsonl", lines.join(""), "application/x-ndjson");
  unsaved = 0;
});
addEventListener("beforeunload", event => { if (unsaved) event.preventDefault(); });

// ---- the index ----
const hasLogits = rows.some(row => row.logits);
const list = { by: "", down: false, shown: [] };
let folded, ranks; // names for the search, and their places in alphabetical order, made when first needed
const bestScore = row => row.labels?.[1] ?? -Infinity;
const scoreOf = (row, label) => {
  if (label < 0) return bestScore(row);
  for (let k = 0; k < (row.labels?.length ?? 0); k += 2) if (row.labels[k] === label) return row.labels[k + 1];
  return -Infinity;
};
function setRange(input, low, high, value) {
  Object.assign(input, { min: low, max: high, step: (high - low) / 100 || 0.01 });
  input.value = value;
}
function listOrder(label) {
  const order = rows.map((_, number) => number), { by } = list;
  if (by === "name") {
    if (!ranks) {
      const compare = new Intl.Collator("en", { numeric: true }).compare, names = rows.map(nameOf);
      ranks = new Int32Array(rows.length);
      order.slice().sort((a, b) => compare(names[a], names[b])).forEach((number, rank) => { ranks[number] = rank; });
    }
    order.sort((a, b) => ranks[a] - ranks[b]);
  } else if (by === "length") order.sort((a, b) => rows[a].duration - rows[b].duration);
  else if (by === "label") {
    const places = LABELS.map((_, k) => k).sort((a, b) => LABELS[a][0] < LABELS[b][0] ? -1 : 1), rank = [];
    places.forEach((k, place) => { rank[k] = place; });
    const first = row => row.labels ? rank[row.labels[0]] : LABELS.length;
    order.sort((a, b) => first(rows[a]) - first(rows[b]));
  } else if (by === "score") order.sort((a, b) => scoreOf(rows[a], label) - scoreOf(rows[b], label) || 0);
  return list.down ? order.reverse() : order;
}
let orderFor = "", order = [];
function filterList() {
  folded ??= rows.map(row => nameOf(row).toLowerCase());
  const search = $("search").value.toLowerCase(), label = +$("label").value, state = $("state").value;
  const least = +$("index-threshold").value, any = least <= +$("index-threshold").min;
  const wanted = `${list.by} ${list.down} ${list.by === "score" ? label : ""}`;
  if (wanted !== orderFor) { order = listOrder(label); orderFor = wanted; }
  const counts = new Int32Array(LABELS.length);
  list.shown = order.filter(number => {
    const row = rows[number];
    if (search && !folded[number].includes(search)) return false;
    if (state && (state === "warning" ? !row.warnings : state === "error" ? !row.error : row.error)) return false;
    const found = row.labels ?? [];
    for (let k = 0; k < found.length; k += 2) if (any || found[k + 1] >= least) counts[found[k]]++;
    const score = scoreOf(row, label);
    return label >= 0 ? score > -Infinity && (any || score >= least) : any || score >= least;
  });
  listTable.set(list.shown);
  markSort($("index-rows"), list);
  $("index-value").textContent = any ? "any" : scoreText(least);
  $("index-count").textContent = list.shown.length === rows.length ? `${counted(rows.length, "recording")}` :
    `${list.shown.length.toLocaleString("en")} of ${counted(rows.length, "recording")}`;
  clearTimeout(totalsTimer); // a keystroke does not wait for them
  totalsTimer = setTimeout(() => showTotals(counts, label), 60);
}
let totalsTimer;
function showTotals(counts, label) {
  const used = [...counts.keys()].filter(k => counts[k] || k === label).sort((a, b) => counts[b] - counts[a]).slice(0, 60);
  const most = used.length ? counts[used[0]] : 1;
  $("totals").replaceChildren(...used.map(k => {
    const button = el("button", { "aria-pressed": String(k === label) }, el("span", { textContent: labelName(k) }),
      el("span", { textContent: counts[k].toLocaleString("en") }), fill(counts[k] / (most || 1)));
    button.addEventListener("click", () => { $("label").value = k === label ? -1 : k; filterList(); });
    return el("li", {}, button);
  }), ...(used.length ? [] : [el("li", { textContent: "none" })]));
}
function listRow(number) {
  const row = rows[number], label = +$("label").value, found = row.labels ?? [];
  const name = el("td", {}, el("a", { href: `#${number + 1}`, textContent: nameOf(row), title: nameOf(row) }));
  const tags = [], texts = [];
  for (let k = 0; k < Math.min(found.length, 8); k += 2) {
    tags.push(el("span", { className: "tag" }, labelName(found[k]), el("b", { textContent: scoreText(found[k + 1]) })));
    texts.push(labelName(found[k]));
  }
  if (row.error) tags.push(el("span", { className: "fault", textContent: `${row.error[0]}: ${visible(row.error[1])}`, title: visible(row.error[1]) }));
  else if (!tags.length) tags.push(MISSING);
  if (row.warnings) tags.push(el("span", { className: "tag", textContent: "⚠ " + visible(row.warnings.join(", ")) }));
  name.append(el("span", { className: "sub", textContent: row.error ? `${row.error[0]}: ${visible(row.error[1])}` :
    [clock(row.duration, 0), ...texts].join(" · ") }));
  const score = scoreOf(row, label);
  return el("tr", {}, name, el("td", { className: "wide num", textContent: row.error ? "" : clock(row.duration, 0) }),
    el("td", { className: "wide" }, ...tags), el("td", { className: "num", textContent: score > -Infinity ? scoreText(score) : "" }));
}
const listTable = new Rows($("index-rows"), listRow);
function startIndex() {
  const total = rows.reduce((sum, row) => sum + row.duration, 0), failed = rows.filter(row => row.error).length;
  $("title").textContent = $("source").textContent = visible(facts.source);
  $("facts").textContent = rows.length ? [counted(rows.length, "recording"), clock(total, 0), ...(failed ? [`${failed} failed`] : []),
    `model ${facts.models.map(visible).join(", ")}`].join(" · ") : "There are no recordings in these results.";
  const told = [];
  if (facts.embedded) told.push(`${facts.embedded.toLocaleString("en")} in this page as compact previews (Opus, 24 kbit/s; up to ${facts.embedMb} MB of all)`);
  if (facts.linked) told.push(`${facts.linked.toLocaleString("en")} played from its own file, so keep this page where it is`);
  if (facts.unread) told.push(`${facts.unread.toLocaleString("en")} without audio, which was not there when the page was made`);
  $("audio-facts").textContent = facts.sound ? told.length ? `Audio: ${told.join("; ")}.` : "" : "This page was made without audio.";
  const names = LABELS.map((_, k) => [labelName(k), k]).sort((a, b) => a[0] < b[0] ? -1 : 1);
  $("label").append(el("option", { value: -1, textContent: "any" }), ...names.map(([name, k]) => el("option", { value: k, textContent: name })));
  let low = 0, high = 1;
  if (hasLogits) for (const row of rows) for (let k = 1; k < (row.labels?.length ?? 0); k += 2) {
    low = Math.min(low, row.labels[k]); high = Math.max(high, row.labels[k]);
  }
  setRange($("index-threshold"), low, high, low);
  for (const id of ["search", "label", "index-threshold", "state"]) $(id).addEventListener("input", filterList);
  sortButtons($("index-rows"), list, filterList);
  $("index-csv").addEventListener("click", () => {
    const lines = [["path", "channel", "duration_s", "label", "score", "error_code"]];
    for (const number of list.shown) {
      const row = rows[number], label = +$("label").value, k = label >= 0 ? label : row.labels?.[0], score = scoreOf(row, label);
      lines.push([cell(row.path ?? ""), row.channel ?? "", row.duration, k === undefined ? "" : cell(LABELS[k][0]), score > -Infinity ? score : "", row.error?.[0] ?? ""]);
    }
    download("recordings.csv", csvText(lines), "text/csv");
  });
}

// ---- one recording ----
const view = { number: -1 }; // what is open: row, details, items (columns of the kind), lanes, shown, current, ws
const order2 = { by: "time", down: false };
const stageWidth = () => Math.max(1, $("wave").clientWidth);
const gutter = () => $("lanes").clientWidth - stageWidth();
const perSecond = () => Math.max(stageWidth() / view.duration, view.ws?.options.minPxPerSec || 0);
const scroll = () => view.ws?.getScroll() ?? 0;
const timeAt = x => Math.min(view.duration, Math.max(0, (x + scroll()) / perSecond()));
const now = () => view.playable ? view.ws.getCurrentTime() : view.time;

function bytes(text) {
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let k = 0; k < raw.length; k++) out[k] = raw.charCodeAt(k);
  return out;
}
function columnsOf(part, kind) {
  const n = part.label.length, items = { kind, n, label: new Int32Array(part.label), start: new Float64Array(part.start), end: new Float64Array(part.end), score: new Float64Array(part.score), orders: {} };
  items.max = part.max ? new Float64Array(part.max) : items.score;
  items.answer = new Map();
  const known = answered.get(recordKey(view.row));
  if (known) for (let k = 0; k < n; k++) {
    const answer = known.get(keyOf(items, k));
    if (answer) items.answer.set(k, answer.answer);
  }
  return items;
}
const keyOf = (items, k) => itemKey(items.kind, LABELS[items.label[k]][0], items.start[k], items.end[k]);

function close() {
  view.ws?.destroy();
  view.audio?.pause();
  if (view.url) URL.revokeObjectURL(view.url);
  for (const key of Object.keys(view)) delete view[key];
  view.number = -1;
}
function open(number) {
  close();
  const source = $("r" + number), row = rows[number];
  if (!source) { // the browser still reads the page
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", () => open(number), { once: true });
    return;
  }
  const details = JSON.parse(source.textContent);
  Object.assign(view, { number, row, duration: Math.max(details.duration, 0.001), time: 0, details, current: -1, tiles: new Map() });
  view.kinds = {};
  for (const [kind, part] of Object.entries(KINDS)) if (details[part] && (kind !== "tag" || details[part].label.length)) {
    const items = details[part];
    if (kind === "tag") items.end = items.end.map(() => view.duration);
    view.kinds[kind] = columnsOf(items, kind);
  }
  view.items = view.kinds.event ?? view.kinds.window ?? view.kinds.tag ?? columnsOf({ label: [], start: [], end: [], score: [] }, "tag");
  const name = nameOf(row);
  document.title = `${name} - ast report`;
  $("name").textContent = name;
  $("recording-facts").textContent = [clock(view.duration), ...(details.rate ? [`${details.rate.toLocaleString("en")} Hz`] : []),
    ...(details.channels ? [counted(details.channels, "channel")] : []), `model ${visible(details.model)}`,
    ...(row.warnings ? ["⚠ " + visible(row.warnings.join(", "))] : [])].join(" · ");
  note(row.error ? `This recording could not be tagged. ${row.error[0]}: ${visible(row.error[1])}` : details.problem ? visible(details.problem) : "");
  $("previous").disabled = !neighbor(-1); $("next").disabled = !neighbor(1);
  $("length").textContent = clock(view.duration);
  const kinds = Object.keys(view.kinds);
  $("kind").replaceChildren(...kinds.map(kind => el("option", { value: kind, textContent: kind === "tag" ? "whole recording" : KINDS[kind] })));
  $("kind-field").hidden = kinds.length < 2;
  const scores = Object.values(view.kinds).flatMap(items => [Math.min(0, ...sample(items.score)), Math.max(row.logits ? 0 : 1, ...sample(items.max))]);
  view.low = Math.min(0, ...scores); view.high = Math.max(row.logits ? view.low + 1 : 1, ...scores);
  // Windows state labels of any score; most are noise that would hide the others.
  setRange($("threshold"), view.low, view.high, view.items.kind === "window" && !row.logits ? 0.1 : view.low);
  $("legend-low").textContent = row.logits ? scoreText(view.low) : "0"; $("legend-high").textContent = row.logits ? scoreText(view.high) : "1";
  $("filter").value = $("answered").value = "";
  document.documentElement.scrollTop = 0;
  startPlayer();
  filterItems();
}
function* sample(values) { let low = Infinity, high = -Infinity; for (const v of values) { if (v < low) low = v; if (v > high) high = v; } if (low <= high) { yield low; yield high; } }
function note(text) { $("problem").hidden = !text; $("problem").textContent = text; }
function neighbor(step) {
  const shown = list.shown.length ? list.shown : rows.map((_, k) => k), place = shown.indexOf(view.number);
  return place >= 0 && shown[place + step] !== undefined ? `#${shown[place + step] + 1}` : "";
}

// ---- the player: wavesurfer.js with our peaks and our media element ----
function waveColors() {
  return { waveColor: colors.wave, progressColor: colors.accent, cursorColor: colors.bad };
}
function ticks() { // seconds between labels of the time axis, for the zoom that is seen
  const wanted = 90 / perSecond();
  return [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200].find(step => step >= wanted) ?? 14400;
}
function makeTimeline() {
  const step = ticks();
  if (view.timeline && view.step === step) return;
  if (view.timeline) view.ws.unregisterPlugin(view.timeline);
  view.step = step;
  view.timeline = view.ws.registerPlugin(WaveSurfer.Timeline.create({
    height: 18, timeInterval: step / 5, primaryLabelInterval: step, secondaryLabelInterval: step, secondaryLabelOpacity: 0,
    duration: view.duration, style: { fontSize: "11px", color: colors.soft }, formatTimeCallback: s => clock(s, step < 1 ? 1 : 0),
  }));
}
function startPlayer() {
  const { details } = view, audio = view.audio = new Audio();
  audio.preload = "metadata";
  if (details.preview) audio.src = view.url = URL.createObjectURL(new Blob([bytes(details.preview)], { type: "audio/webm; codecs=opus" }));
  else if (details.link) audio.src = details.link;
  view.playable = Boolean(details.preview || details.link);
  $("audio-note").textContent = details.preview ? "Audio: preview in this page (Opus, mono)" : details.link ? "Audio: played from its file" : "No audio in this page";
  const raw = details.peaks ? bytes(details.peaks.data) : new Uint8Array(2), peaks = Float32Array.from(raw, v => v / 255);
  const ws = view.ws = WaveSurfer.create({
    container: $("wave"), height: 84, peaks: [peaks], duration: view.duration, media: audio, cursorWidth: 0, minPxPerSec: 0,
    dragToSeek: false, autoScroll: true, autoCenter: false, cspNonce: document.querySelector("style").nonce, ...waveColors(),
    plugins: [
      WaveSurfer.Hover.create({ lineColor: colors.soft, lineWidth: 1, labelBackground: colors.ink, labelColor: colors.panel, labelSize: "11px", formatTimeCallback: s => clock(s) }),
      WaveSurfer.Zoom.create({ scale: 0.25, maxZoom: maxZoom() }),
    ],
  });
  ws.on("ready", () => { makeTimeline(); drawSoon(); });
  ws.on("error", () => {});
  for (const event of ["scroll", "resize", "redraw"]) ws.on(event, drawSoon);
  ws.on("zoom", () => { makeTimeline(); drawSoon(); });
  ws.on("timeupdate", moveCursor);
  ws.on("seeking", moveCursor);
  ws.on("interaction", time => playFrom(time));
  for (const event of ["play", "pause", "finish"]) ws.on(event, showPlaying);
  audio.addEventListener("error", () => {
    if (view.audio !== audio || !view.playable) return;
    view.playable = false;
    note(`The audio cannot be played${details.link ? `: ${visible(decode(details.link))} is no longer there, or the browser does not play files of its kind` : ""}.`);
    showPlaying();
  });
  ws.setPlaybackRate(+$("speed").value);
  showPlaying();
  moveCursor();
}
const decode = link => { try { return decodeURIComponent(link); } catch { return link; } };
const maxZoom = () => Math.max(stageWidth() / view.duration, Math.min(2000, 8e6 / view.duration));
function showPlaying() {
  const playing = Boolean(view.ws?.isPlaying());
  $("play").textContent = playing ? "❚❚" : "▶";
  $("play").setAttribute("aria-label", playing ? "Pause" : "Play");
  $("play").disabled = !view.playable;
}
function seek(time) {
  view.time = Math.min(view.duration, Math.max(0, time));
  if (view.playable) view.ws.setTime(view.time);
  moveCursor();
}
function playFrom(time) {
  seek(time);
  reveal(view.time);
  if (view.playable) view.ws.play().catch(() => {});
}
function togglePlay() { if (view.playable) view.ws.playPause().catch(() => {}); }
function reveal(time) { // scroll so that a time is seen
  const x = time * perSecond() - scroll(), width = stageWidth();
  if (x < 0 || x > width) view.ws.setScroll(Math.max(0, time * perSecond() - width / 4));
}
function zoomTo(pixels, x = stageWidth() / 2) {
  const time = timeAt(x), fit = stageWidth() / view.duration, wanted = Math.min(maxZoom(), Math.max(fit, pixels));
  view.ws.zoom(wanted);
  view.ws.setScroll(Math.max(0, time * wanted - x));
  drawSoon();
}
function moveCursor() {
  const time = now();
  $("now").textContent = clock(time);
  const x = time * perSecond() - scroll();
  $("cursor").hidden = x < 0 || x > stageWidth() + 1;
  $("cursor").style.transform = `translateX(${x + gutter()}px)`;
}

// ---- drawing on canvases that share the player's time scale ----
let drawing = 0;
function drawSoon() { drawing ||= requestAnimationFrame(() => { drawing = 0; if (view.number >= 0) { drawSpectrogram(); drawLanes(); moveCursor(); } }); }
function fitCanvas(canvas, width, height) {
  const ratio = Math.min(2, devicePixelRatio || 1), w = Math.round(width * ratio), h = Math.round(height * ratio);
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const ctx = canvas.getContext("2d");
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.clearRect(0, 0, width, height);
  return ctx;
}
const TILE = 2048, TILES_KEPT = 24;
function tile(level, number) { // a colored image, or nothing until it is decoded
  const key = `${level} ${number} ${colors.isDark}`, known = view.tiles.get(key);
  if (known) { view.tiles.delete(key); view.tiles.set(key, known); return known.canvas; }
  const entry = {}, image = new Image(), { tiles } = view;
  tiles.set(key, entry);
  while (tiles.size > TILES_KEPT) tiles.delete(tiles.keys().next().value);
  image.onload = () => {
    const canvas = el("canvas", { width: image.width, height: image.height }), ctx = canvas.getContext("2d", { willReadFrequently: true });
    ctx.drawImage(image, 0, 0);
    const pixels = ctx.getImageData(0, 0, image.width, image.height), { data } = pixels;
    for (let k = 0; k < data.length; k += 4) [data[k], data[k + 1], data[k + 2]] = colors.energy[data[k]];
    ctx.putImageData(pixels, 0, 0);
    entry.canvas = canvas;
    drawSoon();
  };
  image.src = "data:image/webp;base64," + view.details.spectrogram[level].images[number];
  return undefined;
}
function drawSpectrogram() {
  const canvas = $("spectrogram"), width = stageWidth(), height = canvas.clientHeight, levels = view.details.spectrogram;
  canvas.hidden = !levels?.length;
  if (canvas.hidden) return;
  const ctx = fitCanvas(canvas, width, height), pps = perSecond(), from = scroll() / pps, to = from + width / pps;
  let level = levels.findIndex(each => each.step * pps <= 2); // the coarsest with a column for every two pixels
  if (level < 0) level = levels.length - 1;
  const { step, columns } = levels[level], last = Math.min(Math.ceil(columns / TILE) - 1, Math.floor(to / step / TILE));
  for (let k = Math.max(0, Math.floor(from / step / TILE)); k <= last; k++) {
    const picture = tile(level, k), x = (k * TILE * step - from) * pps;
    if (picture) ctx.drawImage(picture, x, 0, picture.width * step * pps + 0.5, height);
  }
  ctx.font = "10px system-ui,sans-serif"; // the mel scale from 20 Hz to 8 kHz
  const mel = hz => Math.log1p(hz / 700), low = mel(20), high = mel(8000);
  for (const [hz, text] of [[500, "500 Hz"], [1000, "1 kHz"], [2000, "2 kHz"], [4000, "4 kHz"]]) {
    const y = height * (1 - (mel(hz) - low) / (high - low));
    ctx.fillStyle = colors.isDark ? "#0009" : "#fffb"; ctx.fillRect(2, y - 6, ctx.measureText(text).width + 6, 12);
    ctx.fillStyle = colors.ink; ctx.fillText(text, 5, y + 3.5);
  }
}
function makeLanes() { // labels that pass the filter, the highest score first, with the places of their items
  const items = view.kinds.window ?? view.items, least = threshold(), wanted = labelFilter();
  if (!items.byLabel) {
    items.byLabel = new Map();
    items.best = new Map();
    for (let k = 0; k < items.n; k++) {
      const label = items.label[k], at = items.byLabel.get(label);
      at ? at.push(k) : items.byLabel.set(label, [k]);
      if (!(items.best.get(label) >= items.max[k])) items.best.set(label, items.max[k]);
    }
    for (const places of items.byLabel.values()) places.sort((a, b) => items.start[a] - items.start[b]);
    if (items.kind === "window") for (const label of view.kinds.event?.label ?? []) if (!items.best.has(label)) items.best.set(label, Infinity);
  }
  view.laneItems = items;
  view.lanes = [...items.best].filter(([label, score]) => score >= least && wanted(label)).sort((a, b) => b[1] - a[1]).map(([label]) => label);
}
const laneHeight = () => gutter() > 0 ? 24 : 38;
const rampPlace = score => Math.min(255, Math.max(0, Math.round((score - view.low) / (view.high - view.low) * 255)));
function drawLanes() {
  const box = $("lanes"), tall = laneHeight(), { lanes, laneItems: items } = view;
  $("lanes-size").style.height = Math.max(tall, lanes.length * tall) + "px";
  const width = box.clientWidth, height = box.clientHeight, left = gutter(), canvas = $("lanes-canvas");
  canvas.style.height = height + "px";
  const ctx = fitCanvas(canvas, width, height), pps = perSecond(), from = scroll() / pps, to = from + (width - left) / pps;
  const least = threshold(), events = view.items.kind === "event" ? view.items : null, single = items.kind === "tag";
  ctx.font = "13px system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans',sans-serif";
  if (!lanes.length) { ctx.fillStyle = colors.soft; ctx.fillText(items.n ? "no label passes the filter" : MISSING, left + 4, 16); return; }
  const first = Math.floor(box.scrollTop / tall), last = Math.min(lanes.length, Math.ceil((box.scrollTop + height) / tall));
  for (let n = first; n < last; n++) {
    const label = lanes[n], y = n * tall - box.scrollTop, places = items.byLabel.get(label) ?? [];
    const barY = left ? y + 3 : y + 19, barHeight = left ? tall - 6 : tall - 22;
    ctx.fillStyle = colors.raised; ctx.fillRect(left, barY, width - left, barHeight);
    let low = 0, high = places.length;
    while (low < high) { const mid = (low + high) >> 1; items.end[places[mid]] < from ? (low = mid + 1) : (high = mid); }
    let column = -1, loudest = -Infinity; // of items narrower than a pixel the highest score counts
    const flush = () => { if (column >= 0) { ctx.fillStyle = colors.score[rampPlace(loudest)]; ctx.fillRect(left + column, barY, 1.5, barHeight); } column = -1; loudest = -Infinity; };
    for (let p = low; p < places.length && items.start[places[p]] <= to; p++) {
      const k = places[p];
      if (items.score[k] < least) continue;
      const x0 = Math.max(0, (items.start[k] - from) * pps), x1 = Math.min(width - left, (items.end[k] - from) * pps);
      if (x1 - x0 < 2) {
        const at = Math.floor(x0);
        if (at !== column) flush();
        column = at; loudest = Math.max(loudest, items.score[k]);
        continue;
      }
      flush();
      ctx.fillStyle = colors.score[rampPlace(items.score[k])];
      ctx.fillRect(left + x0, barY, Math.max(1.5, x1 - x0 - (single || x1 - x0 < 4 ? 0 : 1)), barHeight);
      if (items.answer.size && items.answer.has(k)) mark(ctx, items.answer.get(k), left + x0, x1 - x0, barY, barHeight);
      if (k === view.current && items === view.items) outline(ctx, left + x0, x1 - x0, barY, barHeight);
    }
    flush();
    if (events && items !== events) for (const k of eventsOf(label)) { // events over the windows that they are made of
      const x0 = Math.max(0, (events.start[k] - from) * pps), x1 = Math.min(width - left, (events.end[k] - from) * pps);
      if (x1 < 0 || x0 > width - left || events.score[k] < least) continue;
      ctx.fillStyle = colors.accent; ctx.fillRect(left + x0, barY + barHeight - 3, Math.max(2, x1 - x0), 3);
      if (events.answer.has(k)) mark(ctx, events.answer.get(k), left + x0, x1 - x0, barY, barHeight);
      if (k === view.current) outline(ctx, left + x0, x1 - x0, barY, barHeight);
    }
    ctx.clearRect(0, y, left, tall);
    ctx.fillStyle = colors.ink;
    ctx.fillText(shortened(ctx, labelName(label), left ? left - 12 : width - 8), 2, left ? y + tall / 2 + 4.5 : y + 14);
  }
}
function eventsOf(label) {
  const { event } = view.kinds;
  if (!event.places) { event.places = new Map(); for (let k = 0; k < event.n; k++) { const at = event.places.get(event.label[k]); at ? at.push(k) : event.places.set(event.label[k], [k]); } }
  return event.places.get(label) ?? [];
}
function mark(ctx, verdict, x, width, y, height) {
  ctx.fillStyle = verdict === "accept" ? colors.good : colors.bad;
  ctx.fillRect(x, y, Math.max(2, width - 1), 3);
}
function outline(ctx, x, width, y, height) { ctx.strokeStyle = colors.ink; ctx.lineWidth = 2; ctx.strokeRect(x + 1, y + 1, Math.max(3, width - 3), height - 2); }
function shortened(ctx, text, room) {
  if (ctx.measureText(text).width <= room) return text;
  let low = 0, high = text.length;
  while (low < high) { const mid = (low + high + 1) >> 1; ctx.measureText(text.slice(0, mid) + "…").width <= room ? (low = mid) : (high = mid - 1); }
  return text.slice(0, low) + "…";
}
function itemAt(x, y) { // place in the lanes' items at a point of the canvas, or -1
  const label = view.lanes[Math.floor((y + $("lanes").scrollTop) / laneHeight())], items = view.laneItems;
  if (label === undefined || x < gutter()) return -1;
  const time = timeAt(x - gutter()), slack = 1 / perSecond();
  let found = -1;
  for (const k of items.byLabel.get(label) ?? []) {
    if (items.start[k] > time + slack) break;
    if (items.end[k] >= time - slack && items.score[k] >= threshold() && (found < 0 || items.score[k] > items.score[found])) found = k;
  }
  return found;
}

// ---- the table of a recording ----
const threshold = () => +$("threshold").value - 1e-9;
function labelFilter() {
  const text = $("filter").value.toLowerCase();
  view.names ??= LABELS.map((_, k) => labelName(k).toLowerCase());
  const passes = view.names.map(name => name.includes(text));
  return label => passes[label];
}
function itemOrder(items, by) { // places in the order of a column, made once: a day has half a million
  const { start, score, label } = items, names = view.names, name = k => names[label[k]];
  return items.orders[by] ??= Int32Array.from(start, (_, k) => k).sort(
    by === "score" ? (a, b) => score[a] - score[b] :
    by === "label" ? (a, b) => name(a) < name(b) ? -1 : name(a) > name(b) ? 1 : start[a] - start[b] :
    (a, b) => start[a] - start[b] || score[b] - score[a]);
}
function filterItems() {
  const { items } = view, least = threshold(), wanted = labelFilter(), state = $("answered").value, shown = [];
  const order = itemOrder(items, order2.by);
  for (let place = 0; place < items.n; place++) {
    const k = order[order2.down ? items.n - 1 - place : place];
    if (items.score[k] < least || !wanted(items.label[k])) continue;
    if (state && (state === "open" ? items.answer.has(k) : items.answer.get(k) !== state)) continue;
    shown.push(k);
  }
  view.shown = shown;
  const noun = items.kind === "tag" ? "label" : items.kind === "event" ? "event" : "label of windows";
  $("value").textContent = scoreText(+$("threshold").value);
  $("count").textContent = (shown.length === items.n ? "" : `${shown.length.toLocaleString("en")} of `) +
    (noun === "label of windows" ? `${items.n.toLocaleString("en")} ${items.n === 1 ? "label" : "labels"} of windows` : counted(items.n, noun));
  $("caption").textContent = `Labels of ${nameOf(view.row)} with their times and scores`;
  markSort($("rows"), order2);
  itemTable.set(shown);
  makeLanes();
  drawSoon();
}
function itemRow(k) {
  const { items } = view, name = labelName(items.label[k]), verdict = items.answer.get(k);
  const go = el("button", { className: "go", "aria-label": `${clock(items.start[k], 2)} – ${clock(items.end[k], 2)}, play ${name}` }, clock(items.start[k], 2),
    el("span", { className: "until", textContent: ` – ${clock(items.end[k], 2)}` }));
  go.addEventListener("click", () => { choose(k); playFrom(items.start[k]); });
  const judge = (answer, sign, verb) => {
    const button = el("button", { className: answer === "accept" ? "yes" : "no", textContent: sign, "aria-pressed": String(verdict === answer), "aria-label": `${verb} ${name} at ${clock(items.start[k], 2)}`, title: `${verb} (${answer[0].toUpperCase()})` });
    button.addEventListener("click", () => { choose(k); setAnswer(k, items.answer.get(k) === answer ? null : answer); });
    return button;
  };
  const row = el("tr", {}, el("td", {}, go), el("td", { textContent: name, title: name }),
    el("td", {}, el("div", { className: "score" }, el("span", { textContent: scoreText(items.score[k]) }), fill((items.score[k] - view.low) / (view.high - view.low)))),
    el("td", { className: "judge" }, judge("accept", "✓", "Accept"), judge("reject", "✗", "Reject")));
  row.dataset.item = k;
  if (k === view.current) row.setAttribute("aria-current", "true");
  return row;
}
const itemTable = new Rows($("rows"), itemRow);
const drawnRow = k => $("rows").querySelector(`tr[data-item="${k}"]`);
function choose(k) {
  drawnRow(view.current)?.removeAttribute("aria-current");
  view.current = k;
  drawnRow(k)?.setAttribute("aria-current", "true");
  drawSoon();
}
function step(by) {
  if (!view.shown?.length) return;
  const place = view.shown.indexOf(view.current), next = Math.min(view.shown.length - 1, Math.max(0, place < 0 ? 0 : place + by));
  const k = view.shown[next], { items } = view;
  itemTable.show(next);
  choose(k);
  reveal(items.start[k]);
  say(`${labelName(items.label[k])}, ${clock(items.start[k])} to ${clock(items.end[k])}, score ${scoreText(items.score[k])}${items.answer.has(k) ? `, ${items.answer.get(k)}ed` : ""}`);
}
function setAnswer(k, verdict) {
  const { items, row } = view, key = recordKey(row), item = keyOf(items, k);
  if (!answered.has(key)) answered.set(key, new Map());
  if (verdict) {
    items.answer.set(k, verdict);
    const place = { path: row.path, ...(row.path_b64 ? { path_b64: row.path_b64 } : {}), ...(row.channel ? { channel: row.channel } : {}) };
    const [label, label_id, mid] = LABELS[items.label[k]];
    answered.get(key).set(item, { schema_version: 1, type: "answer", ...place, kind: items.kind, label, label_id, mid, start_s: items.start[k], end_s: items.end[k], score: items.score[k], answer: verdict });
  } else { items.answer.delete(k); answered.get(key).delete(item); }
  unsaved++;
  const drawn = drawnRow(k);
  drawn?.querySelector(".yes").setAttribute("aria-pressed", String(verdict === "accept"));
  drawn?.querySelector(".no").setAttribute("aria-pressed", String(verdict === "reject"));
  say(verdict ? `${labelName(items.label[k])} ${verdict}ed` : "answer cleared");
  showSave();
  drawSoon();
}
function answerCurrent(verdict) {
  if (view.current < 0) step(1);
  if (view.current < 0) return;
  setAnswer(view.current, verdict);
  if (verdict) step(1);
}
function downloadRows(kind) {
  const { items, row } = view;
  if (kind === "audacity") {
    const line = k => `${items.start[k].toFixed(6)}\t${items.end[k].toFixed(6)}\t${labelName(items.label[k])} ${scoreText(items.score[k])}\n`;
    return download(`${stem(row)}.txt`, view.shown.map(line).join(""), "text/plain");
  }
  const lines = [["path", "channel", "start_s", "end_s", "label", "label_id", "mid", "score", "type", "answer"]];
  for (const k of view.shown) {
    const [label, id, mid] = LABELS[items.label[k]];
    lines.push([cell(row.path ?? ""), row.channel ?? "", items.start[k].toFixed(3), items.end[k].toFixed(3), cell(label), id, mid ?? "", items.score[k], items.kind === "tag" ? "file" : items.kind, items.answer.get(k) ?? ""]);
  }
  return download(`${stem(row)}.csv`, csvText(lines), "text/csv");
}

// ---- pointer: a click plays, dragging moves, the wheel zooms ----
function makeDraggable(node, isLanes) {
  let start = null;
  node.addEventListener("pointerdown", event => { if (event.button === 0) start = { x: event.clientX, y: event.clientY, scroll: scroll(), moved: false }; });
  node.addEventListener("pointermove", event => {
    const box = node.getBoundingClientRect(), x = event.clientX - box.left - (isLanes ? gutter() : 0);
    if (start) {
      start.moved ||= Math.abs(event.clientX - start.x) > 4;
      if (start.moved) { node.setPointerCapture(event.pointerId); view.ws.setScroll(Math.max(0, start.scroll + start.x - event.clientX)); drawSoon(); }
    }
    let text = x >= 0 ? clock(timeAt(x), 2) : "";
    const k = isLanes ? itemAt(event.clientX - box.left, event.clientY - box.top) : -1, items = view.laneItems;
    if (k >= 0) text = `${labelName(items.label[k])} ${scoreText(items.score[k])} · ${clock(items.start[k], 2)} – ${clock(items.end[k], 2)}`;
    $("hover").textContent = text;
  });
  node.addEventListener("pointerleave", () => { $("hover").textContent = ""; });
  addEventListener("pointerup", () => { setTimeout(() => { start = null; }); });
  addEventListener("pointercancel", () => { start = null; });
  node.addEventListener("click", event => {
    if (start?.moved) return;
    const box = node.getBoundingClientRect(), x = event.clientX - box.left - (isLanes ? gutter() : 0);
    if (x < 0) return;
    const k = isLanes ? itemAt(event.clientX - box.left, event.clientY - box.top) : -1;
    if (k >= 0 && view.laneItems === view.items) { choose(k); const place = view.shown.indexOf(k); if (place >= 0) itemTable.show(place); }
    playFrom(timeAt(x));
  });
  node.addEventListener("wheel", event => {
    const box = node.getBoundingClientRect(), x = event.clientX - box.left - (isLanes ? gutter() : 0);
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY) || event.shiftKey) view.ws.setScroll(Math.max(0, scroll() + (event.deltaX || event.deltaY)));
    else if (!isLanes || event.ctrlKey || event.metaKey) zoomTo(perSecond() * 1.25 ** (-event.deltaY / 100), Math.max(0, x));
    else return;
    event.preventDefault();
    drawSoon();
  }, { passive: false });
}

// ---- keyboard ----
const focusOn = id => { $(id).focus(); $(id).select(); };
const go = where => { if (where) location.hash = where; };
const KEYS = {
  " ": togglePlay, ArrowLeft: e => seek(now() - (e.shiftKey ? 1 : 5)), ArrowRight: e => seek(now() + (e.shiftKey ? 1 : 5)),
  "+": () => zoomTo(perSecond() * 1.6), "=": () => zoomTo(perSecond() * 1.6), "-": () => zoomTo(perSecond() / 1.6), 0: () => zoomTo(0),
  j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1),
  Enter: () => { if (view.current >= 0) playFrom(view.items.start[view.current]); },
  a: () => answerCurrent("accept"), r: () => answerCurrent("reject"), u: () => answerCurrent(null),
  "[": () => go(neighbor(-1)), "]": () => go(neighbor(1)), "/": () => focusOn("filter"), Escape: () => go("#"),
};
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  const { target } = event, key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (target.matches("input[type=search],select")) { if (key === "Escape") target.blur(); return; }
  if (target.matches("button,a") && (key === " " || key === "Enter")) return;
  if (target.matches("input[type=range]") && key.startsWith("Arrow")) return;
  if (target === $("lanes") && /Arrow(Up|Down)/.test(key)) return;
  const action = key === "?" ? () => $("help").showModal() : view.number >= 0 ? KEYS[key] : key === "/" ? () => focusOn("search") : null;
  if (action) { event.preventDefault(); action(event); }
});

// ---- start ----
function route() {
  const number = Number(location.hash.slice(1)) - 1, isOpen = Number.isInteger(number) && number >= 0 && number < rows.length;
  const only = rows.length === 1 && !isOpen ? 0 : number;
  $("index").hidden = isOpen || rows.length === 1;
  $("recording").hidden = !(isOpen || rows.length === 1);
  if (isOpen || rows.length === 1) { $("recording").querySelector(".crumbs").hidden = rows.length === 1; open(only); return; }
  close();
  document.title = `${visible(facts.source)} - ast report`;
  listTable.redraw();
}
function repaint() {
  readColors();
  const ramp = $("ramp").getContext("2d");
  colors.score.forEach((color, k) => { ramp.fillStyle = color; ramp.fillRect(k / 256 * 96, 0, 1, 10); });
  if (view.ws) { view.ws.setOptions(waveColors()); view.step = 0; makeTimeline(); }
  drawSoon();
}
$("theme").addEventListener("click", () => { document.documentElement.dataset.theme = colors.isDark ? "light" : "dark"; repaint(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
$("help-open").addEventListener("click", () => $("help").showModal());
$("previous").addEventListener("click", () => go(neighbor(-1)));
$("next").addEventListener("click", () => go(neighbor(1)));
$("play").addEventListener("click", togglePlay);
$("speed").addEventListener("change", () => view.ws?.setPlaybackRate(+$("speed").value));
$("zoom-in").addEventListener("click", () => zoomTo(perSecond() * 1.6));
$("zoom-out").addEventListener("click", () => zoomTo(perSecond() / 1.6));
$("zoom-fit").addEventListener("click", () => zoomTo(0));
for (const id of ["filter", "threshold", "answered"]) $(id).addEventListener("input", filterItems);
$("kind").addEventListener("change", () => { view.items = view.kinds[$("kind").value]; view.current = -1; filterItems(); });
$("csv").addEventListener("click", () => downloadRows("csv"));
$("audacity").addEventListener("click", () => downloadRows("audacity"));
$("lanes").addEventListener("scroll", drawSoon, { passive: true });
sortButtons($("rows"), order2, filterItems);
makeDraggable($("spectrogram"), false);
makeDraggable($("lanes-canvas"), true);
new ResizeObserver(drawSoon).observe($("stage"));
addEventListener("hashchange", route);
repaint();
startIndex();
$("index").hidden = rows.length === 1;
filterList();
showSave();
route();
})();
