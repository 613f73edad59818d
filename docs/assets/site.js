// A filter above every long table: rows stay that hold all the words typed. On the page of models, ticks too.
(function () {
  "use strict";
  const LONG = 12;

  function plain(text) {
    return text.toLowerCase();
  }

  function filtered(table, modes) {
    const rows = Array.from(table.tBodies[0].rows);
    const texts = rows.map((row) => plain(row.textContent));
    const box = document.createElement("div");
    box.className = "filter";
    const field = document.createElement("input");
    field.type = "search";
    field.placeholder = "Filter the rows";
    field.setAttribute("aria-label", "Filter the rows of the table below");
    const found = document.createElement("output");
    box.append(field, found);

    function apply() {
      const words = plain(field.value).split(/\s+/).filter(Boolean);
      const wanted = modes ? Array.from(modes.querySelectorAll("input:checked"), (tick) => tick.value) : [];
      let shown = 0;
      rows.forEach((row, place) => {
        const works = (row.dataset.works || "").split("|");
        const stays =
          words.every((word) => texts[place].includes(word)) && wanted.every((mode) => works.includes(mode));
        row.hidden = !stays;
        shown += stays ? 1 : 0;
      });
      found.textContent = `${shown} of ${rows.length}`;
    }

    field.addEventListener("input", apply);
    if (modes) {
      modes.addEventListener("change", apply);
    }
    apply();
    return box;
  }

  function start() {
    for (const table of document.querySelectorAll("article table")) {
      if (table.tBodies.length && table.tBodies[0].rows.length >= LONG) {
        const modes = document.querySelector("details.modes");
        const own = modes && "filtered" in table.dataset ? modes : null;
        const scrolled = table.closest(".md-typeset__scrollwrap") || table;
        scrolled.before(filtered(table, own));
        if (own) {
          own.hidden = false;
        }
      }
    }
  }

  // The theme's search has no name, and its wide tables cannot be scrolled by keys.
  function reachable() {
    document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
    for (const table of document.querySelectorAll(".md-typeset__scrollwrap")) {
      if (table.scrollWidth > table.clientWidth) {
        table.tabIndex = 0;
      }
    }
  }

  document.addEventListener("DOMContentLoaded", start);
  window.addEventListener("load", () => requestAnimationFrame(reachable));
})();
