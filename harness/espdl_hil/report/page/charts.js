"use strict";
// Pictures of arrays, drawn by uPlot. Knows numbers and axes, not rows.

const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const TYPES = { "|i1": Int8Array, "<i2": Int16Array, "<i4": Int32Array, "<u2": Uint16Array, "<f4": Float32Array };

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")));
}
const unpack = async packed => new TYPES[packed.dtype](await (await inflate(packed.zlib)).arrayBuffer());

const redraws = new Set();  // charts that a change of width or colours makes anew
function chart(place, height, options, data) {
  const make = () => {
    place.replaceChildren();
    const axis = { stroke: css("--soft"), grid: { stroke: css("--grid"), width: 1 }, ticks: { stroke: css("--grid"), width: 1 }, font: "11px system-ui, sans-serif", labelFont: "12px system-ui, sans-serif", labelSize: 18, labelGap: 0 };
    const given = options();
    given.axes = given.axes.map(own => ({ ...axis, ...own }));
    new uPlot({ width: Math.max(200, place.clientWidth), height, legend: { show: false }, cursor: { drag: { x: true, y: false }, points: { show: false } }, ...given }, data, place);
  };
  let width = place.clientWidth;
  make();
  redraws.add({ place, make: force => { if (force || place.clientWidth !== width) { width = place.clientWidth; make(); } } });
}
function redraw(force) {
  for (const entry of redraws) entry.place.isConnected ? entry.make(force) : redraws.delete(entry);
}
addEventListener("resize", () => redraw(false));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw(true));

const whole = (u, splits) => splits.map(v => Number.isInteger(v) ? String(v) : "");
const wholes = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];

function mixed(a, b, t) {
  const [p, q] = [a, b].map(c => [1, 3, 5].map(i => parseInt(c.slice(i, i + 2), 16)));
  return p.map((v, i) => Math.round(v + (q[i] - v) * t));
}
const full = c => c.length === 4 ? "#" + [...c.slice(1)].map(x => x + x).join("") : c;
function heatColour(value, most) {  // logarithmic: one step is seen beside a thousand
  if (!value) return mixed(full(css("--zero")), full(css("--zero")), 0);
  const least = Math.min(1, most), t = most > least ? Math.log(Math.max(value, least) / least) / Math.log(most / least) : 0.35;
  return t < 0.5 ? mixed(css("--hot0"), css("--hot1"), t * 2) : mixed(css("--hot1"), css("--hot2"), t * 2 - 1);
}

function hatch(ctx, x, y, w, h, colour, gap) {
  ctx.save(); ctx.beginPath(); ctx.rect(x, y, w, h); ctx.clip(); ctx.strokeStyle = colour; ctx.lineWidth = devicePixelRatio;
  ctx.beginPath();
  for (let at = x - h; at < x + w; at += gap * devicePixelRatio) { ctx.moveTo(at, y + h); ctx.lineTo(at + h, y); }
  ctx.stroke(); ctx.restore();
}

// heat: columns x channels, row by row; p: the picture
function heatMap(place, heat, p) {
  const [columns, channels] = p.shape, [perColumn, perChannel] = p.bin;
  const across = Math.ceil(columns / perColumn), up = Math.ceil(channels / perChannel), most = p.worst ? p.worst.size : 0;
  const perFrame = p.columns === "chunk" && p.chunk_frames ? 1 / p.chunk_frames : 1;
  const paint = u => {
    const { ctx } = u, image = new ImageData(across, up), memo = new Map();
    for (let c = 0; c < across; c++) for (let k = 0; k < up; k++) {
      const value = heat[c * up + k];
      if (!memo.has(value)) memo.set(value, heatColour(value, most));
      image.data.set([...memo.get(value), 255], ((up - 1 - k) * across + c) * 4);
    }
    const canvas = new OffscreenCanvas(across, up);
    canvas.getContext("2d").putImageData(image, 0, 0);
    const X = v => u.valToPos(v, "x", true), Y = v => u.valToPos(v, "y", true);
    const left = X(-0.5), right = X(across * perColumn - 0.5), top = Y(up * perChannel - 0.5), bottom = Y(-0.5);
    ctx.save();
    ctx.beginPath(); ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height); ctx.clip();
    ctx.imageSmoothingEnabled = false;
    ctx.drawImage(canvas, left, top, right - left, bottom - top);
    const skip = p.skipped_frames * perFrame, warm = p.warmup_frames * perFrame;
    if (skip) { ctx.fillStyle = css("--skipped"); ctx.fillRect(left, top, X(skip - 0.5) - left, bottom - top); }
    if (warm) hatch(ctx, X(skip - 0.5), top, X(skip + warm - 0.5) - X(skip - 0.5), bottom - top, css("--soft"), 6);
    for (const c of p.broken) hatch(ctx, X(c - 0.5), top, X(c + 0.5) - X(c - 0.5), bottom - top, css("--error"), 4);
    if (p.worst) mark(ctx, X(p.worst.column), Y(p.worst.channel), false);
    if (p.first) mark(ctx, X(p.first.column), Y(p.first.channel), true);
    ctx.restore();
    ctx.strokeStyle = css("--soft"); ctx.lineWidth = devicePixelRatio; ctx.strokeRect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
  };
  const noun = p.columns;
  chart(place, Math.min(300, Math.max(130, 64 + channels * 12)), () => ({
    scales: { x: { time: false, range: (u, a, b) => a == null || b - a < 1e-9 ? [-0.5, columns - 0.5] : [Math.max(-0.5, a), Math.min(columns - 0.5, b)] }, y: { range: [-0.5, channels - 0.5] } },
    series: [{}, { show: true, stroke: "transparent", points: { show: false } }],
    axes: [{ label: noun, incrs: wholes, values: whole, grid: { show: false }, size: 30 }, { label: "channel", incrs: wholes, values: whole, grid: { show: false }, size: 42 }],
    hooks: { draw: [paint], setCursor: [u => {
      const c = Math.round(u.posToVal(u.cursor.left, "x")), k = Math.round(u.posToVal(u.cursor.top, "y"));
      const value = heat[Math.floor(c / perColumn) * up + Math.floor(k / perChannel)];
      place.title = u.cursor.left >= 0 && value !== undefined ? `${noun} ${c}, channel ${k}: ${+value.toPrecision(4)} ${p.unit}` : "";
    }] },
  }), [[-0.5, columns - 0.5], [0, channels - 1]]);
}
function mark(ctx, x, y, round) {  // dark inside light, so that it is seen on any colour
  const r = 6 * devicePixelRatio;
  for (const [colour, width] of [["#fff", 4], ["#000", 2]]) {
    ctx.strokeStyle = colour; ctx.lineWidth = width * devicePixelRatio;
    ctx.beginPath(); round ? ctx.arc(x, y, r, 0, 7) : ctx.rect(x - r, y - r, 2 * r, 2 * r); ctx.stroke();
  }
}

function borders(p) {  // vertical lines between chunks, as many as can be told apart
  return u => {
    if (!p.chunk_frames) return;
    const { ctx } = u, { min, max } = u.scales.x, every = Math.ceil((max - min) / p.chunk_frames / 60) * p.chunk_frames;
    ctx.save(); ctx.strokeStyle = css("--line"); ctx.lineWidth = devicePixelRatio; ctx.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.beginPath();
    for (let f = Math.ceil((min + 0.5) / every) * every; f <= max; f += every) { const x = u.valToPos(f - 0.5, "x", true); ctx.moveTo(x, u.bbox.top); ctx.lineTo(x, u.bbox.top + u.bbox.height); }
    ctx.stroke(); ctx.restore();
  };
}
function waves(place, below, wave, expected, difference, p) {
  const frames = Array.from(expected, (_, i) => wave.first_frame + i);
  const observed = Array.from(expected, (v, i) => v + difference[i]);
  const range = [frames[0] - 0.5, frames.at(-1) + 0.5], size = Math.max(1, ...Array.from(difference, Math.abs));
  const scale = { time: false, range: (u, a, b) => a == null || b - a < 1e-9 || (a === frames[0] && b === frames.at(-1)) ? range : [a, b] };
  const sync = { key: `wave${Math.random()}` }, dots = frames.length <= 80;
  const clear = [borders(p)];
  chart(place, 150, () => ({
    cursor: { sync, drag: { x: true, y: false } }, scales: { x: scale },
    series: [{}, { stroke: css("--expected"), width: 3, points: { show: dots, size: 6, fill: css("--expected") } }, { stroke: css("--observed"), width: dots ? 1.25 : 1, dash: dots ? [4, 3] : undefined, points: { show: dots, size: 3.5, fill: css("--observed") } }],
    axes: [{ incrs: wholes, values: whole, size: 24 }, { label: "value", size: 50 }], hooks: { drawClear: clear },
  }), [frames, Array.from(expected), observed]);
  chart(below, 110, () => ({
    cursor: { sync, drag: { x: true, y: false } }, scales: { x: scale, y: { range: [-size * 1.15, size * 1.15] } },
    series: [{}, { stroke: css("--mark"), fill: css("--mark"), width: 1, paths: uPlot.paths.bars({ size: [0.8, 24, 2] }), points: { show: false } }],
    axes: [{ label: "frame of the output", incrs: wholes, values: whole, size: 26 }, { label: p.unit ? `diff., ${p.unit}` : "diff.", size: 50, space: 18, incrs: p.unit ? wholes : undefined, values: p.unit ? whole : undefined }], hooks: { drawClear: clear },
  }), [frames, Array.from(difference)]);
}
function histogram(place, h, unit) {
  const at = h.counts.map((_, i) => h.first + (i + (h.step > 1 ? 0.5 : 0)) * h.step);
  const shown = h.counts.map((n, i) => at[i] === 0 && h.step === 1 ? null : n);
  const half = h.step / 2, last = at.at(-1);
  chart(place, 170, () => ({
    scales: { x: { time: false, range: [at[0] - half - h.step, last + half + h.step] }, y: { range: (u, a, b) => [0, (b || 1) * 1.1] } },
    series: [{}, { stroke: css("--mark"), fill: css("--mark"), paths: uPlot.paths.bars({ size: [0.9, 40] }), points: { show: false } }],
    axes: [{ label: unit ? `observed less expected, ${unit}` : "observed less expected", incrs: unit ? wholes : undefined, size: 26 }, { label: "elements", size: 50, incrs: wholes, values: whole }],
  }), [at, shown]);
}
function latencies(place, samples, deadline) {
  const numbers = samples.map((_, i) => i);
  chart(place, 150, () => ({
    scales: { x: { time: false }, y: { range: (u, a, b) => [0, Math.max(b, deadline || 0) * 1.1] } },
    series: [{}, { stroke: css("--expected"), width: 1.5, points: { show: samples.length < 80, size: 4 } }, { show: !!deadline, stroke: css("--mark"), dash: [6, 4], width: 1.5, points: { show: false } }],
    axes: [{ label: "chunk", incrs: wholes, values: whole, size: 26 }, { label: "µs", size: 54 }],
  }), [numbers, samples, samples.map(() => deadline || null)]);
}
