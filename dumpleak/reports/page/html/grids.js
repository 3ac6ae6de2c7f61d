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
        const more = data.details[this.grid.id][at] || {};
        const shared = [...(more.frames || []), ...(more.name === undefined ? [] : [more.name])];
        return [...named.map((c) => values[c]), ...shared.map((f) => data.strings[f])]
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
        }, bdi(value)));
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
    if (more.name !== undefined) facts.unshift("whole name: " + data.strings[more.name]);
    for (const key of ["type", "tag", "driver"]) if (more[key]) facts.push(key + ": " + more[key]);
    if (this.grid.ids[row]) {
      facts.push(element("a", { href: "#site-" + this.grid.ids[row] }, "link to this site"));
    }
    part("Evidence", element("ul", {}, ...facts.map((f) => element("li", {}, typeof f === "string" ? bdi(f) : f))));
    if (more.points) {
      const host = element("div", { class: "chart trend", role: "img", "aria-label": "Bytes in each dump" });
      part("Bytes in each dump", host);
      draw(host, () => trendChart(more.points));
    }
    if (more.sizes) {
      const host = element("div", { class: "chart sizes", role: "img", "aria-label": "Blocks by size" });
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
      text: points.map((p) => bytes(p[0]) + " in " + count(p[1]) + " " + data.members),
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
