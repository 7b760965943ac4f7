// The page: filters and the open row, both in the URL behind #.

(() => {
  const room = document.getElementById("room"), form = document.getElementById("filter");
  if (!form) return;
  const cells = [...document.querySelectorAll(".cell")], byId = new Map(cells.map(cell => [cell.dataset.id, cell]));
  const texts = new Map(cells.map(cell => [cell, cell.getAttribute("aria-label").toLowerCase()]));
  const weakest = new Map(cells.map(cell => [cell, cell.lastElementChild.textContent]));
  let lines = null, shownRow = null;
  const state = () => new URLSearchParams(location.hash.slice(1));
  const go = (change, push) => {
    const next = state();
    for (const [name, value] of Object.entries(change)) value ? next.set(name, value) : next.delete(name);
    const url = `#${next}`;
    if (url === location.hash) return;
    push ? location.hash = url : history.replaceState(null, "", url);
  };

  const apply = () => {
    const wanted = [...new FormData(form)].filter(([name, value]) => value && name !== "figure"), figure = form.elements.figure.value;
    let shown = 0;
    for (const cell of cells) {
      cell.hidden = !wanted.every(([name, value]) => name === "text" ? value.toLowerCase().split(/\s+/).every(word => texts.get(cell).includes(word)) : cell.dataset[name] === value);
      cell.lastElementChild.textContent = figure ? cell.dataset[figure] : weakest.get(cell);
      shown += !cell.hidden;
    }
    for (const row of document.querySelectorAll("#matrix tbody tr")) row.hidden = !row.querySelector(".cell:not([hidden])");
    document.getElementById("shown").textContent = shown === cells.length ? plural(shown, "row") : `${shown} of ${cells.length} rows`;
    document.getElementById("none").hidden = shown > 0;
  };
  const open = async (id, focus) => {
    const cell = byId.get(id);
    document.querySelector(".cell[aria-current]")?.removeAttribute("aria-current");
    if (!cell) { room.hidden = true; shownRow = null; return; }
    cell.setAttribute("aria-current", "true");
    if (shownRow !== id) {
      shownRow = id;
      lines ??= document.getElementById("rooms").textContent.trim().split(/\s+/);
      const row = JSON.parse(await (await inflate(lines[cell.dataset.n])).text());
      const bad = cells.filter(other => other.dataset.outcome !== "passed").map(other => other.dataset.id), at = bad.indexOf(id);
      const link = (text, to) => to && to !== id ? el("a", { href: `#row=${encodeURIComponent(to)}` }, text) : null;
      const close = el("button", { type: "button" }, "Close");
      close.addEventListener("click", () => { go({ row: "" }, true); cell.focus(); });
      await fillRoom(room, row, [link("Previous not passed", at > 0 ? bad[at - 1] : null), link("Next not passed", bad[at + 1]), close]);
    }
    if (focus) { room.focus({ preventScroll: true }); room.scrollIntoView({ block: "start" }); }
  };
  document.addEventListener("click", event => {  // a link to a row keeps the filters
    const link = event.target.closest('a[href^="#row="]');
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    const row = decodeURIComponent(link.getAttribute("href").slice(5));
    row === state().get("row") ? open(row, true) : go({ row }, true);
  });
  const read = () => { for (const field of form.elements) if (field.name) field.value = state().get(field.name) || ""; apply(); };
  form.addEventListener("input", () => { apply(); go(Object.fromEntries(new FormData(form)), false); });
  form.addEventListener("submit", event => event.preventDefault());
  addEventListener("hashchange", () => { read(); open(state().get("row"), true); });
  read();
  const bad = cells.find(cell => cell.dataset.outcome !== "passed");
  requestAnimationFrame(() => setTimeout(() => { const asked = state().get("row"); open(asked || bad?.dataset.id, !!asked); }));
})();
