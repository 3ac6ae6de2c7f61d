// Texts come from dumps and are hostile: they are only ever set as text, never as markup, and escaped for
// plotly, which reads a small markup of its own in labels.
// What the first view needs stands in the page as it is; the rest is packed.
const data = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const main = document.getElementById("main");
const PAGE = 50; // rows shown at once
const number = new Intl.NumberFormat("en-US");

// -- writing ----------------------------------------------------------------------------------------
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];
function bytes(value, signed) {
  let size = Math.abs(value), unit = 0;
  while (size >= 1024 && unit < UNITS.length - 1) { size /= 1024; unit += 1; }
  const text = unit && size < 100 ? size.toFixed(1) : size.toFixed(0);
  return sign(value, signed) + text + " " + UNITS[unit];
}
function sign(value, signed) { return value < 0 ? "-" : signed && value > 0 ? "+" : ""; }
function count(value, signed) { return sign(value, signed) + number.format(Math.abs(value)); }
const WRITE = {
  "bytes": (v) => bytes(v),
  "count": (v) => count(v),
  "delta-bytes": (v) => bytes(v, true),
  "delta-count": (v) => count(v, true),
  "rate": (v) => bytes(v, true),
  // Nothing less than the whole is said to be all.
  "share": (v) => (v === 1 ? 100 : Math.min(100 * v, 99.9)).toFixed(1) + "%",
};
function write(value, unit) {
  return value === null || value === undefined ? "" : (WRITE[unit] || String)(value);
}
function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}
function bdi(text) { return element("bdi", {}, text); }
function section(title, id) {
  const made = element("section", { id, "aria-label": title }, element("h2", {}, title));
  main.append(made);
  return made;
}

// -- charts -----------------------------------------------------------------------------------------
let plotly = null;
function charts() {
  plotly = plotly || unpack();
  return plotly;
}
async function unpacked(id) {
  const raw = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
  return new Response(new Blob([raw]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}
async function unpack() {
  const script = document.createElement("script");
  script.textContent = await unpacked("charts");
  document.head.append(script);
  if (!window.Plotly) throw new Error("the chart library did not start");
  return window.Plotly;
}
const drawn = new Map(); // chart element -> how to draw it again
async function draw(host, make) {
  drawn.set(host, make);
  const library = await charts();
  if (!host.isConnected) { drawn.delete(host); return; }
  const { traces, layout } = make();
  const config = { displaylogo: false, displayModeBar: false, responsive: true, typesetMath: false };
  await library.react(host, traces, { ...base(), ...layout }, config);
  host.dataset.drawn = "yes";
}
function colour(name) { return getComputedStyle(root).getPropertyValue(name).trim(); }
function base() {
  const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), automargin: true };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: colour("--ink"), size: 11 }, margin: { l: 50, r: 8, t: 8, b: 30 },
    xaxis: { ...axis }, yaxis: { ...axis }, hoverlabel: { align: "left" },
  };
}
function escapeLabel(text) {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}
function cut(text, width) {
  if (text.length <= width) return text;
  const head = width >> 1;
  return text.slice(0, head) + "…" + text.slice(text.length - (width - 1 - head));
}
function mix(from, to, share) {
  const a = rgb(from), b = rgb(to);
  return "rgb(" + a.map((v, i) => Math.round(v + (b[i] - v) * share)).join(",") + ")";
}
function rgb(hex) {
  const full = hex.length === 4 ? hex.replace(/[^#]/g, "$&$&") : hex;
  return [1, 3, 5].map((at) => parseInt(full.slice(at, at + 2), 16));
}
