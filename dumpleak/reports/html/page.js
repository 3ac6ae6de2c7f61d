"use strict";
// Shows the page's data. Texts come from dumps and are hostile: they are only ever set as text, never as
// markup, and escaped for plotly, which reads a small markup of its own in labels.
(() => {
  // What the first view needs stands in the page as it is; the rest is packed.
  const data = JSON.parse(document.getElementById("data").textContent);
  const root = document.documentElement;
  const main = document.getElementById("main");
  const PAGE = 50; // rows shown at once
  const ROW_NAME = 140; // characters of a name in its row
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
    "share": (v) => (100 * v).toFixed(1) + "%",
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

  // -- grids ------------------------------------------------------------------------------------------
  class GridView {
    constructor(grid) {
      this.grid = grid;
      this.sort = { column: -1, down: false };
      this.page = 0;
      this.open = new Set();
      this.order = grid.rows.map((_, row) => row);
      this.texts = null;
      this.peaks = grid.columns.map((column, at) => column.unit === "delta-bytes"
        ? grid.rows.reduce((most, row) => Math.max(most, Math.abs(row[at] || 0)), 0) : 0);
      const host = section(grid.title, grid.id);
      if (grid.note) host.append(element("p", { class: "note" }, grid.note));
      host.append(this.controls());
      this.head = element("tr", {});
      this.body = element("tbody", {});
      host.append(element("div", { class: "scroll" },
        element("table", {}, element("thead", {}, this.head), this.body)));
      this.pages = element("div", { class: "pages" });
      host.append(this.pages);
      this.writeHead();
      this.update();
    }

    controls() {
      this.filter = element("input", {
        type: "search", placeholder: "Filter (all words must occur)", "aria-label": "Filter " + this.grid.title,
        oninput: () => { this.page = 0; this.update(); },
      });
      this.choice = element("select", {
        "aria-label": "Show", onchange: () => { this.page = 0; this.update(); },
      });
      this.shown = element("span", { class: "count", role: "status" });
      const at = this.grid.chosen;
      if (at >= 0) {
        this.choice.append(element("option", { value: "" }, "any " + this.grid.columns[at].title));
        for (const value of new Set(this.grid.rows.map((row) => row[at]))) {
          this.choice.append(element("option", { value }, value));
        }
      }
      const made = element("div", { class: "controls" }, this.filter);
      if (at >= 0) made.append(this.choice);
      made.append(this.shown);
      return made;
    }

    writeHead() {
      this.head.replaceChildren(...this.grid.columns.map((column, at) => element("th", {
        scope: "col", class: cellClass(column), title: column.hint || null,
        "aria-sort": this.sort.column === at ? (this.sort.down ? "descending" : "ascending") : null,
      }, column.unit === "spark" ? column.title : element("button", {
        type: "button", onclick: () => this.sortBy(at),
      }, column.title))));
    }

    sortBy(at) {
      const textual = ["text", "name"].includes(this.grid.columns[at].unit);
      const again = this.sort.column === at;
      this.sort = { column: at, down: again ? !this.sort.down : !textual };
      this.page = 0;
      this.writeHead();
      this.update();
      this.head.children[at].querySelector("button").focus();
    }

    text(row) {
      if (!this.texts && !data.details) return this.grid.rows[row].join("\n").toLowerCase();
      if (!this.texts) {
        const named = this.grid.columns.map((c, at) => ["text", "name"].includes(c.unit) ? at : -1)
          .filter((at) => at >= 0);
        this.texts = this.grid.rows.map((values, at) => {
          const frames = (data.details[this.grid.id][at] || {}).frames || [];
          return [...named.map((c) => values[c]), ...frames.map((f) => data.strings[f])]
            .join("\n").toLowerCase();
        });
      }
      return this.texts[row];
    }

    update() {
      const words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      const chosen = this.choice.value, at = this.grid.chosen;
      let order = this.grid.rows.map((_, row) => row);
      if (chosen) order = order.filter((row) => this.grid.rows[row][at] === chosen);
      if (words.length) order = order.filter((row) => words.every((w) => this.text(row).includes(w)));
      const { column, down } = this.sort;
      if (column >= 0) {
        const turn = down ? -1 : 1;
        order.sort((a, b) => turn * compare(this.grid.rows[a][column], this.grid.rows[b][column]) || a - b);
      }
      this.order = order;
      this.write();
    }

    write() {
      const last = Math.max(Math.ceil(this.order.length / PAGE) - 1, 0);
      this.page = Math.min(Math.max(this.page, 0), last);
      for (const host of this.body.querySelectorAll(".chart")) forget(host);
      const rows = [];
      for (const row of this.order.slice(this.page * PAGE, (this.page + 1) * PAGE)) {
        rows.push(this.row(row));
        if (this.open.has(row) && data.details) rows.push(this.detail(row));
      }
      this.body.replaceChildren(...rows);
      const all = this.grid.rows.length, some = this.order.length;
      this.shown.textContent = some === all ? count(all) + " rows" : count(some) + " of " + count(all) + " rows";
      this.pages.replaceChildren();
      if (last > 0) {
        const turn = (by, text) => element("button", {
          type: "button", disabled: this.page + by < 0 || this.page + by > last,
          onclick: () => { this.page += by; this.write(); },
        }, text);
        this.pages.append(turn(-1, "‹ previous"), "page " + (this.page + 1) + " of " + (last + 1), turn(1, "next ›"));
      }
    }

    row(row) {
      const made = element("tr", {});
      if (this.grid.ids[row]) made.id = "site-" + this.grid.ids[row];
      this.grid.columns.forEach((column, at) => {
        const value = this.grid.rows[row][at];
        const cell = element("td", { class: cellClass(column) });
        if (column.unit === "spark") cell.append(spark(value));
        else if (column.unit === "name" && this.grid.ids[row]) {
          cell.append(element("button", {
            type: "button", "aria-expanded": String(this.open.has(row)), onclick: () => this.toggle(row),
          }, bdi(cut(value, ROW_NAME))));
        } else if (["text", "name"].includes(column.unit)) cell.append(bdi(write(value, column.unit)));
        else cell.textContent = write(value, column.unit);
        if (column.unit.startsWith("delta") || column.unit === "rate") {
          if (value > 0) cell.classList.add("grew");
          if (value < 0) cell.classList.add("shrank");
          if (this.peaks[at] && value) {
            cell.classList.add("heat");
            cell.style.setProperty("--part", (100 * Math.abs(value) / this.peaks[at]).toFixed(1) + "%");
          }
        }
        made.append(cell);
      });
      return made;
    }

    toggle(row) {
      const id = this.grid.ids[row];
      if (this.open.has(row)) this.open.delete(row);
      else {
        this.open.add(row);
        if (id) history.replaceState(null, "", "#site-" + id);
      }
      this.write();
      this.focus(row);
    }

    focus(row) {
      const at = this.order.indexOf(row) - this.page * PAGE;
      const button = this.body.querySelectorAll("tr:not(.detail)")[at]?.querySelector("td.name > button");
      if (button) button.focus();
    }

    show(id) {
      const row = this.grid.ids.indexOf(id);
      if (row < 0) return false;
      this.filter.value = "";
      this.choice.value = "";
      this.open.add(row);
      this.update();
      this.page = Math.floor(this.order.indexOf(row) / PAGE);
      this.write();
      this.focus(row);
      document.getElementById("site-" + id).scrollIntoView({ block: "center" });
      return true;
    }

    detail(row) {
      const more = data.details[this.grid.id][row];
      const panel = element("div", { class: "panel" });
      const part = (title, ...content) => {
        const made = element("div", {}, element("h3", {}, title), ...content);
        panel.append(made);
        return made;
      };
      if (more.frames) {
        const list = element("ol", { class: "mono frames" }, ...more.frames.map((f) => element("li", {}, bdi(data.strings[f]))));
        if (more.more_frames) list.append(element("li", {}, "… " + more.more_frames + " more"));
        part("Call stack, innermost first", list);
      }
      const facts = [...(more.evidence || [])];
      const name = this.grid.rows[row][this.grid.columns.findIndex((c) => c.unit === "name")];
      if (name.length > ROW_NAME) facts.unshift("whole name: " + name);
      for (const key of ["type", "tag", "driver"]) if (more[key]) facts.push(key + ": " + more[key]);
      if (this.grid.ids[row]) {
        facts.push(element("a", { href: "#site-" + this.grid.ids[row] }, "link to this site"));
      }
      part("Evidence", element("ul", {}, ...facts.map((f) => element("li", {}, typeof f === "string" ? bdi(f) : f))));
      if (more.points) {
        const host = element("div", { class: "chart trend" });
        part("Bytes in each dump", host);
        draw(host, () => trendChart(more.points));
      }
      if (more.sizes) {
        const host = element("div", { class: "chart sizes" });
        part("Block sizes", host);
        draw(host, () => sizeChart(more.sizes, more.exact));
      }
      if (more.samples && more.samples.length) {
        part("Sample addresses (" + more.samples_of + ")", element("ul", { class: "mono samples" },
          ...more.samples.map((address) => element("li", {}, address))));
      }
      return element("tr", { class: "detail" }, element("td", { colspan: this.grid.columns.length }, panel));
    }
  }
  function cellClass(column) {
    const kind = ["text", "name", "spark"].includes(column.unit) ? column.unit : "number";
    return column.minor ? kind + " minor" : kind;
  }
  function compare(a, b) {
    if (a === b) return 0;
    if (a === null || a === undefined) return -1;
    if (b === null || b === undefined) return 1;
    return a < b ? -1 : 1;
  }
  function forget(host) {
    if (window.Plotly && host.dataset.drawn) window.Plotly.purge(host);
    drawn.delete(host);
  }
  const SVG = "http://www.w3.org/2000/svg";
  function spark(values) {
    const width = 80, height = 18, most = Math.max(...values, 1);
    const made = document.createElementNS(SVG, "svg");
    made.setAttribute("class", "spark");
    made.setAttribute("width", width);
    made.setAttribute("height", height);
    made.setAttribute("role", "img");
    made.setAttribute("aria-label", values.map((v) => bytes(v)).join(", "));
    const line = document.createElementNS(SVG, "polyline");
    line.setAttribute("points", values.map((v, at) =>
      (2 + at * (width - 4) / Math.max(values.length - 1, 1)).toFixed(1) + "," +
      (height - 2 - v * (height - 4) / most).toFixed(1)).join(" "));
    made.append(line);
    return made;
  }

  function sizeChart(sizes, exact) {
    const colours = [colour("--dim"), colour("--link")];
    const lows = [...new Set(sizes.flatMap(([, pairs]) => pairs.map(([low]) => low)))].sort((a, b) => a - b);
    const names = lows.map((low) => exact ? count(low) + " B" : low ? bytes(low) + "–" + bytes(2 * low - 1) : "0 B");
    return {
      traces: sizes.map(([label, pairs], at) => {
        const known = new Map(pairs);
        return {
          type: "bar", name: escapeLabel(label), x: names, y: lows.map((low) => known.get(low) || 0),
          marker: { color: colours[at + 2 - sizes.length] }, hovertemplate: "%{x}: %{y} blocks<extra></extra>",
        };
      }),
      layout: {
        barmode: "group", showlegend: sizes.length > 1, legend: { orientation: "h", y: 1.15 },
        yaxis: { ...base().yaxis, title: { text: "blocks" }, rangemode: "tozero" },
        xaxis: { ...base().xaxis, type: "category" },
      },
    };
  }
  function trendChart(points) {
    return {
      traces: [{
        type: "scatter", mode: "lines+markers", x: data.series, y: points.map((p) => p[0]),
        text: points.map((p) => bytes(p[0]) + " in " + count(p[1]) + " blocks"),
        hovertemplate: "%{x}: %{text}<extra></extra>", line: { color: colour("--link") },
      }],
      layout: { yaxis: { ...base().yaxis, ...byteAxis(Math.max(...points.map((p) => p[0]))), rangemode: "tozero" } },
    };
  }
  function byteAxis(most) {
    const step = Math.pow(2, Math.max(Math.ceil(Math.log2(Math.max(most, 1) / 4)), 0));
    const ticks = [];
    for (let value = 0; value <= most + step / 2 && ticks.length < 9; value += step) ticks.push(value);
    return { tickvals: ticks, ticktext: ticks.map((value) => bytes(value)) };
  }

  // -- memory -----------------------------------------------------------------------------------------
  const USES = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#9c6b4e", "#a463f2", "#97bbf5", "#9498a0"];
  function memoryMap(memory) {
    const host = section("Memory by use", "memory");
    host.classList.add("memory");
    if (!memory.complete) {
      host.append(element("p", { class: "note" }, "A dump does not list the process's memory regions: this is what the file holds."));
    }
    const chart = element("div", { class: "chart" });
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
      this.chart = element("div", { class: "chart", id: "flame-chart" });
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
        ["change", bytes(this.net(node), true)], ["blocks", count(t.counts[node], true)],
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
  requestAnimationFrame(() => setTimeout(rest, 0));
})();
