"""The fixed parts of the HTML page: its look and the little script that sorts tables.

The page must work from a file, offline, without script and on paper; nothing is loaded from
anywhere. The script only reorders rows.
"""

from __future__ import annotations

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --ink: #1b1f24; --faint: #57606a; --line: #d8dee4; --shade: #f4f6f8;
  --bad: #c8102e; --good: #0b6b3a; --link: #1f5f99;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181d; --ink: #e8ebee; --faint: #a3adb8; --line: #333b44; --shade: #1d232a;
    --bad: #ff6b6b; --good: #6fd39b; --link: #8ec5f4;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif;
}
main { max-width: 1240px; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .4rem; text-wrap: balance; }
h1.bad { color: var(--bad); }
h2 { font-size: 1.15rem; margin: 2rem 0 .4rem; }
article + article { margin-top: 3rem; padding-top: 2rem; border-top: 3px double var(--line); }
p, ul { margin: .3rem 0; max-width: 76ch; overflow-wrap: anywhere; }
ul { padding-left: 1.2rem; }
li { margin: .2rem 0; }
a { color: var(--link); }
.facts { color: var(--faint); font-size: .9rem; margin: 0; max-width: none; }
.banner {
  border: 2px solid var(--bad); color: var(--bad); font-weight: 700; padding: .4rem .8rem;
  margin: 0 0 1rem; max-width: none; border-radius: 4px; letter-spacing: .04em;
}
blockquote {
  margin: .5rem 0; padding: .4rem .8rem; border-left: 3px solid var(--line);
  color: var(--ink); background: var(--shade); font: .85rem/1.5 ui-monospace, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere; max-width: 100ch;
}
figure { margin: 1rem 0; }
figure img { width: 100%; height: auto; display: block; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .9rem 0; font-size: .9rem; width: 100%; }
caption { text-align: left; font-weight: 600; padding: .2rem 0; }
th, td {
  text-align: left; padding: .28rem .7rem .28rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: break-word; min-width: 3.5rem;
}
td:first-child:not(.figure) { min-width: 11rem; }
td.figure + td:not(.figure), th.figure + th:not(.figure) { padding-left: 1rem; }
td.short:not(:first-child) { white-space: nowrap; }
td.long { overflow-wrap: anywhere; min-width: 16rem; }
thead th { color: var(--faint); font-weight: 600; vertical-align: bottom; }
td.figure, th.figure { text-align: right; font-variant-numeric: tabular-nums; }
td.figure { white-space: nowrap; }
tr.rest td { color: var(--faint); }
tr.failed td:first-child { color: var(--bad); font-weight: 600; }
th button {
  all: unset; cursor: pointer; color: inherit; font: inherit; border-bottom: 1px dotted;
}
th button:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
.note { color: var(--faint); font-size: .85rem; }
footer { margin-top: 3rem; color: var(--faint); font-size: .85rem; }
@media print {
  :root {
    --paper: #ffffff; --ink: #000000; --faint: #444444; --line: #bbbbbb; --shade: #f4f4f4;
    --bad: #a00020; --link: #000000;
  }
  body { font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  table { font-size: 8pt; }
  th, td { padding-right: .4rem; min-width: 0; }
  td:first-child:not(.figure), td.short:not(:first-child) { white-space: nowrap; }
td.long { min-width: 0; overflow-wrap: anywhere; }
  figure, tr { break-inside: avoid; }
  h2, caption { break-after: avoid; }
  .scroll { overflow: visible; }
  article + article { break-before: page; border-top: 0; }
}
"""

SCRIPT = """
"use strict";
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const figures = head.classList.contains("figure");
      const now = head.getAttribute("aria-sort");
      const down = now ? now === "ascending" : figures;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => {
        const cell = row.cells[column];
        if (!figures) return cell.textContent;
        return cell.dataset.order === undefined ? null : Number(cell.dataset.order);
      };
      const rows = [...table.tBodies[0].rows];
      rows.sort((left, right) => {
        const a = key(left), b = key(right);
        if (a === null || b === null) return (a === null) - (b === null);
        const order = figures ? a - b : a.localeCompare(b, undefined, {numeric: true});
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}
"""
