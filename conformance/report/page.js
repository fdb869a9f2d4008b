"use strict";
(() => {
  const $ = (sel, at = document) => at.querySelector(sel);
  const $$ = (sel, at = document) => [...at.querySelectorAll(sel)];

  // order puts arrows into a table's head, and says in which direction the column is to be sorted now; 0 is the order of the file.
  const order = (th) => {
    const next = { none: 1, ascending: -1, descending: 0 }[th.ariaSort || "none"];
    for (const other of $$("th", th.parentNode)) other.ariaSort = "none";
    th.ariaSort = { 1: "ascending", "-1": "descending", 0: "none" }[next];
    return next;
  };
  const compare = (a, b) => {
    const x = parseFloat(a), y = parseFloat(b);
    if (!isNaN(x) && !isNaN(y)) return x - y;
    if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1;
    return 0;
  };

  // Plain tables.
  for (const table of $$("table.sortable")) {
    const body = $("tbody", table);
    const rows = $$("tr", body);
    $$("th", table).forEach((th, i) => $("button", th).addEventListener("click", () => {
      const dir = order(th);
      const value = (row) => row.cells[i].dataset.v ?? row.cells[i].textContent.trim();
      const number = th.dataset.kind === "number";
      const by = number ? (a, b) => compare(value(a).replaceAll(",", ""), value(b).replaceAll(",", "")) : (a, b) => value(a).localeCompare(value(b));
      body.append(...(dir === 0 ? rows : [...rows].sort((a, b) => dir * by(a, b))));
      table.classList.toggle("sorted", dir !== 0);
    }));
    const filter = table.closest("section").querySelector(".rowfilter");
    if (filter) filter.addEventListener("input", () => {
      const want = filter.value.toLowerCase();
      for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(want);
    });
  }

  // The matrix: each property is a tbody of two rows, the second one with its details.
  const matrix = $("#matrix");
  if (!matrix) return;
  const groups = $$("tbody.group", matrix), props = $$("tbody.prop", matrix), all = $$("tbody", matrix);
  const tools = $("#tools"), q = $("#q"), status = $("#status"), promise = $("#promise"), differs = $("#differs"), focus = $("#focus");
  const texts = new Map(props.map((p) => [p, p.textContent.toLowerCase() + " " + $$("td[title]", p).map((c) => c.title.toLowerCase()).join(" ")]));
  let sorted = 0;

  const show = () => {
    const words = q.value.toLowerCase().split(/\s+/).filter(Boolean);
    let n = 0;
    for (const p of props) {
      p.hidden = !(words.every((w) => texts.get(p).includes(w)) &&
        (!status.value || p.dataset.statuses.split(" ").includes(status.value)) &&
        (!promise.value || p.dataset.promises.split(" ").includes(promise.value)) &&
        (!differs || !differs.checked || "differs" in p.dataset));
      if (!p.hidden) n++;
    }
    for (const g of groups) {
      let any = false;
      for (let p = all[all.indexOf(g) + 1]; p && p.classList.contains("prop"); p = all[all.indexOf(p) + 1]) any ||= !p.hidden;
      g.hidden = sorted !== 0 || !any;
    }
    matrix.classList.toggle("flat", sorted !== 0);
    $("#shown").textContent = n === props.length ? `${n} properties` : `${n} of ${props.length} properties`;
  };
  tools.addEventListener("input", show);
  tools.addEventListener("submit", (e) => e.preventDefault());
  tools.addEventListener("reset", () => setTimeout(() => { figures(); show(); }));

  // Figures are those of one broker at a time.
  const chosen = () => (focus ? +focus.value : 0);
  const cellOf = (p, i) => p.rows[0].cells[1 + i];
  const figures = () => {
    for (const p of props) {
      const list = cellOf(p, chosen()).dataset.f.split("|");
      $$("td.fig", p.rows[0]).forEach((td, i) => {
        const [tone, text] = (list[i] || ":").split(":");
        td.className = "fig " + tone;
        td.textContent = text;
      });
    }
    for (const c of $$("thead th[data-broker]", matrix)) c.classList.toggle("focus", !!focus && +c.dataset.broker === chosen());
  };
  if (focus) focus.addEventListener("change", figures);
  figures();

  for (const th of $$("thead th", matrix)) {
    $("button", th).addEventListener("click", () => {
      sorted = order(th);
      const value = {
        name: (p) => p.id,
        rank: (p) => cellOf(p, +th.dataset.broker).dataset.rank,
        figure: (p) => $$("td.fig", p.rows[0])[+th.dataset.figure].textContent.replaceAll(",", ""),
      }[th.dataset.sort];
      const dir = th.dataset.sort === "figure" ? -sorted : sorted; // the largest first
      const by = th.dataset.sort === "name" ? (a, b) => value(a).localeCompare(value(b)) : (a, b) => compare(value(a), value(b));
      matrix.append(...(sorted === 0 ? all : [...props].sort((a, b) => dir * by(a, b))));
      show();
    });
  }

  const open = (p, on) => {
    p.rows[1].hidden = !on;
    p.classList.toggle("opened", on);
    $("button.open", p).ariaExpanded = String(on);
  };
  for (const p of props) $("tr", p).addEventListener("click", () => open(p, p.rows[1].hidden));

  const pick = (select, value) => {
    tools.reset();
    setTimeout(() => { select.value = value; show(); $("#properties").scrollIntoView(); });
  };
  for (const b of $$("button[data-promise]")) b.addEventListener("click", () => pick(promise, b.dataset.promise));
  for (const b of $$("button[data-status]")) b.addEventListener("click", () => pick(status, b.dataset.status));

  // A link to a property opens it.
  const follow = () => {
    const p = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!p || !p.classList.contains("prop")) return;
    tools.reset();
    setTimeout(() => { show(); open(p, true); p.scrollIntoView(); });
  };
  addEventListener("hashchange", follow);
  show();
  follow();
})();
