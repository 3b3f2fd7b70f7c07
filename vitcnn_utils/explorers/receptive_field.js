// Figure 6: effective receptive fields of several models at one depth, how they fall off, and how they grow with depth.

function render({ model, el }) {
  const { labels, steps, layers, uniform, darkest, farthest, largest, choices, error, averaged } = model.get("header");
  const values = arrays(model);
  const table = colors(model, "inferno");
  const ends = { log: [Math.log10(darkest), 0], linear: [0, 1] };
  let shown = [];

  const maps = labels.map(() => ({ pixels: h("canvas", { "aria-hidden": "true" }),
    marks: svg("svg", { "aria-hidden": "true" }), head: h("p", { class: "vx-head" }) }));
  const bar = colorBar(table, { label: "", low: 0, high: 1, digits: 3 });
  const profiles = plot({ label: "How the fields fall off with the distance from their centre", xLabel: "distance from the centre (px)",
    yLabel: "share of the largest", x: [0, farthest] });
  const sizes = plot({ label: "The radius with half the field, by depth", xLabel: "depth of the layer, 0 to 1", yLabel: "px",
    x: [0, 1], y: [0, largest] });

  function update(state) {
    const { depth, shown: nearest } = steps[state.layer];
    shown = labels.map((label, i) => see(label, i, state.addition, nearest[state.addition][i]));
    shown.forEach((one, i) => paintMap(maps[i], one, state.scale));
    const [low, high] = state.scale === "log" ? [darkest, 1] : [0, 1];
    bar.set(low, high, `share of the largest value, ${SCALES[state.scale]}`);
    drawProfiles(state.scale);
    drawSizes(state.addition, depth);
    return `Near depth ${fixed(depth)}, ${state.addition} the addition. ${shown.map((one) => one.sentence).join(" ")} `
      + `Scale: ${SCALES[state.scale]}.`;
  }

  // What is shown of one model: `at` is the place of its layer among those measured on this side of the addition.
  function see(label, i, side, at) {
    const facts = layers[side][i];
    const of = (key) => values[`${key}_${side}${i}`];
    const radius = of("radius").at(at);
    const reach = Number.isFinite(radius)
      ? `half of the field lies within ${fixed(radius, 1)} px of its centre, of a uniform one within ${fixed(uniform[i], 1)} px`
      : "no field, as nothing here depends on the image";
    return { label, facts, at, of, radius, color: LINES[i], sentence: `${label} (${facts.words[at]}): ${reach}.` };
  }

  function paintMap({ pixels, marks, head }, { label, facts, at, of, radius }, scale) {
    const map = of("map");
    const [, rows, columns] = map.shape;
    const [low, high] = ends[scale];
    const value = scale === "log" ? (row, column) => map.at(at, row, column) : (row, column) => 10 ** map.at(at, row, column);
    heat(pixels, { rows, columns, value, low, high, table });
    pixels.style.aspectRatio = `${facts.size[1]} / ${facts.size[0]}`;
    marks.setAttribute("viewBox", `0 0 ${facts.size[1]} ${facts.size[0]}`);
    const [cy, cx] = [0, 1].map((axis) => of("centre").at(at, axis));
    marks.replaceChildren(...(Number.isFinite(radius) ? ["vx-edge", "vx-frame"] : [])
      .map((name) => svg("circle", { class: name, cx, cy, r: radius })));
    head.replaceChildren(label, h("small", {}, facts.words[at]));
  }

  function drawProfiles(scale) {
    const [low, high] = ends[scale];
    const y = (share) => (scale === "log" ? Math.log10(Math.max(share, darkest)) : share);
    const lines = shown.map(({ label, of, at, color }) => {
      const profile = of("profile");
      return { label, color, points: Array.from({ length: profile.shape[1] }, (_, r) => [r + 0.5, y(profile.at(at, r))]) };
    });
    const radii = shown.filter(({ radius }) => Number.isFinite(radius))
      .map(({ radius, color }) => ({ color, dashed: true, thin: true, points: [[radius, low], [radius, high]] }));
    const decades = Array.from({ length: Math.round(-ends.log[0]) + 1 }, (_, i) => [-i, String(10 ** -i)]);
    profiles.draw([...lines, ...radii], [], { y: [low, high], yTicks: scale === "log" ? decades : undefined });
  }

  function drawSizes(side, depth) {
    const lines = shown.flatMap(({ label, facts, of, color, at }) => {
      // After the addition all are states of one residual stream; what the branches add differs by kind.
      const kinds = side === "before" ? [...new Set(facts.kinds)] : [null];
      const points = facts.depths.map((x, i) => [x, of("radius").at(i), facts.kinds[i]]);
      const here = { color, dots: true, points: [points[at]] };
      return [here, ...kinds.map((kind, i) => ({ color, thin: true, dashed: i > 0,
        label: kinds.length > 1 ? `${label}, ${kind}` : label, points: points.filter((one) => kind === null || one[2] === kind) }))];
    });
    // One for each size of image; the place that counts as the middle differs a little from model to model.
    const even = uniform.filter((_, i) => layers[side].findIndex(({ size }) => String(size) === String(layers[side][i].size)) === i)
      .map((radius, i) => ({ label: i ? undefined : "uniform field", color: LINES[5], dashed: true, points: [[0, radius], [1, radius]] }));
    sizes.draw([...lines, ...even], [depth]);
  }

  const sides = choices.addition.length > 1
    ? [choice(model, { name: "addition", label: "Residual addition", options: choices.addition.map((side) => [side, side]) })] : [];
  return mount({
    model, el, title: "How much of the image does one place depend on?",
    controls: [
      slider(model, { name: "layer", label: "Depth", text: (i) => fixed(steps[i].depth) }),
      ...sides,
      choice(model, { name: "scale", label: "Scale", options: choices.scale.map((scale) => [scale, scale]) }),
    ],
    body: [
      h("div", { class: "vx-maps" }, ...maps.map(({ pixels, marks, head }) =>
        h("div", {}, head, h("div", { class: "vx-field" }, pixels, marks)))),
      h("div", { class: "vx-wide" }, bar.element),
      h("div", {}, h("p", { class: "vx-head" }, "From the centre outwards"), profiles.element),
      h("div", {}, h("p", { class: "vx-head" }, "Radius with half of the field"), sizes.element),
    ],
    update,
    notes: "Each map is the whole image; the circle, and the upright line in its profile, enclose half of the field. "
      + `${averaged > 1 ? `Maps are means over ${Number(averaged.toFixed(1))} × ${Number(averaged.toFixed(1))} pixels. ` : ""}`
      + `Colours within ${fixed(100 * error, 1)}\u00a0% of the measured values.`,
  });
}

const SCALES = { log: "logarithmic", linear: "linear" };

export default { render };
