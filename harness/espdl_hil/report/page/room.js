// A row's room: what is known of one row, made from the JSON of results.json. Text never becomes markup.

function el(tag, props, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {}))
    if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  made.append(...children.flat().filter(child => child !== null && child !== undefined && child !== ""));
  return made;
}
const some = (list, make) => list && list.length ? make(list) : null;
const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
const part = (title, ...content) => el("section", {}, el("h3", {}, title), ...content);
const list = items => el("ul", {}, items.map(item => el("li", {}, item)));
const figures = pairs => el("dl", {}, pairs.filter(([, v]) => v !== null && v !== undefined && v !== "").flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, v)]));
const AGAINST = { offline: "stream against offline run", interpreter: "device against interpreter", reference: "offline run against esp-ppq" };
const CHECKS = { streaming: AGAINST.offline, interpreter: AGAINST.interpreter, reference: AGAINST.reference };

function copyButton(text) {
  const button = el("button", { type: "button", "data-copy": text }, "Copy the replay command");
  button.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(text); }
    catch {
      const field = el("textarea", {}, text);
      document.body.append(field); field.select(); document.execCommand("copy"); field.remove();
    }
    button.textContent = "Copied";
  });
  return button;
}

function placeText(p) {
  if (!p.first) return p.broken.length ? `Nothing differs where it could be compared; ${plural(p.broken.length, "chunk")} could not be: ${p.broken.slice(0, 8).join(", ")}.` : `All ${plural(p.elements, "element")} equal.`;
  const unit = p.unit ? ` ${p.unit}` : "", f = p.first, w = p.worst;
  const where = p.columns === "chunk" ? `chunk ${f.column}, frame ${f.frame} of the output` : `frame ${f.frame} of the output`;
  return `${p.differing.toLocaleString("en")} of ${plural(p.elements, "element")} ${p.differing === 1 ? "differs" : "differ"}. First: ${where}, channel ${f.channel}: expected ${f.expected}, observed ${f.observed}. Largest: ${+w.size.toPrecision(4)}${unit} in ${p.columns} ${w.column}, channel ${w.channel}.`;
}
const key = (style, text, line) => el("span", {}, el("i", { style, class: line ? "line" : "" }), text);

async function inTurn(draw) {
  for (const one of draw) await one();
}
function folded(title, rows, draw) {  // a chart needs a width, so it is drawn when it is opened
  const made = el("details", { class: "wide" }, el("summary", {}, title), el("div", { class: "grid" }, rows));
  made.addEventListener("toggle", () => { inTurn(draw); draw = []; });
  return made;
}

async function comparison(p, main) {
  const heat = await unpack(p.heat), most = p.worst ? p.worst.size : 0;
  const title = `${AGAINST[p.against]}${p.part === "offline" ? ", whole run" : ""}: ${p.output}`;
  const text = placeText(p);
  const map = el("div", { class: "chart", role: "img", "aria-label": `Heat map of differences, ${p.columns} by channel. ${text}` });
  const keys = el("p", { class: "keys" }, key("background: var(--zero)", "equal"),
    most > 1 ? key(`background: ${hot(0)}`, `1 ${p.unit}`.trim()) : null, most ? key(`background: ${hottest(most)}`, `${+most.toPrecision(4)} ${p.unit}`.trim()) : null,
    p.first ? el("span", {}, "○ first difference") : null, p.worst ? el("span", {}, "□ largest") : null,
    p.skipped_frames ? key("background: var(--skipped)", `skipped, ${plural(p.skipped_frames, "frame")}: no counterpart`) : null,
    p.warmup_frames ? key("background: repeating-linear-gradient(135deg, var(--soft) 0 1px, transparent 1px 4px)", `warm-up, ${plural(p.warmup_frames, "frame")}: predicted values`) : null,
    p.broken.length ? key("background: repeating-linear-gradient(135deg, var(--error) 0 2px, transparent 2px 4px)", "could not be compared") : null);
  const covers = p.bin[0] > 1 || p.bin[1] > 1 ? `A cell shows the worst of ${p.bin[0]} ${p.columns}s × ${plural(p.bin[1], "channel")}. ` : "";
  const picture = el("figure", { class: "wide" }, el("h3", {}, title), el("p", { class: "said" }, text), keys, map,
    el("figcaption", {}, `Largest difference of each ${p.columns} (across) and channel (up). ${covers}Drag to zoom, double-click to leave.`));
  const rows = [picture], later = [() => heatMap(map, heat, p)];
  for (const wave of p.waves) {
    const [expected, difference] = [await unpack(wave.expected), await unpack(wave.difference)];
    const differs = difference.reduce((n, d) => n + (d !== 0), 0), at = difference.findIndex(d => d !== 0);
    const name = `channel ${wave.channel}${wave.other ? `, element ${wave.other} of its frame` : ""}`;
    const window = expected.length < p.frames ? `, frames ${wave.first_frame} to ${wave.first_frame + expected.length - 1} of ${p.frames}` : "";
    const said = differs ? `${plural(differs, "frame")} of ${expected.length} differ${differs === 1 ? "s" : ""}, first frame ${wave.first_frame + at}${p.chunk_frames ? ` (chunk ${Math.floor((wave.first_frame + at) / p.chunk_frames)})` : ""}` : "equal in every frame";
    const place = el("div", { class: "chart", role: "img", "aria-label": `Waveform of ${name}, and its difference below: ${said}` });
    rows.push(el("figure", { class: p.waves.length === 1 ? "wide" : "" }, el("h3", {}, `Waveform of ${name}${window}`), el("p", { class: "keys" }, key("border-color: var(--expected)", "expected", true), key("border-color: var(--observed); border-top-style: dashed", "observed", true), p.chunk_frames ? el("span", {}, "┆ border of a chunk") : null), place, el("figcaption", {}, said[0].toUpperCase() + said.slice(1) + ".")));
    later.push(() => waves(place, wave, expected, difference, p));
  }
  if (p.histogram) {
    const h = p.histogram, equal = p.elements - p.differing, place = el("div", { class: "chart", role: "img", "aria-label": `Histogram of ${p.differing} differences` });
    rows.push(el("figure", {}, el("h3", {}, `Histogram of differences${p.unit ? ", " + p.unit : ""}`), place, el("figcaption", {}, `${plural(p.differing, "element")} differ${p.differing === 1 ? "s" : ""}; the ${equal.toLocaleString("en")} equal ones are left out.`)));
    later.push(() => histogram(place, h, p.unit));
  }
  if (main) return { rows, later };
  return { rows: [rows[0], folded(`Waveforms${p.histogram ? " and histogram" : ""}, ${title}`, rows.slice(1), later.slice(1))], later: later.slice(0, 1) };
}

function budget(b) {
  const parts = [["Quantization", "float → esp-ppq", b.quantization], ["Device", "esp-ppq → device's offline run", b.device], ["Streaming", "offline run → stream", b.streaming], ["Together", "what the parts add or cancel", b.together]];
  const rms = v => `${v < 0 ? "−" : ""}${Math.sqrt(Math.abs(v)).toPrecision(3)}`, most = Math.max(...parts.map(([, , v]) => Math.abs(v)), 1e-30);
  const decibels = b.signal > 0 && b.total > 0 ? `, SQNR ${(10 * Math.log10(b.signal / b.total)).toFixed(1)} dB` : "";
  return el("figure", {}, el("h3", {}, `Error budget of ${b.output}`), el("table", { class: "plain" }, el("thead", {}, el("tr", {}, ["part", `mean square${b.unit ? `, ${b.unit}²` : ""}`, `rms${b.unit ? `, ${b.unit}` : ""}`, "share"].map(t => el("th", { scope: "col" }, t)))),
    el("tbody", {}, parts.map(([name, what, v]) => el("tr", {}, el("td", {}, `${name} `, el("span", { class: "soft" }, what)), el("td", { "data-name": "mean square" }, v.toPrecision(3)), el("td", { "data-name": "rms" }, rms(v)), el("td", {}, el("span", { class: "meter", title: `${b.total ? (100 * v / b.total).toFixed(1) : 0}% of the total` }, el("i", { style: `width: ${100 * Math.abs(v) / most}%` }))))),
      el("tr", {}, el("td", {}, el("strong", {}, "Total "), el("span", { class: "soft" }, "float → stream")), el("td", { "data-name": "mean square" }, b.total.toPrecision(3)), el("td", { "data-name": "rms" }, rms(b.total)), el("td", {})))),
    el("figcaption", {}, `Mean squares add up to the total${decibels}.`));
}

function layers(found, diagnosis) {
  const readers = found.map(() => 0), lanes = [], laneOf = [];
  found.forEach(layer => layer.inputs.forEach(i => readers[i]++));
  const rows = found.map((layer, i) => {
    const before = lanes.slice(), from = layer.inputs.map(j => laneOf[j]).filter(l => l !== undefined);
    layer.inputs.forEach(j => { if (!--readers[j]) lanes[laneOf[j]] = undefined; });
    let own = from.find(l => lanes[l] === undefined);
    if (own === undefined) { own = lanes.findIndex(l => l === undefined); if (own < 0) own = lanes.length; }
    laneOf[i] = own; lanes[own] = readers[i] ? i : undefined;
    return { layer, own, from, through: before.map((v, l) => v !== undefined && (lanes[l] === v) ? l : -1).filter(l => l >= 0 && l !== own), leaves: readers[i] > 0 };
  });
  const width = Math.min(8, Math.max(1, ...rows.map(r => Math.max(r.own, ...r.from, ...r.through, 0) + 1))) * 12 + 4, X = l => Math.min(l, 7) * 12 + 8;
  const svg = r => {
    const NS = "http://www.w3.org/2000/svg", make = (tag, props) => { const e = document.createElementNS(NS, tag); for (const [k, v] of Object.entries(props)) e.setAttribute(k, v); return e; };
    const s = make("svg", { width, height: 26, viewBox: `0 0 ${width} 26`, "aria-hidden": "true" });
    for (const l of r.through) s.append(make("path", { d: `M${X(l)} 0V26` }));
    for (const l of r.from) s.append(make("path", { d: l === r.own ? `M${X(l)} 0V13` : `M${X(l)} 0C${X(l)} 8 ${X(r.own)} 5 ${X(r.own)} 13` }));
    if (r.leaves) s.append(make("path", { d: `M${X(r.own)} 13V26` }));
    s.append(r.layer.keeps ? make("rect", { x: X(r.own) - 5, y: 8, width: 10, height: 10, rx: 2 }) : make("circle", { cx: X(r.own), cy: 13, r: 4.5 }));
    return s;
  };
  const wrong = diagnosis && found.findIndex(l => (diagnosis.tensor && l.tensor === diagnosis.tensor) || (!diagnosis.tensor && diagnosis.node && l.node === diagnosis.node));
  const share = v => v === null ? "" : v === 0 ? "0" : v < 0.0005 ? "<0.1%" : `${(100 * v).toFixed(1)}%`;
  const body = rows.map((r, i) => {
    const l = r.layer, before = l.inputs.map(j => found[j].changes_db).filter(v => v !== null), drop = l.changes_db !== null && before.length ? Math.min(...before) - l.changes_db : 0;
    const diverges = i === wrong;
    return el("tr", { class: [diverges ? "diverges" : "", l.keeps ? "cache" : ""].join(" ").trim() || null },
      el("td", { class: "rail" }, svg(r)),
      el("td", { class: "name" }, el("strong", {}, l.operator), " ", l.made_up ? el("small", {}, "inserted by the exporter") : l.node, l.module ? el("small", {}, ` module ${l.module}`) : null, l.keeps ? el("small", {}, ` keeps ${plural(l.keeps, "frame")} between chunks`) : null, l.output ? el("small", {}, " graph output, compared") : null,
        diverges ? el("strong", { class: "failed" }, ` differs first${diagnosis.chunk !== null && diagnosis.chunk !== undefined ? `: chunk ${diagnosis.chunk}` : ""}${diagnosis.frame !== null && diagnosis.frame !== undefined ? `, frame ${diagnosis.frame} of this tensor` : ""}${diagnosis.channel !== null && diagnosis.channel !== undefined ? `, channel ${diagnosis.channel}` : ""}`) : null),
      el("td", { class: "n wideonly" }, l.frames === null ? "" : String(l.frames)),
      el("td", { class: "n" }, l.changes_db === null ? "" : [el("span", { class: "meter" }, el("i", { style: `width: ${Math.max(0, Math.min(100, l.changes_db))}%` })), " ", l.changes_db.toFixed(1), drop >= 6 ? el("span", { class: "drop" }, ` −${drop.toFixed(0)}`) : null]),
      el("td", { class: "n wideonly" }, share(l.clipped)), el("td", { class: "n wideonly" }, share(l.saturated)));
  });
  const heads = [["", ""], ["layer", ""], ["frames a chunk", "n wideonly"], ["SQNR, dB", "n"], ["clipped", "n wideonly"], ["saturated", "n wideonly"]];
  return el("figure", { class: "wide" }, el("h3", {}, "Layers of the streaming file, from input to output"),
    wrong >= 0 && wrong !== null && wrong !== undefined && diagnosis ? el("p", { class: "said" }, `First divergence: ${found[wrong].operator} ${found[wrong].node}, ${found[wrong].module ? `module ${found[wrong].module}, ` : ""}layer ${wrong} of ${found.length - 1}.`) : null,
    el("div", { class: "layers", tabindex: 0, role: "region", "aria-label": "Layers" }, el("table", {}, el("thead", {}, el("tr", {}, heads.map(([t, c]) => el("th", { scope: "col", class: c || null }, t || el("span", { "aria-hidden": "true" }, ""))))), el("tbody", {}, body))),
    el("figcaption", {}, "A square is a cache that the plan inserted. SQNR: what changes along time, float network against the quantized one; a red figure is what a layer loses (6 dB or more). Clipped: float values beyond the range; saturated: values at its ends."));
}

function checks(row) {
  const shown = Object.entries(CHECKS).map(([name, title]) => [title, row.checks[name]]).filter(([, c]) => c);
  const differ = c => c.differing ? `${c.differing.toLocaleString("en")}${c.max_lsb !== null ? `, at most ${c.max_lsb} LSB` : c.max_relative !== null ? `, at most ${c.max_relative} relative` : ""}` : "none";
  const heads = ["check", "outcome", "compared", "differ", "tolerance"];
  return el("section", { class: "wide" }, el("h3", {}, "Checks and tolerances"), el("table", { class: "plain" }, el("thead", {}, el("tr", {}, heads.map(t => el("th", { scope: "col" }, t)))),
    el("tbody", {}, shown.map(([title, c]) => el("tr", {}, el("td", {}, title), el("td", { class: c.outcome, "data-name": "outcome" }, c.outcome), el("td", { "data-name": "compared" }, `${c.compared.toLocaleString("en")} of ${c.elements.toLocaleString("en")}`), el("td", { "data-name": "differ" }, differ(c)), el("td", { "data-name": "tolerance" }, c.tolerance, c.error ? el("p", { class: c.outcome }, c.error) : null))),
      row.checks.accuracy ? el("tr", {}, el("td", {}, "offline run against the float model"), el("td", { class: row.checks.accuracy.outcome, "data-name": "outcome" }, row.checks.accuracy.outcome), el("td", { "data-name": "outputs" }, Object.entries(row.checks.accuracy.outputs).map(([n, v]) => `${n} ${v.toFixed(1)} dB`).join(", ")), el("td", { "data-name": "keeps" }, `keeps ${row.checks.accuracy.sqnr_db.toFixed(1)} dB, of the changes ${row.checks.accuracy.changes_db.toFixed(1)} dB`), el("td", { "data-name": "tolerance" }, `at least ${row.checks.accuracy.min_sqnr_db} dB`)) : null)));
}

function tolerances(found, quantization) {
  const heads = ["check", "where", "allowed", "used", "kind", "reason"];
  return el("section", { class: "wide" }, el("h3", {}, "Ledger of tolerances"), quantization ? el("p", { class: "soft" }, `Quantized with ${Object.entries(quantization).filter(([, v]) => v && JSON.stringify(v) !== "{}").map(([n, v]) => `${n} ${JSON.stringify(v)}`).join(", ")}.`) : null, el("table", { class: "plain" }, el("thead", {}, el("tr", {}, heads.map(t => el("th", { scope: "col" }, t)))),
    el("tbody", {}, found.map(t => el("tr", {}, heads.map(name => el("td", { "data-name": name }, t[name] || "–")))))));
}

function diagnosed(row) {
  const d = row.diagnosis;
  if (!d) return row.reason ? el("section", { class: "wide" }, el("h3", {}, row.outcome === "error" ? "Why there is no verdict" : "Why it did not pass"), el("pre", {}, row.details.error || row.reason)) : null;
  const place = [["chunk", d.chunk, ""], ["frame", d.frame, " of the tensor"], ["channel", d.channel, ""]].filter(([, v]) => v !== null && v !== undefined).map(([k, v, of]) => `${k} ${v}${of}`).join(", ");
  return el("section", { class: "wide" }, el("h3", {}, "Diagnosis"), figures([["Cause", el("strong", { class: row.outcome }, d.cause)], ["Layer", d.node && `${d.operator} ${d.node}`], ["Module", d.module], ["Begins", place], ["Facts", some(d.facts, list)], ["Next step", d.next_step && el("strong", {}, d.next_step)]]), d.facts ? null : el("pre", {}, d.text));
}

async function fillRoom(place, row, around) {
  const pictures = row.details.pictures, first = [], drawn = [], later = [];
  const worstFirst = (pictures.comparisons || []).slice().sort((a, b) => (b.differing > 0) - (a.differing > 0) || (b.part === "stream") - (a.part === "stream"));
  for (const p of worstFirst) {
    const made = await comparison(p, p === worstFirst[0]);
    (p === worstFirst[0] ? first : drawn).push(...made.rows); later.push(...made.later);
  }
  const timed = pictures.latency_us, deadline = row.real_time_factor ? row.latency_us.median / row.real_time_factor : null;
  const late = timed && deadline ? timed.reduce((n, us) => n + (us > deadline), 0) : 0;
  const limit = deadline && { value: deadline, label: `deadline ${+deadline.toPrecision(4)} µs` };
  const timing = timed && el("div", { class: "chart", role: "img", "aria-label": `Time of each chunk${deadline ? `; ${plural(late, "chunk")} of ${timed.length} later than the deadline` : ""}` });
  if (timed) later.push(() => curve(timing, timed.map((_, i) => i), timed, "chunk", "µs", { least: 0, limit }));
  const l = row.latency_us, task = row.checks.accuracy?.metric, none = `None: the device is ${row.substrate}${row.emulator ? ` (${row.emulator})` : ""}, and only a chip's own figures count.`;
  const grid = el("div", { class: "grid" }, diagnosed(row),
    row.rules.map(rule => el("section", { class: "wide" }, el("h3", {}, `Rule ${rule.id}: ${rule.title}`), el("p", {}, rule.text), el("p", {}, el("strong", {}, "Edit: "), rule.edit))),
    first, (pictures.budget || []).map(budget), some(pictures.layers, found => layers(found, row.diagnosis)), drawn, checks(row), some(row.details.tolerances, found => tolerances(found, row.quantization)),
    el("section", {}, el("h3", {}, "Time of a chunk on the chip"), l ? figures([["Median", `${l.median} µs`], ["95%", `${l.p95} µs`], ["99%", `${l.p99} µs`], ["Longest", `${l.max} µs`], ["Deadline", deadline ? `${+deadline.toPrecision(4)} µs, the time that its frames stand for; ${plural(late, "chunk")} of ${(timed?.length ?? row.chunks).toLocaleString("en")} later` : "none: the model declares no frame_seconds"], ["Real-time factor", row.real_time_factor]]) : el("p", { class: "soft" }, none), timing),
    part("What it takes of the chip", row.resources ? figures(Object.entries(row.resources).map(([name, value]) => [name.replaceAll("_", " "), value === null ? "not measured" : value.toLocaleString("en")])) : el("p", { class: "soft" }, row.substrate === "silicon" ? "Not measured." : none)),
    some(row.details.alignment, found => part("What is compared with what", list(found))),
    part("Fidelity to the float model", figures([["Metric", task && `${task.streamed.toPrecision(4)} streamed, ${task.offline.toPrecision(4)} offline, ${task.float.toPrecision(4)} float model`], ["SQNR", row.sqnr_db === null ? "–" : `${row.sqnr_db.toFixed(2)} dB`], ["Cosine", row.cosine === null ? "–" : row.cosine.toFixed(6)]])),
    some(row.details.findings, found => part("Findings", list(found))), some(row.details.lane_warnings, found => part("20-bit lanes of the S3", list(found))), some(row.details.notes, found => part("Notes", list(found))),
    part("Files", list([...row.bundles.map(path => el("a", { href: path, class: "bundle" }, path)), el("a", { href: "logs/" }, "logs of the devices"), el("a", { href: "results.json" }, "results.json")]), some(Object.entries(row.artifacts), found => figures(found.map(([name, digest]) => [name, el("code", { title: digest }, digest.slice(0, 16))])))),
    some(row.details.replay, found => el("section", { class: "wide" }, el("h3", {}, "Replay"), found.map(text => el("pre", {}, text)))));
  place.replaceChildren(el("header", {}, el("h2", {}, row.id, " ", el("span", { class: row.outcome }, row.outcome), " ", el("span", { class: `tag ${row.substrate}` }, row.substrate)),
    el("div", { class: "doings" }, some(row.details.replay, found => copyButton(found[0])), around)), grid);
  place.hidden = false;
  tidy();
  inTurn(later);
}
