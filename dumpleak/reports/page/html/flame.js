// -- memory -----------------------------------------------------------------------------------------
const USES = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#9c6b4e", "#a463f2", "#97bbf5", "#9498a0"];
function memoryMap(memory) {
  const host = section("Memory by use", "memory");
  host.classList.add("memory");
  if (!memory.complete) {
    host.append(element("p", { class: "note" }, "A dump does not list the process's memory regions: this is what the file holds."));
  }
  const chart = element("div", { class: "chart", role: "img", "aria-label": "The table below as bars" });
  host.append(chart);
  const heads = memory.labels.length > 1 ? memory.labels : ["committed", "in the dump"];
  const columns = memory.labels.length > 1 ? memory.values : [memory.values[0], memory.present[0]];
  const rows = memory.uses.map((use, at) => element("tr", {}, element("th", { scope: "row" }, use),
    ...columns.map((values) => element("td", { class: "number" }, bytes(values[at])))));
  host.append(element("div", { class: "scroll" }, element("table", {},
    element("tr", {}, element("th", {}, "use"), ...heads.map((h) => element("th", { class: "number" }, bdi(h)))), ...rows)));
  const most = Math.max(...memory.values.map((values) => values.reduce((a, b) => a + b, 0)));
  return () => draw(chart, () => ({
    traces: memory.uses.map((use, at) => ({
      type: "bar", orientation: "h", name: escapeLabel(use), y: memory.labels.map(escapeLabel),
      x: memory.values.map((values) => values[at]), marker: { color: USES[at % USES.length] },
      text: memory.values.map((values) => bytes(values[at])), textposition: "none",
      hovertemplate: "%{fullData.name}: %{text}<extra></extra>",
    })),
    layout: {
      barmode: "stack", legend: { orientation: "h", y: 1.25, traceorder: "normal" },
      yaxis: { ...base().yaxis, type: "category", autorange: "reversed" },
      xaxis: { ...base().xaxis, ...byteAxis(most) },
    },
  }));
}

// -- flame graph ------------------------------------------------------------------------------------
const MEASURES = {
  change: { title: "change", of: (tree, n) => tree.grew[n] + tree.shrank[n] },
  current: { title: "current bytes", of: (tree, n) => tree.current[n] },
  base: { title: "base bytes", of: (tree, n) => tree.base[n] },
};
class Flame {
  constructor(tree, host) {
    this.tree = tree;
    this.children = tree.names.map(() => []);
    tree.parents.forEach((parent, node) => { if (parent >= 0) this.children[parent].push(node); });
    this.measure = tree.single || !MEASURES.change.of(tree, 0) ? "current" : "change";
    this.node = 0;
    this.listening = false;
    host.append(element("p", { class: "note" }, tree.single
      ? tree.levels + " Width is bytes."
      : tree.levels + " Red grew, blue shrank; the panel has absolute bytes."));
    const pick = element("select", {
      "aria-label": "Width", onchange: () => { this.measure = pick.value; this.go(0); },
    }, ...Object.entries(MEASURES).map(([value, { title }]) => element("option", { value, selected: value === this.measure }, "width: " + title)));
    const legend = element("span", { class: "legend" });
    for (const [name, text] of [["--grew", "grew"], ["--neutral", "same"], ["--shrank", "shrank"]]) {
      const patch = element("i", {});
      patch.style.background = "var(" + name + ")";
      legend.append(patch, text);
    }
    const controls = element("div", { class: "controls" });
    if (!tree.single) controls.append(pick, legend);
    this.chart = element("div", {
      class: "chart", id: "flame-chart", role: "img", "aria-label": "Flame graph; the list beside it has the same frames",
    });
    this.panel = element("aside", { "aria-live": "polite", "aria-label": "Selected frame" });
    host.append(controls, element("div", { class: "flame" }, this.chart, this.panel));
    this.writePanel();
  }
  name(node) { return data.strings[this.tree.names[node]]; }
  net(node) { return this.tree.grew[node] - this.tree.shrank[node]; }
  value(node) { return MEASURES[this.measure].of(this.tree, node); }
  go(node) { this.node = node; this.writePanel(); this.draw(); }
  async draw() {
    await draw(this.chart, () => this.figure());
    if (this.listening) return;
    this.listening = true;
    this.chart.on("plotly_icicleclick", (event) => {
      const to = event.nextLevel === undefined || event.nextLevel === "" ? 0 : Number(event.nextLevel);
      this.node = to;
      this.writePanel();
    });
  }
  figure() {
    const shown = this.tree.names.map((_, node) => node).filter((node) => this.value(node) > 0);
    const most = shown.reduce((top, node) => node ? Math.max(top, Math.abs(this.net(node))) : top, 1);
    const same = colour("--neutral"), grew = colour("--grew"), shrank = colour("--shrank");
    const label = (node) => escapeLabel(cut(this.name(node), 60));
    const tint = (node) => mix(same, this.net(node) < 0 ? shrank : grew,
      this.tree.single ? 0.25 : 0.6 * Math.sqrt(Math.min(Math.abs(this.net(node)) / most, 1)));
    return {
      traces: [{
        type: "icicle", ids: shown.map(String), labels: shown.map(label),
        parents: shown.map((node) => this.tree.parents[node] < 0 ? "" : String(this.tree.parents[node])),
        values: shown.map((node) => this.value(node)), branchvalues: "total", sort: false,
        level: String(this.node), maxdepth: 24, tiling: { orientation: "v", pad: 1 },
        marker: { colors: shown.map(tint), line: { width: 1, color: colour("--paper") } },
        leaf: { opacity: 1 }, textinfo: "label", insidetextfont: { color: colour("--ink") },
        hovertext: shown.map((node) => escapeLabel(cut(this.name(node), 120)) + "<br>" + this.lines(node).map((l) => l.join(": ")).join("<br>")),
        hoverinfo: "text", pathbar: { visible: true },
      }],
      layout: { margin: { l: 2, r: 2, t: 24, b: 2 }, uniformtext: { minsize: 9, mode: "hide" } },
    };
  }
  lines(node) {
    const t = this.tree;
    if (t.single) return [["bytes", bytes(t.current[node])]];
    return [
      ["change", bytes(this.net(node), true)], [data.members, count(t.counts[node], true)],
      ["base", bytes(t.base[node])], ["current", bytes(t.current[node])],
      ["grew", bytes(t.grew[node], true)], ["shrank", bytes(-t.shrank[node], true)],
    ];
  }
  writePanel() {
    const path = [];
    for (let node = this.node; node >= 0; node = this.tree.parents[node]) path.unshift(node);
    const trail = element("nav", { class: "path", "aria-label": "Callers" }, ...path.slice(-12).map((node) => element("button", {
      type: "button", "aria-current": node === this.node ? "true" : null, onclick: () => this.go(node),
    }, bdi(cut(this.name(node), 60)))));
    const facts = element("table", { class: "facts" }, ...this.lines(this.node).map(([label, value]) =>
      element("tr", {}, element("td", {}, label), element("td", { class: "number" }, value))));
    const kids = this.children[this.node].filter((kid) => this.value(kid) > 0)
      .sort((a, b) => this.value(b) - this.value(a)).slice(0, 100);
    const list = element("table", {}, ...kids.map((kid) => {
      const net = this.tree.single ? this.tree.current[kid] : this.net(kid);
      return element("tr", {}, element("td", {}, element("button", { type: "button", onclick: () => this.go(kid) }, bdi(cut(this.name(kid), 120)))),
        element("td", { class: "number " + (this.tree.single ? "" : net > 0 ? "grew" : net < 0 ? "shrank" : "") }, bytes(net, !this.tree.single)));
    }));
    this.panel.replaceChildren(trail, facts, element("div", { class: "kids" }, list));
  }
}
