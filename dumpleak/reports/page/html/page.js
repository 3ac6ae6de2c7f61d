// -- colours ----------------------------------------------------------------------------------------
const toggle = document.getElementById("theme");
const system = window.matchMedia("(prefers-color-scheme: dark)");
const printing = window.matchMedia("print");
let theme = "auto";
try { theme = localStorage.getItem("dumpleak-theme") || "auto"; } catch { /* no storage for files here */ }
function applyTheme() {
  const dark = theme === "auto" ? system.matches : theme === "dark";
  root.dataset.theme = dark && !printing.matches ? "dark" : "light";
  toggle.textContent = "Colours: " + theme;
  for (const [host, make] of drawn) draw(host, make);
}
toggle.addEventListener("click", () => {
  theme = { auto: "light", light: "dark", dark: "auto" }[theme] || "auto";
  try { localStorage.setItem("dumpleak-theme", theme); } catch { /* not kept */ }
  applyTheme();
});
system.addEventListener("change", applyTheme);
printing.addEventListener("change", applyTheme);
applyTheme();

function writeContents() {
  document.querySelector("nav.contents").replaceChildren(...[...main.querySelectorAll("section")].map((made) =>
    element("a", { href: "#" + made.id }, made.getAttribute("aria-label"))));
}

// -- the page ---------------------------------------------------------------------------------------
const views = [];
const [first, ...others] = data.grids;
if (first) views.push(new GridView(first));
const flameHost = data.flame ? section("Flame graph", "flame") : null;
views.push(...others.map((grid) => new GridView(grid)));
const drawMemory = data.memory.uses && data.memory.uses.length ? memoryMap(data.memory) : null;
writeContents();

function openLinked() {
  const id = /^#site-([0-9a-f]+)$/.exec(location.hash)?.[1];
  if (id) views.some((view) => view.show(id));
}
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select");
  if (event.key === "/" && !typing && views.length) {
    event.preventDefault();
    views[0].filter.focus();
  } else if (event.key === "Escape") {
    const detail = event.target.closest("tr")?.nextElementSibling;
    const button = event.target.closest("tr")?.querySelector("td.name > button[aria-expanded='true']");
    if (button && detail?.classList.contains("detail")) button.click();
    else if (typing) typing.blur();
  } else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && !event.target.closest("select")) {
    const buttons = [...document.querySelectorAll("td.name > button")];
    const at = buttons.indexOf(event.target);
    if (at < 0 && !typing) return;
    const to = buttons[at < 0 ? 0 : at + (event.key === "ArrowDown" ? 1 : -1)];
    if (to) { event.preventDefault(); to.focus(); }
  }
});

async function rest() {
  Object.assign(data, JSON.parse(await unpacked("more")));
  views.forEach((view) => view.update()); // rows that were opened meanwhile; filters see stacks now
  window.addEventListener("hashchange", openLinked);
  openLinked();
  root.dataset.ready = "details";
  if (flameHost) await new Flame(data.tree, flameHost).draw();
  if (drawMemory) await drawMemory();
  root.dataset.ready = "charts";
}
root.dataset.ready = "table";
performance.mark("first-view");
// The rest comes once the first view stands on the screen.
requestAnimationFrame(() => setTimeout(() => rest().catch((error) => {
  const note = "This browser cannot show stacks and charts of this page (" + error.message + "); a newer one can.";
  main.prepend(element("p", { class: "note", role: "alert" }, note));
}), 0));
