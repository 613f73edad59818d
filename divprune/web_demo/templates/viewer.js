// Draws images with the places of their kept tokens, for the page with a model and for the exported one.
// An element of class "dp-overlay" holds in data-overlay what `overlay_data` returns.
const divprune = (() => {
  const SVG = "http://www.w3.org/2000/svg";
  const HINT = "Point at a patch, or focus an image and press the arrow keys: picks in their order.";
  const drawn = new WeakMap();
  let numbered = 0;
  let keepRatio = null;

  const create = (name, attributes, parent) => {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    parent.append(element);
    return element;
  };

  const within = (name, parent, text = "", className = "") => {
    const element = document.createElement(name);
    element.textContent = text;
    element.className = className;
    parent.append(element);
    return element;
  };

  const keptOf = (data, item) => {
    if (!item.counts || keepRatio === null) return item.order.length;
    const step = Math.min(Math.max(Math.round(keepRatio * data.steps), 1), item.counts.length);
    return Math.min(item.counts[step - 1], item.order.length);
  };

  const placesOf = (item, position) => {
    const firsts = item.boxes.filter(Boolean).map((box) => box[0]).filter((frame) => frame <= position);
    const encoded = Math.max(...firsts, -1);
    // Small patches lie on top, where the pointer reaches them.
    return item.order
      .map((token, index) => ({ token, pick: index + 1, box: item.boxes[token] }))
      .filter(({ box }) => box && box[0] === encoded)
      .sort((a, b) => b.box[3] * b.box[4] - a.box[3] * a.box[4] || a.pick - b.pick);
  };

  const drawFrame = (view, item, position, root) => {
    const frame = item.frames[position];
    const figure = within("figure", root);
    const svg = create("svg", { viewBox: `0 0 ${frame.width} ${frame.height}` }, figure);
    svg.classList.toggle("dp-pixelated", frame.pixelated);
    const mask = create("mask", { id: `dp-mask-${numbered++}` }, svg);
    create("rect", { width: "100%", height: "100%", fill: "white" }, mask);
    const attributes = { href: frame.source, width: frame.width, height: frame.height, preserveAspectRatio: "none" };
    create("image", attributes, svg);
    create("rect", { width: "100%", height: "100%", class: "dp-veil", mask: `url(#${mask.id})` }, svg);
    const marks = placesOf(item, position).map(({ token, pick, box: [, x, y, width, height] }) => {
      const place = { x, y, width, height };
      const hole = create("rect", { ...place, class: "dp-hole" }, mask);
      const patch = create("g", { class: "dp-patch", "data-pick": pick, "data-token": token }, svg);
      create("rect", place, patch);
      const size = 0.52 * Math.min(width, height);
      create("text", { x: x + width / 2, y: y + height / 2, "font-size": size }, patch).textContent = pick;
      patch.addEventListener("pointerenter", () => point(view, item, pick));
      patch.addEventListener("pointerleave", () => point(view, item, 0));
      return { pick, hole, patch };
    });
    const title = within("figcaption", figure, frame.title);
    reachByKeys(view, item, svg, frame.title);
    return { svg, marks, title };
  };

  const reachByKeys = (view, item, svg, title) => {
    const fixed = { tabindex: 0, role: "slider", "aria-label": `${title}: kept tokens in the order of picking` };
    for (const [key, value] of Object.entries(fixed)) svg.setAttribute(key, value);
    svg.addEventListener("keydown", (event) => {
      const now = item.pointed || 0;
      const most = keptOf(view.data, item);
      const places = { ArrowRight: now + 1, ArrowUp: now + 1, ArrowLeft: now - 1, ArrowDown: now - 1, Home: 1, End: most };
      if (!(event.key in places)) return;
      event.preventDefault();
      point(view, item, Math.min(Math.max(places[event.key], 1), most));
    });
    svg.addEventListener("blur", () => point(view, item, 0));
  };

  const point = (view, item, pick) => {
    item.pointed = pick;
    const most = keptOf(view.data, item);
    const words = pick ? `pick ${pick} of ${most}: token ${item.order[pick - 1]} of ${item.boxes.length}` : HINT;
    view.readout.textContent = words;
    for (const { svg, marks } of item.drawn) {
      for (const mark of marks) mark.patch.classList.toggle("dp-pointed", mark.pick === pick);
      svg.setAttribute("aria-valuenow", pick);
      svg.setAttribute("aria-valuetext", pick ? words : "none");
    }
  };

  const update = (view) => {
    let kept = 0;
    let total = 0;
    for (const item of view.data.items) {
      const most = keptOf(view.data, item);
      for (const { svg, marks } of item.drawn) {
        svg.setAttribute("aria-valuemin", 0);
        svg.setAttribute("aria-valuemax", most);
        for (const { pick, hole, patch } of marks) {
          hole.style.display = patch.style.display = pick <= most ? "" : "none";
        }
      }
      point(view, item, 0);
      kept += most;
      total += item.boxes.length;
    }
    view.root.dataset.kept = kept;
    view.count.textContent = `${kept} of ${total} tokens kept (${((100 * kept) / total).toFixed(1)} %)`;
    view.note.textContent = noteOf(view.data);
  };

  const noteOf = (data) => {
    const hidden = data.items.reduce((sum, item) => {
      return sum + item.order.slice(0, keptOf(data, item)).filter((token) => !item.boxes[token]).length;
    }, 0);
    const parts = data.nested ? [] : ["Not nested: this method is asked anew at every keep ratio."];
    if (hidden) parts.push(`${hidden} of the kept tokens have no place in the image, or it is not known.`);
    return parts.join(" ");
  };

  // Draws a method's picks into an element, in the place of what is there.
  const draw = (root, data) => {
    root.replaceChildren();
    const view = { root, data };
    view.count = within("p", root, "", "dp-count");
    const frames = within("div", root, "", "dp-frames");
    frames.classList.toggle("dp-many", data.items.some((item) => item.frames.length > 1));
    for (const item of data.items) {
      item.drawn = item.frames.map((_, position) => drawFrame(view, item, position, frames));
    }
    view.readout = within("p", root, HINT, "dp-readout");
    view.readout.setAttribute("aria-hidden", "true");
    view.note = within("p", root, "", "dp-note");
    drawn.set(root, view);
    update(view);
  };

  const slide = (ratio) => {
    keepRatio = Number(ratio);
    for (const root of document.querySelectorAll(".dp-overlay")) {
      if (drawn.has(root)) update(drawn.get(root));
    }
  };

  const drawAll = () => {
    for (const root of document.querySelectorAll(".dp-overlay[data-overlay]")) {
      const text = root.dataset.overlay;
      if (drawn.get(root)?.text === text && root.childElementCount) continue;
      if (root.dataset.ratio) keepRatio ??= Number(root.dataset.ratio);
      draw(root, JSON.parse(text));
      drawn.get(root).text = text;
    }
  };

  const copy = async (button) => {
    const code = button.closest(".dp-copy").querySelector("pre");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "Copied";
    } catch {
      // Without the right to write there, the text is at least marked.
      getSelection().selectAllChildren(code);
      button.textContent = "Press Ctrl-C";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  };

  // A page that is put together by another script: whatever it adds is drawn when it comes.
  const watch = () => {
    new MutationObserver(drawAll).observe(document.documentElement, {
      childList: true, subtree: true, attributes: true, attributeFilter: ["data-overlay"],
    });
    document.addEventListener("click", (event) => {
      const button = event.target.closest?.(".dp-copy button");
      if (button) copy(button);
    });
    drawAll();
  };

  return { draw, slide, watch };
})();
