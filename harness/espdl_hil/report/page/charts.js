"use strict";
// Pictures of arrays, drawn by BokehJS, which is expanded for the first of them. Knows numbers and axes, not rows.

const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const TYPES = { "|i1": Int8Array, "<i2": Int16Array, "<i4": Int32Array, "<u2": Uint16Array, "<f4": Float32Array };

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")));
}
const unpack = async packed => new TYPES[packed.dtype](await (await inflate(packed.zlib)).arrayBuffer());

let library;
async function load() {
  const script = document.createElement("script");
  script.textContent = await (await inflate(document.getElementById("bokeh").textContent)).text();
  document.head.append(script);
  Bokeh.logger.set_level("warn");
}

const drawn = new Set();  // charts that a change of colours makes anew
async function chart(place, make) {
  await (library ??= load());
  if (!place.isConnected) return;
  const figures = [make()].flat();
  for (const f of figures) f.on_event("doubletap", () => figures.forEach(other => [other.x_range, other.y_range].forEach(range => range.reset())));
  place.replaceChildren();
  await Bokeh.Plotting.show(figures, place);
  for (const part of place.querySelectorAll("*")) unfocus(part);
  drawn.add({ place, make, close: () => figures[0].document?.clear() });
}
function unfocus(part) {  // a picture has a label and no controls, so the keyboard has nothing to do in it
  if (part.tabIndex === 0) part.tabIndex = -1;
  part.shadowRoot?.querySelectorAll("*").forEach(unfocus);
}
function tidy(again) {
  for (const entry of drawn) {
    if (entry.place.isConnected && !again) continue;
    drawn.delete(entry);
    entry.close();
    if (entry.place.isConnected) chart(entry.place, entry.make);
  }
}
const dark = matchMedia("screen and (prefers-color-scheme: dark)");
const shade = () => document.documentElement.classList.toggle("dark", dark.matches);
shade();
dark.addEventListener("change", () => { if (!matchMedia("print").matches) { shade(); tidy(true); } });
const PAPER = 700;  // CSS pixels that a sheet is wide
addEventListener("beforeprint", () => drawn.forEach(({ place }) => place.style.setProperty("--fits", Math.min(1, PAPER / place.clientWidth))));

// A figure that is as wide as its place. x, y: [label, first, last, {step, places} or null for whole numbers]
function figure(height, x, y) {
  const range = ([, start, end]) => new Bokeh.Range1d({ start, end, bounds: [start, end] });
  const f = Bokeh.Plotting.figure({
    height, sizing_mode: "stretch_width", toolbar_location: null, x_range: range(x), y_range: range(y), tools: [],
    x_axis_label: x[0], y_axis_label: y[0], background_fill_color: null, border_fill_color: null, min_border_left: 62, min_border_right: 8, min_border_top: 6, outline_line_color: css("--grid"), lod_threshold: null,
  });
  const box = new Bokeh.BoxZoomTool({ dimensions: "width" });
  f.add_tools(box);
  f.toolbar.active_drag = matchMedia("(pointer: coarse)").matches ? null : box;  // a finger scrolls the page
  for (const [axes, grid, [, , , fractions]] of [[f.xaxis, f.xgrid, x], [f.yaxis, f.ygrid, y]]) {
    grid.grid_line_color = css("--grid");
    axes.axis_line_color = axes.major_tick_line_color = css("--grid");
    axes.minor_tick_line_color = null;
    axes.major_label_text_color = axes.axis_label_text_color = css("--soft");
    axes.major_label_text_font = axes.axis_label_text_font = getComputedStyle(document.body).fontFamily;
    axes.major_label_text_font_size = "11px"; axes.axis_label_text_font_size = "12px"; axes.axis_label_text_font_style = "normal"; axes.axis_label_standoff = 2;
    if (fractions) continue;
    axes.ticker = grid.ticker = new Bokeh.AdaptiveTicker({ base: 10, mantissas: [1, 2, 5], min_interval: 1, num_minor_ticks: 0 });
    axes.formatter = new Bokeh.NumeralTickFormatter({ format: "0,0" });
  }
  return f;
}
const tips = (renderers, tooltips, mode) => new Bokeh.HoverTool({ renderers, tooltips, mode: mode || "mouse", point_policy: "follow_mouse" });
const marker = (f, shape, x, y) => {  // dark inside light, so that it is seen on any colour
  for (const [color, width] of [["#fff", 4], ["#000", 2]]) f.scatter([x], [y], { marker: shape, size: 13, fill_color: null, line_color: color, line_width: width });
};

const STEPS = 32;
function hot(share) {  // of the way from the smallest difference to the largest
  const full = c => c.length === 4 ? "#" + [...c.slice(1)].map(x => x + x).join("") : c;
  const [from, to] = (share < 0.5 ? ["--hot0", "--hot1"] : ["--hot1", "--hot2"]).map(name => full(css(name)));
  const t = share < 0.5 ? share * 2 : share * 2 - 1;
  return "#" + [1, 3, 5].map(i => parseInt(from.slice(i, i + 2), 16)).map((v, i) => Math.round(v + (parseInt(to.slice(1 + 2 * i, 3 + 2 * i), 16) - v) * t).toString(16).padStart(2, "0")).join("");
}
const hottest = most => most > 1 ? hot(1) : hot(0.35);  // where all that differ are one step off, red and not black

// heat: columns x channels, row by row; p: the picture
function heatMap(place, heat, p) {
  const [columns, channels] = p.shape, [perColumn, perChannel] = p.bin, up = Math.ceil(channels / perChannel), most = p.worst ? p.worst.size : 0;
  const perFrame = p.columns === "chunk" && p.chunk_frames ? 1 / p.chunk_frames : 1, noun = p.columns;
  const cells = { column: [], channel: [], size: [], left: [], right: [], bottom: [], top: [] };
  heat.forEach((size, i) => {
    if (!size) return;
    const c = Math.floor(i / up) * perColumn, k = i % up * perChannel;
    const cell = { column: c, channel: k, size, left: c - 0.5, right: Math.min(c + perColumn, columns) - 0.5, bottom: k - 0.5, top: Math.min(k + perChannel, channels) - 0.5 };
    for (const name in cells) cells[name].push(cell[name]);
  });
  return chart(place, () => {
    const f = figure(Math.min(300, Math.max(130, 64 + channels * 12)), [noun, -0.5, columns - 0.5], ["channel", -0.5, channels - 0.5]);
    f.background_fill_color = css("--zero");
    f.outline_line_color = f.xaxis.axis_line_color = f.yaxis.axis_line_color = css("--soft");
    f.xgrid.grid_line_color = f.ygrid.grid_line_color = null;
    const palette = most > 1 ? Array.from({ length: STEPS }, (_, i) => hot(i / (STEPS - 1))) : [hottest(most)];
    const colour = { field: "size", transform: new Bokeh.LogColorMapper({ palette, low: most > 1 ? 1 : 1e-9, high: Math.max(most, 1) }) };
    const source = new Bokeh.ColumnDataSource({ data: cells });
    const [left, right, bottom, top] = ["left", "right", "bottom", "top"].map(field => ({ field }));
    const quads = f.quad(left, right, bottom, top, { source, fill_color: colour, line_color: colour, line_width: 0.5 });
    const box = (from, to, style) => f.add_layout(new Bokeh.BoxAnnotation({ left: from - 0.5, right: to - 0.5, fill_alpha: 0, line_color: null, ...style }));
    const skip = p.skipped_frames * perFrame, warm = p.warmup_frames * perFrame;
    if (skip) box(0, skip, { fill_color: css("--skipped"), fill_alpha: 1 });
    if (warm) box(skip, skip + warm, { hatch_pattern: "/", hatch_scale: 8, hatch_weight: 1, hatch_color: css("--soft") });
    for (const c of p.broken) box(c, c + 1, { hatch_pattern: "/", hatch_scale: 6, hatch_weight: 2, hatch_color: css("--error") });
    if (p.worst) marker(f, "square", p.worst.column, p.worst.channel);
    if (p.first) marker(f, "circle", p.first.column, p.first.channel);
    f.add_tools(tips([quads], [[noun, "@column"], ["channel", "@channel"], ["difference", `@size{0.[0000]} ${p.unit}`]]));
    return f;
  });
}

const DOTS = 80;  // frames that can be told apart one by one
function waves(place, wave, expected, difference, p) {
  const frames = Array.from(expected, (_, i) => wave.first_frame + i), observed = frames.map((_, i) => expected[i] + difference[i]);
  const ends = [frames[0] - 0.5, frames.at(-1) + 0.5], size = 1.15 * Math.max(1, ...Array.from(difference, Math.abs));
  const [low, high] = [Math.min(...expected, ...observed), Math.max(...expected, ...observed)], room = 0.06 * (high - low || 1), dots = frames.length <= DOTS;
  return chart(place, () => {
    const above = figure(150, ["", ...ends], ["value", low - room, high + room, true]);
    const below = figure(120, ["frame of the output", ...ends], [p.unit ? `diff., ${p.unit}` : "difference", -size, size, !p.unit]);
    below.x_range = above.x_range;
    const source = new Bokeh.ColumnDataSource({ data: { frames, expected: Array.from(expected), observed, difference: Array.from(difference) } });
    const [x, wanted, found, off] = ["frames", "expected", "observed", "difference"].map(field => ({ field }));
    const line = above.line(x, wanted, { source, line_color: css("--expected"), line_width: 3 });
    above.line(x, found, { source, line_color: css("--observed"), line_width: dots ? 1.25 : 1, line_dash: dots ? [4, 3] : [] });
    if (dots) for (const [field, size, color] of [[wanted, 6, "--expected"], [found, 3.5, "--observed"]]) above.scatter(x, field, { source, size, color: css(color) });
    const bars = below.vbar(x, 0.8, off, 0, { source, fill_color: css("--mark"), line_color: null });
    const rows = [["frame", "@frames"], ["expected", "@expected"], ["observed", "@observed"], ["difference", "@difference"]];
    above.add_tools(tips([line], rows, "vline"));
    below.add_tools(tips([bars], rows, "vline"));
    if (p.chunk_frames) {  // borders of chunks, as many as can be told apart
      const every = Math.ceil(frames.length / p.chunk_frames / 60) * p.chunk_frames, ticks = [];
      for (let f = Math.ceil(frames[0] / every) * every; f <= ends[1]; f += every) ticks.push(f - 0.5);
      for (const f of [above, below]) { f.xgrid.ticker = new Bokeh.FixedTicker({ ticks }); f.xgrid.grid_line_color = css("--line"); f.xgrid.grid_line_dash = [3, 3]; }
    }
    return [above, below];
  });
}
function histogram(place, h, unit) {
  const middle = unit ? (h.step - 1) / 2 : h.step / 2, at = h.counts.map((_, i) => h.first + i * h.step + middle);
  return chart(place, () => {
    const f = figure(180, [`observed less expected${unit ? `, ${unit}` : ""}`, at[0] - h.step, at.at(-1) + h.step, !unit], ["elements", 0, 1.1 * Math.max(...h.counts)]);
    const bars = f.vbar(at, 0.9 * h.step, h.counts, 0, { fill_color: css("--mark"), line_color: null });
    f.add_tools(tips([bars], [["difference", "@x"], ["elements", "@top"]]));
    return f;
  });
}
// A figure over numbered things; bad: what is marked of it; limit: {value, label} or null
function curve(place, numbers, values, x, y, { bad, limit, least, span = 0 }) {
  const known = values.filter(v => v !== null), [low, high] = [Math.min(...known, least ?? Infinity), Math.max(...known, limit?.value ?? -Infinity)], room = Math.max(0.08 * (high - low || 1), (span - (high - low)) / 2);
  return chart(place, () => {
    const f = figure(160, [x, numbers[0] - 0.5, numbers.at(-1) + 0.5], [y, least ?? low - room, high + room, true]);
    const gaps = values.map(v => v ?? NaN), line = f.line(numbers, gaps, { color: css("--expected"), line_width: 1.5 });
    if (numbers.length < DOTS) f.scatter(numbers, gaps, { color: css("--expected"), size: 4 });
    if (bad) f.scatter(numbers, values.map((v, i) => bad[i] ? v ?? NaN : NaN), { marker: "diamond", color: css("--failed"), size: 9 });
    if (limit) {
      const above = limit.value < low + 0.5 * (high - low);
      f.add_layout(new Bokeh.Span({ location: limit.value, dimension: "width", line_color: css("--mark"), line_dash: [6, 4], line_width: 1.5 }));
      f.add_layout(new Bokeh.Label({ x: numbers[0], y: limit.value, text: limit.label, text_color: css("--mark"), text_font_size: "12px", text_baseline: above ? "bottom" : "top", y_offset: above ? 3 : -3, x_offset: 4 }));
    }
    f.add_tools(tips([line], [[x, "@x"], [y, "@y{0.[00]}"]], "vline"));
    return f;
  });
}
