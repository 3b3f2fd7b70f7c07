// What an explorer shows and how it can be worked, as plain data for the tests: window.explore, in every page they open.
window.explore = (() => {
  const all = (selector, root) => [...root.querySelectorAll(selector)];
  const figure = (name) => document.getElementById(`explore-${name}`);
  const section = (name) => figure(name).querySelector(".vx");
  const isVisible = (element) => element.checkVisibility({ visibilityProperty: true });

  function hash(text) {
    let sum = 0;
    for (let i = 0; i < text.length; i += 1) sum = (Math.imul(sum, 31) + text.charCodeAt(i)) | 0;
    return sum;
  }

  function pixels(canvas) {
    return new Uint32Array(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.buffer);
  }

  const seen = (name) => ({ ...seenIn(figure(name)), fallback: figure(name).querySelector(".vx-fallback") !== null });

  function seenIn(place) {
    const root = place.querySelector(".vx");
    const canvases = all("canvas", root).filter(isVisible).map(pixels);
    const drawings = all("svg", root).filter(isVisible);
    return {
      sentence: root.querySelector(".vx-sentence").textContent,
      state: root.vitcnn.state(),
      painted: hash([...canvases.map((one) => one.join()), ...drawings.map((one) => one.outerHTML)].join()),
      pictures: canvases.length + drawings.length,
      // Drawings over a canvas may be without marks.
      blank: canvases.filter((one) => !one.some(Boolean) || new Set(one).size < Math.min(2, one.length)).length
        + drawings.filter((one) => one.closest(".vx-plot") && !one.childElementCount).length,
      text: root.innerText,
    };
  }

  function arrays(name) {
    return Object.fromEntries(Object.entries(section(name).vitcnn.arrays).map(([key, { shape, codes, flat }]) =>
      [key, { shape, values: Array.from(codes, (_, i) => (Number.isFinite(flat(i)) ? flat(i) : null)) }]));
  }

  // --- by keyboard and by mouse -----------------------------------------------------------------------------------

  // All that can be operated, each group of radio buttons once.
  function controls(name) {
    const found = all("input, select, button, [tabindex='0']", section(name)).filter(isVisible);
    return [...new Set(found.map(describe))];
  }

  function describe(place) {
    const element = place.control ?? place; // of a label, what it stands for
    const words = element.type === "radio" ? element.closest("fieldset").querySelector("legend").textContent
      : element.getAttribute("aria-label") ?? element.labels?.[0]?.textContent ?? element.textContent;
    return `${element.getAttribute("role") ?? element.type}: ${words.replace(/[\d.]+/g, "#")}`; // numbers change
  }

  // Put the focus right before an explorer.
  function enter(name) {
    figure(name).tabIndex = -1;
    figure(name).focus();
  }

  // Where the focus is, if inside: which control, keys that change its value and change it back, is the focus seen.
  function stop(name) {
    const element = document.activeElement;
    if (!section(name).contains(element)) return null;
    const there = { "select-one": "ArrowDown", checkbox: "Space", button: "Enter" }[element.type] ?? "ArrowRight";
    const back = { "select-one": "ArrowUp", checkbox: "Space" }[element.type] ?? "ArrowLeft";
    const keys = element.type === "button" ? [[there, null]] : [[there, back], [back, there]];
    const shown = [element, element.nextElementSibling].filter(Boolean).map((one) => getComputedStyle(one));
    return {
      control: describe(element), keys,
      outlined: shown.some((style) => style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2),
    };
  }

  // Places to click, by control; a click at one of them at least changes the control's value: [control, how many].
  function targets(name) {
    const groups = {};
    for (const [element] of places(name)) groups[describe(element)] = (groups[describe(element)] ?? 0) + 1;
    return Object.entries(groups);
  }

  // Scroll to a control's place; where in the window it then is.
  function aim(name, control, index) {
    const [element, x, y] = places(name).filter(([one]) => describe(one) === control)[index];
    element.scrollIntoView({ block: "center" });
    const box = element.getBoundingClientRect();
    return [box.left + box.width * x, box.top + box.height * y];
  }

  // Which place of a control puts it back where it is now: the button that is pressed; null where there is none.
  function restoring(name, control) {
    const inputs = places(name).map(([one]) => one.control ?? one).filter((one) => describe(one) === control);
    const index = inputs.findIndex((one) => one.type === "checkbox" || (one.type === "radio" && one.checked));
    return index < 0 ? null : index;
  }

  // Elements, and points in fractions of their boxes.
  function places(name) {
    const found = all("input, [role=slider], .vx-body button", section(name)).filter(isVisible);
    return found.flatMap((element) => {
      if (element.type === "radio" || element.type === "checkbox") return [[element.labels[0], 0.5, 0.5]];
      if (element.type === "button") return [[element, 0.5, 0.5]];
      const points = element.type === "range" ? [[0.06, 0.5], [0.94, 0.5]] : [[0.1, 0.8], [0.9, 0.2]];
      return points.map((point) => [element, ...point]);
    });
  }

  // --- how it lies on the page --------------------------------------------------------------------------------------

  function look(name) {
    const root = section(name) ?? figure(name);
    const page = getComputedStyle(document.body).backgroundColor;
    const grounds = [];
    for (let e = root; e && e !== document.body; e = e.parentElement) grounds.push(getComputedStyle(e).backgroundColor);
    return {
      text: getComputedStyle(root).color,
      page,
      grounds: grounds.filter((colour) => colour !== "rgba(0, 0, 0, 0)" && colour !== page),
      top: root.getBoundingClientRect().top,
      overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
      operable: controls(name),
      pictures: all("canvas, svg", root).filter(isVisible).length,
      sentence: all(".vx-sentence", root).filter(isVisible).length,
      toWorkWith: all(".vx-controls, .vx-foot button", root).filter(isVisible).length,
    };
  }

  return { seen, seenIn, arrays, controls, enter, stop, targets, aim, restoring, look };
})();
