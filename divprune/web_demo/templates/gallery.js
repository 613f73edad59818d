// The exported page: everything was answered beforehand, and stands in the page.
const data = JSON.parse(document.getElementById("data").textContent);
const named = (id) => document.getElementById(id);
const choices = { scene: 0, question: 0, ratio: Math.max(data.keep_ratios.indexOf(0.098), 0) };

const element = (name, parent, text = "", properties = {}) => {
  const made = Object.assign(document.createElement(name), properties);
  if (text) made.textContent = text;
  parent.append(made);
  return made;
};

const runOf = (method) => {
  const { runs } = data.scenes[choices.scene].questions[choices.question];
  return runs.find((run) => run.method === method && run.keep_ratio === data.keep_ratios[choices.ratio]);
};

const bytesText = (bytes) => (bytes >= 2 ** 20 ? `${(bytes / 2 ** 20).toPrecision(3)} MiB` : `${(bytes / 2 ** 10).toPrecision(3)} KiB`);

const card = (parent, title, answer, kept, bytes, question) => {
  const section = element("section", parent, "", { className: "dp-answer" });
  element("h2", section, title);
  const mark = question.expected === null ? "" : answer === question.expected ? "✓ " : "✗ ";
  element("p", section, mark + (answer || "(no answer)"), { className: "dp-text" });
  const terms = element("dl", section);
  const rows = { "visual tokens": `${kept} of ${data.scenes[choices.scene].num_visual_tokens}`, "KV cache of the prompt": bytesText(bytes) };
  for (const [name, value] of Object.entries(rows)) {
    element("dt", terms, name);
    element("dd", terms, value);
  }
};

const showAnswers = (methods) => {
  const scene = data.scenes[choices.scene];
  const question = scene.questions[choices.question];
  const root = named("answers");
  root.replaceChildren();
  const right = question.expected === null ? "" : ` Right: ${question.expected}.`;
  element("p", root, `“${question.prompt}”${right}`, { className: "dp-asked" });
  const cards = element("div", root, "", { className: "dp-answers" });
  card(cards, "unpruned", question.unpruned.answer, scene.num_visual_tokens, question.unpruned.kv_cache_bytes, question);
  for (const [letter, method] of Object.entries(methods)) {
    const run = runOf(method);
    card(cards, `${letter}: ${method} at ${run.keep_ratio}`, run.answer, run.num_kept, run.kv_cache_bytes, question);
  }
};

const showOverlay = (root, method) => {
  const scene = data.scenes[choices.scene];
  const item = { frames: [scene.frame], boxes: scene.boxes, order: scene.orders[runOf(method).order], counts: null };
  divprune.draw(root, { method, items: [item], nested: data.methods.find(({ name }) => name === method).nested });
};

const show = () => {
  const methods = { A: named("method-a").value, B: named("method-b").value };
  named("ratio-value").textContent = data.keep_ratios[choices.ratio];
  named("ratio").setAttribute("aria-valuetext", `${data.keep_ratios[choices.ratio]}`);
  showAnswers(methods);
  showOverlay(named("overlay-a"), methods.A);
  showOverlay(named("overlay-b"), methods.B);
};

const fillQuestions = () => {
  named("question").replaceChildren();
  for (const [index, { prompt }] of data.scenes[choices.scene].questions.entries()) {
    element("option", named("question"), prompt, { value: index });
  }
  choices.question = 0;
};

for (const [index, { frame }] of data.scenes.entries()) {
  const label = element("label", named("scenes"), "", { className: "scene" });
  const input = element("input", label, "", { type: "radio", name: "scene", value: index, checked: index === 0 });
  element("img", label, "", { src: frame.source, alt: frame.title });
  input.addEventListener("change", () => {
    choices.scene = index;
    fillQuestions();
    show();
  });
}
for (const [id, first] of [["method-a", 0], ["method-b", Math.min(1, data.methods.length - 1)]]) {
  for (const [index, { name }] of data.methods.entries()) {
    element("option", named(id), name, { value: name, selected: index === first });
  }
  named(id).addEventListener("change", show);
}
named("question").addEventListener("change", (event) => {
  choices.question = Number(event.target.value);
  show();
});
Object.assign(named("ratio"), { max: data.keep_ratios.length - 1, value: choices.ratio });
named("ratio").addEventListener("input", (event) => {
  choices.ratio = Number(event.target.value);
  show();
});
document.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
fillQuestions();
show();
