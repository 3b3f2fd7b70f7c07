// Figure 6: effective receptive fields of several models at one depth, how they fall off, and how they grow with depth.

const SCALES = { log: "logarithmic", linear: "linear" };
const KINDS = { attention: "attention", mlp: "MLP", residual: "unit" };

function render({ model, el }) {
  const { labels, stops, layers, uniform, sizes, cells, darkest, error } = model.get("header");
  const values = arrays(model);
  const table = colors(model);
  const looks = looksOf(labels);
  const ends = { log: [Math.log10(darkest), 0], linear: [0, 1] };

  const maps = labels.map(() => ({ pixels: h("canvas", { "aria-hidden": "true" }),
    marks: svg("svg", { "aria-hidden": "true" }), head: h("p", { class: "vx-head" }) }));
  const bar = colorBar(table, { label: "", low: 0, high: 1, digits: 3 });
  const profiles = plot({ head: "From the centre outwards", label: "How the fields fall off with the distance from their centre", xLabel: "distance from the centre (px)",
    yLabel: "share of the largest", x: [0, Math.max(...labels.map((_, i) => farthest(i)))] });
  const radii = plot({ head: "Radius with half of the field", label: "The radius with half the field, by depth", xLabel: "depth of the layer, 0 to 1", yLabel: "px",
    x: [0, 1], y: [0, 1.05 * Math.max(...uniform)] });

  // From a centre to the corner farthest from it, in px.
  function farthest(i) {
    const centres = values[`centre_after${i}`];
    const side = (axis) => Math.max(...Array.from({ length: centres.shape[0] }, (_, at) => centres.at(at, axis)).map((one) => Math.max(one, sizes[i][axis] - one)));
    return Math.hypot(side(0), side(1));
  }

  function update(state) {
    const shown = labels.map((label, i) => see(label, i, state));
    shown.forEach((one, i) => paintMap(maps[i], one, state.scale));
    const [low, high] = state.scale === "log" ? [darkest, 1] : [0, 1];
    bar.set(low, high, `share of the largest value, ${SCALES[state.scale]}`);
    drawProfiles(shown, state.scale);
    drawRadii(shown, state);
    return `${capital(state.addition)} the addition. ${shown.map((one) => one.sentence).join(" ")} Scale: ${SCALES[state.scale]}.`;
  }

  // What is shown of one model: `at` is the place of its layer among those measured on this side of the addition.
  function see(label, i, { layer, addition: side }) {
    const facts = layers[side][i];
    const at = nearest(facts.depths, stops[layer]);
    const of = (key) => values[`${key}_${side}${i}`];
    const radius = of("radius").at(at), centre = [0, 1].map((axis) => of("centre").at(at, axis));
    const reach = Number.isFinite(radius)
      ? `half of the field lies within ${fixed(radius, 1)} px of its centre, of a uniform one within ${fixed(uniform[i], 1)} px`
      : "no field, as nothing here depends on the image";
    const share = (row, column) => 10 ** of("map").at(at, row, column);
    return { label, facts, at, of, radius, centre, share, size: sizes[i], cell: cells[i], look: looks[i], words: words(facts, at),
      sentence: `${label} (${words(facts, at)}, depth ${fixed(facts.depths[at])}): ${reach}.` };
  }

  function paintMap({ pixels, marks, head }, { label, at, of, radius, centre, share, size: [height, width], cell, words: name }, scale) {
    const [, rows, columns] = of("map").shape;
    const [low, high] = ends[scale];
    const cellsOver = (side) => Uint16Array.from({ length: side }, (_, pixel) => Math.floor(pixel / cell));
    heat(pixels, { rows, columns, low, high, table, across: cellsOver(width), down: cellsOver(height),
      value: scale === "log" ? (row, column) => of("map").at(at, row, column) : share });
    pixels.style.aspectRatio = `${width} / ${height}`;
    marks.setAttribute("viewBox", `0 0 ${width} ${height}`);
    marks.replaceChildren(...(Number.isFinite(radius) ? ["vx-edge", "vx-frame"] : [])
      .map((name) => svg("circle", { class: name, cx: centre[1], cy: centre[0], r: radius })));
    head.replaceChildren(label, h("small", {}, name));
  }

  function drawProfiles(shown, scale) {
    const [low, high] = ends[scale];
    const y = (value) => (scale === "log" ? Math.log10(Math.max(value, darkest)) : value);
    const lines = shown.map((one) => ({ label: one.label, ...one.look, points: rings(one).map(([r, mean]) => [r, y(mean)]) }));
    const upright = shown.filter(({ radius }) => Number.isFinite(radius))
      .map(({ radius, look }) => ({ color: look.color, dash: DASHED, thin: true, points: [[radius, low], [radius, high]] }));
    const decades = Array.from({ length: Math.round(-ends.log[0]) + 1 }, (_, i) => [-i, String(10 ** -i)]);
    profiles.draw([...lines, ...upright], [], { y: [low, high], yTicks: scale === "log" ? decades : undefined });
  }

  function drawRadii(shown, { addition: side, layer }) {
    const lines = shown.flatMap(({ label, facts, of, look, at }) => {
      // After the addition all are states of one residual stream; what the branches add differs by kind.
      const kinds = side === "before" ? [...new Set(facts.kinds)] : [null];
      const points = facts.depths.map((x, i) => [x, of("radius").at(i), facts.kinds[i]]);
      return [{ color: look.color, dots: true, points: [points[at]] }, ...kinds.map((kind, i) => ({ ...look, thin: true, dash: i ? DASHED : look.dash,
        label: kinds.length > 1 ? `${label}, ${KINDS[kind] ?? kind}` : label, points: points.filter((one) => kind === null || one[2] === kind) }))];
    });
    // One for each size of image; the place that counts as the middle differs a little from model to model.
    const even = uniform.filter((_, i) => sizes.findIndex((size) => String(size) === String(sizes[i])) === i)
      .map((radius, i) => ({ label: i ? undefined : "uniform field", color: GREY, dash: DASHED, points: [[0, radius], [1, radius]] }));
    radii.draw([...lines, ...even], [stops[layer]]);
  }

  const coarse = Math.max(...cells);
  return mount({
    model, el,
    controls: [
      depthSlider(model),
      choice(model, { name: "addition", label: "Residual addition" }),
      choice(model, { name: "scale", label: "Scale" }),
    ],
    body: [
      h("div", { class: "vx-maps" }, ...maps.map(({ pixels, marks, head }) =>
        h("div", {}, head, h("div", { class: "vx-field" }, pixels, marks)))),
      h("div", { class: "vx-wide" }, bar.element),
      profiles.element,
      radii.element,
    ],
    update,
    notes: "Each model shows its layer nearest to the chosen depth; blocks count from 0. Each map is the whole image; the circle, and the upright line in its "
      + `profile, enclose half of the field. ${coarse > 1 ? `Maps are means over up to ${coarse} × ${coarse} pixels. ` : ""}`
      + `Colours within ${fixed(100 * error, 1)}\u00a0% of the measured values.`,
  });
}

// 'attention 2, blocks.2.attn'
function words({ kinds, blocks, names }, i) {
  const title = KINDS[kinds[i]] ? `${KINDS[kinds[i]]} ${blocks[i]}` : kinds[i];
  return title === names[i] ? title : `${title}, ${names[i]}`;
}

// Mean share over rings around the centre, each a cell wide: [[distance in px, mean], …].
function rings({ of, share, centre: [cy, cx], cell }) {
  const [, rows, columns] = of("map").shape;
  const sums = [], counts = [];
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const ring = Math.floor(Math.hypot((row + 0.5) * cell - cy, (column + 0.5) * cell - cx) / cell);
      sums[ring] = (sums[ring] ?? 0) + share(row, column);
      counts[ring] = (counts[ring] ?? 0) + 1;
    }
  }
  return Array.from(sums, (sum, ring) => [(ring + 0.5) * cell, sum / counts[ring]]);
}

export default { render };
