// Without script the page is complete; with it, other numbers of tokens are shown, and the picks can be replayed.
const controls = document.querySelector(".controls");
const slider = document.getElementById("picks");
const shown = document.getElementById("shown");
controls.hidden = false;
controls.addEventListener("submit", (event) => event.preventDefault());
controls.addEventListener("change", (event) => {
  if (event.target.name !== "view") return;
  for (const part of document.querySelectorAll("[data-view]")) {
    part.toggleAttribute("hidden", part.dataset.view !== event.target.value);
  }
});
slider.addEventListener("input", () => {
  const share = slider.value / 100;
  for (const overlay of document.querySelectorAll(".overlay")) {
    const last = Math.round(share * Number(overlay.dataset.kept));
    for (const mark of overlay.querySelectorAll("[data-pick]")) {
      mark.style.display = Number(mark.dataset.pick) <= last ? "" : "none";
    }
  }
  shown.textContent = share === 1 ? "all" : `first ${slider.value} %`;
});
for (const name of ["numbers", "plain"]) {
  document.getElementById(name).addEventListener("change", (event) => {
    document.body.classList.toggle(name, event.target.checked);
  });
}
// One stop of the tab key a drawing; arrow keys go from pick to pick.
for (const overlay of document.querySelectorAll(".overlay")) {
  const patches = [...overlay.querySelectorAll(".kept")].sort((a, b) => a.dataset.pick - b.dataset.pick);
  patches.forEach((patch, place) => {
    patch.setAttribute("tabindex", place ? -1 : 0);
    patch.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const next = { Home: 0, End: patches.length - 1 }[event.key] ?? (step && place + step);
      if (next === undefined || !patches[next]) return;
      event.preventDefault();
      patch.setAttribute("tabindex", -1);
      patches[next].setAttribute("tabindex", 0);
      patches[next].focus();
    });
  });
}
