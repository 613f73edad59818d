// Without script the page is complete; with it, the picks can be replayed.
const controls = document.querySelector(".controls");
const slider = document.getElementById("picks");
const shown = document.getElementById("shown");
controls.hidden = false;
slider.addEventListener("input", () => {
  const share = slider.value / 100;
  for (const svg of document.querySelectorAll("figure svg")) {
    const marks = svg.querySelectorAll("[data-pick]");
    const last = share * Number(svg.dataset.kept);
    for (const mark of marks) mark.style.display = Number(mark.dataset.pick) <= Math.round(last) ? "" : "none";
  }
  shown.textContent = share === 1 ? "all" : `first ${slider.value} %`;
});
document.getElementById("numbers").addEventListener("change", (event) => {
  document.body.classList.toggle("numbered", event.target.checked);
});
