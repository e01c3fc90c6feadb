// The interactive part of a report: the map with its legend and tooltip, and the curves. Plotly draws.
// A map is drawn as one trace per class; coordinates and columns stay as they were packed, one typed array each.
"use strict";
(() => {
  const element = (id) => document.getElementById(id);
  const data = JSON.parse(element("data").textContent);
  const KINDS = { f4: Float32Array, u1: Uint8Array, u2: Uint16Array, u4: Uint32Array };
  const unpacked = ({ dtype, bdata }) =>
    new KINDS[dtype](Uint8Array.from(atob(bdata), (character) => character.charCodeAt(0)).buffer);

  const [x, y] = [data.x, data.y].map(unpacked);
  const allRows = Array.from(x.keys());
  const rowNumbers = data.row_numbers ? unpacked(data.row_numbers) : allRows; // of those drawn, in the data
  const heldOut = data.held_out && unpacked(data.held_out);
  const columns = data.columns.map((column) => ({ ...column, values: unpacked(column.values) }));
  const state = { column: columns[0], rows: "all", hidden: new Set() };
  const map = element("map");
  let found = []; // groups of rows, in the order of the legend

  // What is drawn

  const isChosen = (i) => state.rows === "all" || (heldOut[i] === 1) === (state.rows === "held out");

  function groups(chosen) {
    const column = state.column;
    if (!column) return [{ key: "all", color: data.colors.single, rows: chosen }];
    // Where no class has a colour of its own, as with words, there is nothing to tell apart.
    const look = column.own?.length ? { name: "others", color: data.colors.others } : { color: data.colors.single };
    const others = { key: "others", ...look, rows: [] };
    const missing = { key: "missing", name: "none", color: data.colors.missing, rows: [] };
    if (column.kind === "scale") {
      const scale = { key: "scale", scale: column, rows: [] };
      for (const i of chosen) (Number.isFinite(column.values[i]) ? scale : missing).rows.push(i);
      return [scale, missing];
    }
    // 0 stands for no label; classes too small or too many for a colour of their own have one in common.
    const groupOf = [missing, ...column.names.map(() => others)];
    const own = column.own.map((key, k) => {
      const place = column.places?.[k];
      return (groupOf[key + 1] = { key, name: column.names[key], color: column.colors[k], place, rows: [] });
    });
    for (const i of chosen) groupOf[column.values[i]].rows.push(i);
    return [...own, others, missing];
  }

  const isClass = ({ key }) => typeof key === "number";

  function diameter() {
    const area = (map.clientWidth * map.clientHeight) / x.length;
    return Math.min(9, Math.max(2, Math.sqrt((data.ink_share * area * 4) / Math.PI)));
  }

  function trace({ color, rows, scale }, size) {
    const colors = !scale
      ? { color }
      : {
          color: Float32Array.from(rows, (i) => scale.values[i]),
          cmin: scale.min,
          cmax: scale.max,
          colorscale: data.colors.ramp,
        };
    return {
      type: "scattergl",
      mode: "markers",
      x: Float32Array.from(rows, (i) => x[i]),
      y: Float32Array.from(rows, (i) => y[i]),
      customdata: rows,
      marker: { ...colors, size, opacity: x.length > data.many_points ? 0.5 : 0.85 },
      hoverinfo: "none", // the tooltip is ours: it shows any text as it is
    };
  }

  // Beyond a few classes colours alone do not say which is which: they get their names on the map, the largest first,
  // where there is room. More have room when one zooms in.
  function names() {
    const shown = found.filter((each) => isClass(each) && !state.hidden.has(each.key));
    if (!state.column?.places) return [];
    const { xaxis, yaxis } = map.layout;
    const free = [];
    for (const { name, place } of shown.sort(bySize)) {
      const [x, y] = place;
      if (!isWithin(x, xaxis.range) || !isWithin(y, yaxis.range)) continue;
      const text = name.length > data.longest_name ? `${name.slice(0, data.longest_name - 1)}…` : name;
      const [left, top] = [pixels(x, xaxis.range, map.clientWidth), pixels(y, yaxis.range, map.clientHeight)];
      const box = { text, x, y, left, top, half: 4 + 3.5 * text.length };
      if (free.every((other) => Math.abs(left - other.left) > box.half + other.half || Math.abs(top - other.top) > 15))
        free.push(box);
      if (free.length === data.written_classes) break;
    }
    const halo = "0 0 2px #fff, 0 0 2px #fff, 0 0 3px #fff, 0 0 4px #fff";
    const font = { size: 12, color: "#111", shadow: halo };
    return free.map(({ text, x, y }) => ({ x, y, text: escaped(text), showarrow: false, font }));
  }

  const bySize = (a, b) => b.rows.length - a.rows.length;
  const isWithin = (value, [low, high]) => value >= low && value <= high;
  const pixels = (value, [low, high], size) => ((value - low) / (high - low)) * size;

  // Plotly reads tags in text.
  const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  const rowsNow = () => (state.rows === "all" ? allRows : allRows.filter(isChosen));
  const rowsBelow = () => (state.rows === "all" ? [] : allRows.filter((i) => !isChosen(i)));

  function draw() {
    const size = diameter();
    const shown = found.filter(({ key }) => !state.hidden.has(key));
    // Large classes first, so that they do not cover small ones.
    shown.sort(bySize);
    const below = { ...trace({ color: data.colors.missing, rows: rowsBelow() }, size), hoverinfo: "skip" };
    const traces = [below, ...shown.map((each) => trace(each, size))];
    return Plotly.react(map, traces, layout, options).then(writeNames);
  }

  function writeNames() {
    const annotations = names();
    return (annotations.length || map.layout.annotations?.length) && Plotly.relayout(map, { annotations });
  }

  // After another column or other rows were chosen.
  function redraw() {
    found = groups(rowsNow()).filter(({ rows }) => rows.length);
    drawLegend();
    return draw();
  }

  const axis = { visible: false, zeroline: false, showgrid: false };
  const layout = {
    xaxis: axis,
    yaxis: { ...axis, scaleanchor: "x" },
    margin: { l: 8, r: 8, t: 34, b: 8 },
    dragmode: "pan",
    hovermode: "closest",
    hoverdistance: 12,
    showlegend: false,
    uirevision: "map", // what is seen stays when colours change
  };
  const options = {
    scrollZoom: true,
    displayModeBar: true,
    displaylogo: false,
    modeBarButtons: [["zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
  };

  // Legend: a click hides a class or shows it again, a double click leaves it alone on the map

  function drawLegend() {
    const scale = found.find((each) => each.scale)?.scale;
    const named = found.filter(({ name }) => name !== undefined);
    for (const each of named) each.entry = entryOf(each);
    element("legend").replaceChildren(...(scale ? [scaleBar(scale)] : []), ...named.map(({ entry }) => entry));
  }

  function part(tag, className, text = "") {
    const made = document.createElement(tag);
    made.className = className;
    made.textContent = text;
    return made;
  }

  function entryOf({ key, name, color, rows }) {
    const made = part("button", "entry");
    const dot = part("span", "dot");
    dot.style.background = color;
    made.append(dot, part("span", "name", name), part("span", "count", rows.length.toLocaleString("en")));
    made.title = "Click: hide or show. Double click: this one alone, or all.";
    made.type = "button";
    made.setAttribute("aria-pressed", String(!state.hidden.has(key)));
    made.addEventListener("click", ({ detail }) => (detail === 2 ? isolate(key) : toggle(key)));
    return made;
  }

  function toggle(key) {
    if (!state.hidden.delete(key)) state.hidden.add(key);
    show();
  }

  function isolate(key) {
    const others = found.map((each) => each.key).filter((other) => other !== key);
    state.hidden = new Set(others.every((other) => state.hidden.has(other)) ? [] : others);
    show();
  }

  function show() {
    for (const { key, entry } of found) entry?.setAttribute("aria-pressed", String(!state.hidden.has(key)));
    draw();
  }

  function scaleBar({ min, max, below, above }) {
    const made = part("div", "scale");
    const ramp = part("div", "ramp");
    ramp.style.background = `linear-gradient(to right, ${data.colors.ramp.map(([, color]) => color).join(", ")})`;
    const ends = [`${below ? "≤ " : ""}${short(min)}`, `${above ? "≥ " : ""}${short(max)}`];
    made.append(ramp, ...ends.map((end) => part("span", "", end)));
    return made;
  }

  // Tooltip

  const short = (value) => (Number.isFinite(value) ? String(Number(value.toPrecision(4))) : "none");

  function valueOf(column, i) {
    if (column.kind === "scale") return short(column.values[i]);
    return column.values[i] ? column.names[column.values[i] - 1] : "none";
  }

  function textOf(i) {
    const lines = [`row ${rowNumbers[i]}${heldOut && heldOut[i] ? " (held out)" : ""}`];
    const told = columns.filter((column) => column.is_label || (column === state.column && !column.is_held_out));
    return [...lines, ...told.map((column) => `${column.name}: ${valueOf(column, i)}`)].join("\n");
  }

  function showTooltip({ points, event }) {
    const tooltip = element("tooltip");
    tooltip.textContent = textOf(points[0].customdata);
    tooltip.hidden = false;
    const { clientX, clientY } = event.changedTouches ? event.changedTouches[0] : event;
    const { offsetWidth, offsetHeight } = tooltip;
    const left = clientX + 14 + offsetWidth < window.innerWidth ? clientX + 14 : clientX - 14 - offsetWidth;
    tooltip.style.left = `${Math.max(4, left)}px`;
    tooltip.style.top = `${Math.max(4, Math.min(clientY + 14, window.innerHeight - offsetHeight - 4))}px`;
  }

  const hideTooltip = () => (element("tooltip").hidden = true);

  // Controls

  function fill(select, entries, choose) {
    select.replaceChildren(...entries.map(([value, text]) => new Option(text, value)));
    select.addEventListener("change", () => {
      choose(select.value);
      hideTooltip();
      redraw();
    });
  }

  fill(element("column"), columns.map((column, i) => [i, column.name]), (i) => {
    state.column = columns[i];
    state.hidden = new Set();
  });
  fill(element("rows"), [["all", "all"], ["training", "training"], ["held out", "held out"]], (rows) => {
    state.rows = rows;
  });
  element("column-control").hidden = columns.length < 2;
  element("rows-control").hidden = !heldOut;

  redraw().then(() => {
    // Not only with the window: the legend takes more or less room.
    new ResizeObserver(() => Plotly.Plots.resize(map)).observe(map);
    map.on("plotly_hover", showTooltip);
    map.on("plotly_click", showTooltip);
    map.on("plotly_unhover", hideTooltip);
    map.on("plotly_relayouting", hideTooltip);
    map.on("plotly_relayout", (change) => "annotations" in change || writeNames());
    map.dataset.ready = "true";
  });

  // Curves

  const rule = { gridcolor: "#eee", linecolor: "#999", zeroline: false, fixedrange: true };

  function drawCurves(place, { x: xTitle, y: yTitle, is_log, lines }) {
    const traces = lines.map(({ name, color, x, y }) => ({
      type: "scatter",
      mode: y.length > 1 ? "lines" : "markers",
      name,
      x,
      y,
      line: { color, width: 2 },
      marker: { color },
    }));
    const logarithmic = is_log ? { type: "log", dtick: 1 } : {};
    const curveLayout = {
      xaxis: { ...rule, ...logarithmic, title: { text: xTitle, standoff: 6 } },
      yaxis: {
        ...rule,
        title: { text: yTitle, standoff: 8 },
        automargin: true,
        rangemode: is_log ? "tozero" : "normal",
      },
      margin: { l: 56, r: 8, t: 8, b: 44 },
      showlegend: lines.length > 1,
      legend: { x: 0.02, y: 0.02, yanchor: "bottom", bgcolor: "rgba(255,255,255,0.7)" },
      hovermode: "x unified",
      dragmode: false,
    };
    Plotly.newPlot(place, traces, curveLayout, { responsive: true, displayModeBar: false });
  }

  for (const [id, curves] of Object.entries(data.curves)) drawCurves(element(id), curves);
})();
