"use strict";
// Bytes are whole numbers of any size (BigInt), so that they are those of `archspec memory` to the last one.
const data = JSON.parse(document.getElementById("data").textContent);
const inputs = Object.fromEntries(["batch", "context", "dtype"].map((id) => [id, document.getElementById(id)]));
const SVG = "http://www.w3.org/2000/svg";

function positions(term, context) {
  if (term.tokens_each === null) return BigInt(term.limit);
  const each = BigInt(term.tokens_each), count = (context + each - 1n) / each;
  return term.limit === null || count < BigInt(term.limit) ? count : BigInt(term.limit);
}

function bytesOf(terms, batch, context, size) {
  let bytes = 0n;
  for (const term of terms) {
    const own = term.element_bytes === null ? size : BigInt(term.element_bytes);
    bytes += BigInt(term.elements) * positions(term, context) * own;
  }
  return batch * bytes;
}

function count(value) {
  for (const [unit, size] of [["G", 1n << 30n], ["M", 1n << 20n], ["K", 1n << 10n]]) {
    if (value % size === 0n) return `${value / size}${unit}`;
  }
  return `${value}`;
}

function human(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let size = Number(value), unit = 0;
  while (size >= 1024 && unit < units.length - 1) { size /= 1024; unit += 1; }
  if (unit === 0) return `${value} B`;
  return `${size < 1000 ? Number(size.toPrecision(3)) : Math.round(size)} ${units[unit]}`;
}

function setting() {
  const dtype = data.dtypes[Number(inputs.dtype.value)];
  return {
    batch: 1n << BigInt(inputs.batch.value),
    context: 1n << BigInt(inputs.context.value),
    dtype,
    size: BigInt(dtype.bytes),
  };
}

function say(id, text) {
  document.getElementById(`${id}-value`).textContent = text;
  inputs[id].setAttribute("aria-valuetext", text);
}

function update() {
  const { batch, context, dtype, size } = setting();
  say("batch", `${batch}`);
  say("context", count(context));
  say("dtype", dtype.name);
  for (const spec of data.specs) {
    const section = document.getElementById(spec.key);
    const shared = bytesOf(spec.terms, batch, context, size);
    section.querySelector(".human").textContent = human(shared);
    section.querySelector(".bytes").textContent = `${shared.toLocaleString("en-US")} bytes`;
    if (spec.unshared) {
      const unshared = bytesOf(spec.unshared, batch, context, size);
      section.querySelector(".unshared").textContent = `${unshared.toLocaleString("en-US")} bytes`;
      section.querySelector(".ratio").textContent = shared > 0n ? `(1/${(Number(unshared) / Number(shared)).toFixed(1)})` : "";
    }
    for (const output of section.querySelectorAll("output.store")) {
      output.textContent = bytesOf(spec.stores[output.dataset.store], batch, context, size).toLocaleString("en-US");
    }
  }
  draw();
}

// ------------------------------------------------------------------ chart

function element(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function curves({ batch, size }) {
  const contexts = [];
  for (let step = 8 * 4; step <= 24 * 4; step += 1) contexts.push(BigInt(Math.round(2 ** (step / 4))));
  const found = [];
  data.specs.forEach((spec, number) => {
    for (const [kind, terms] of [["unshared", spec.unshared], ["shared", spec.terms]]) {
      if (!terms || kind === "unshared" && !spec.shares) continue;
      const points = contexts.map((context) => [Math.log2(Number(context)), Math.log2(Number(bytesOf(terms, batch, context, size)))]);
      found.push({ name: spec.name, kind, number, points: points.filter(([, y]) => Number.isFinite(y)) });
    }
  });
  return found;
}

function draw() {
  const now = setting(), lines = curves(now), box = document.getElementById("chart");
  const width = Math.max(280, Math.min(900, box.clientWidth || 600)), height = Math.min(360, Math.max(240, width * 0.5));
  const left = 68, right = 14, top = 10, bottom = 30;
  const ys = lines.flatMap((line) => line.points.map(([, y]) => y));
  const low = Math.floor(Math.min(...ys, 20)), high = Math.ceil(Math.max(...ys, 21));
  const x = (value) => left + (value - 8) / 16 * (width - left - right);
  const y = (value) => height - bottom - (value - low) / (high - low) * (height - top - bottom);
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "cache bytes against context" });
  for (let power = 8; power <= 24; power += width < 500 ? 4 : 2) {
    svg.append(element("line", { class: "grid", x1: x(power), x2: x(power), y1: top, y2: height - bottom }));
    const anchor = power === 24 ? "end" : "middle";
    svg.append(element("text", { x: x(power) + (power === 24 ? 8 : 0), y: height - bottom + 18, "text-anchor": anchor }, count(1n << BigInt(power))));
  }
  const step = Math.max(1, Math.ceil((high - low) / 8));
  for (let power = Math.ceil(low / step) * step; power <= high; power += step) {
    svg.append(element("line", { class: "grid", x1: left, x2: width - right, y1: y(power), y2: y(power) }));
    svg.append(element("text", { x: left - 8, y: y(power) + 4, "text-anchor": "end" }, human(1n << BigInt(power))));
  }
  const at = Number(inputs.context.value);
  if (at >= 8) svg.append(element("line", { class: "now", x1: x(at), x2: x(at), y1: top, y2: height - bottom }));
  for (const line of lines) {
    const points = line.points.map(([a, b]) => `${x(a).toFixed(1)},${y(b).toFixed(1)}`).join(" ");
    svg.append(element("polyline", { class: `curve ${line.kind}`, points, style: `stroke:var(--c${line.number % 6})` }));
    const spec = data.specs[line.number], terms = line.kind === "shared" ? spec.terms : spec.unshared;
    const value = Math.log2(Number(bytesOf(terms, now.batch, now.context, now.size)));
    if (at >= 8 && Number.isFinite(value)) {
      svg.append(element("circle", { cx: x(at), cy: y(value), r: 4, style: `fill:var(--c${line.number % 6})` }));
    }
  }
  box.replaceChildren(svg);
}

function legend() {
  const box = document.getElementById("legend");
  data.specs.forEach((spec, number) => {
    for (const [kind, text] of [["shared", spec.name], ["unshared", `${spec.name} without sharing`]]) {
      if (kind === "unshared" && !(spec.unshared && spec.shares)) continue;
      const item = document.createElement("span"), svg = element("svg", { viewBox: "0 0 28 10", "aria-hidden": "true" });
      const dash = kind === "unshared" ? "stroke-dasharray:6 5;" : "";
      svg.append(element("line", { x1: 0, x2: 28, y1: 5, y2: 5, style: `stroke:var(--c${number % 6});stroke-width:2.2;${dash}` }));
      item.append(svg, text);
      box.append(item);
    }
    document.getElementById(spec.key).style.setProperty("--own", `var(--c${number % 6})`);
  });
}

// -------------------------------------------------------------- highlight

const hint = "Point at a cache or a layer, or move to it with the Tab key.";

function light(part) {
  const view = part.closest(".view"), uses = new Set((part.dataset.uses || "").split(" ").filter(Boolean));
  if (uses.size === 0) return;
  view.classList.add("lit");
  for (const other of view.querySelectorAll(".as")) {
    other.classList.toggle("on", (other.dataset.uses || "").split(" ").some((key) => uses.has(key)));
  }
  const label = part.getAttribute("aria-label") || part.cells && [...part.cells].map((cell) => cell.textContent).filter(Boolean).join(", ");
  if (label) view.querySelector(".said").textContent = label;
}

function unlight(view) {
  view.classList.remove("lit");
  view.querySelector(".said").textContent = hint;
  const focused = document.activeElement;
  if (focused && view.contains(focused) && focused.dataset.uses) light(focused);
}

for (const view of document.querySelectorAll(".view")) {
  for (const part of view.querySelectorAll(".as[data-uses]")) {
    part.addEventListener("mouseenter", () => light(part));
    part.addEventListener("mouseleave", () => unlight(view));
    part.addEventListener("focus", () => light(part));
    part.addEventListener("blur", () => unlight(view));
  }
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && document.activeElement.dataset.uses) document.activeElement.blur();
});
for (const radio of document.querySelectorAll("input[name=view]")) {
  radio.addEventListener("change", () => { document.body.dataset.view = radio.value; });
}
for (const input of Object.values(inputs)) input.addEventListener("input", update);
window.addEventListener("resize", draw);
legend();
update();
