// Figures 9 and 10: how alike one token is to every patch of the input, in several models; and how that runs over depth.

const NO_PATCH = 255;

function render({ model, el }) {
  const { labels, layers, depths, grids, chances, steps, curves, scales, limits, ranges, choices, error } = model.get("header");
  const values = arrays(model);
  const table = colors(model, "magma");
  const finest = [choices.row, choices.column];
  const pixels = labels.length > 1 && layers.some(([first]) => first === "pixels")
    ? "One scale for all is that of the models; raw pixels may lie above it. " : "";
  const of = (key, i) => values[`${key}${i}`];
  let view = [];

  const maps = labels.map((label, i) => tokenMap(i));
  const lines = plot({ label: "How well tokens localise, by depth", xLabel: "depth of the layer, 0 to 1", yLabel: "", x: [0, 1], y: [0, 1] });
  const lineName = h("p", { class: "vx-head" });

  function tokenMap(i) {
    const [rows, columns] = grids[i];
    const token = picker({
      label: `Token of ${labels[i]}, on its map of CKA with each patch`, rows, columns,
      get: () => view[i].at,
      set: (row, column) => change(model, { row: cellAt(row, rows, finest[0]), column: cellAt(column, columns, finest[1]) }),
      text: () => `token (${view[i].at.join(", ")}) ${view[i].found}`,
      hover: (row, column) => {
        readout.textContent = row === null ? view[i].numbers
          : `patch (${row}, ${column}): CKA ${fixed(of("map", i).at(view[i].layer, ...view[i].at, row, column), 3)}`;
      },
    });
    token.pixels.style.aspectRatio = `${columns} / ${rows}`;
    const head = h("p", { class: "vx-head" });
    const bar = colorBar(table, { label: "CKA", low: 0, high: 1, digits: 2 });
    const readout = h("p", { class: "vx-readout" });
    return { token, head, bar, readout, element: h("div", {}, head, token.element, bar.element, readout) };
  }

  // What the state means for one model.
  function see(state, i) {
    const layer = steps[state.layer].shown[i];
    const at = [cellAt(state.row, finest[0], grids[i][0]), cellAt(state.column, finest[1], grids[i][1])];
    const [own, others] = ["own", "others"].map((key) => of(key, i).at(layer, ...at));
    const peak = [0, 1].map((axis) => of("peak", i).at(layer, ...at, axis));
    const numbers = `contrast ${fixed(own - others, 3)}: own patch ${fixed(own, 3)}, others ${fixed(others, 3)}`;
    return { layer, at, peak, numbers, found: foundInWords(at, peak, own - others) };
  }

  function update(state) {
    view = labels.map((_, i) => see(state, i));
    maps.forEach((map, i) => paintMap(map, i, state));
    drawLines(state);
    const parts = view.map(({ layer, at, found }, i) => {
      const place = String(grids[i]) === String(finest) ? "" : `, ${token(at, grids[i]).toLowerCase()}`;
      return `${labels[i]} (${layers[i][layer]}${place}): ${found}.`;
    });
    return `${token([state.row, state.column], finest)}, near depth ${fixed(steps[state.layer].depth)}. ${parts.join(" ")} `
      + `Line plot: ${curves[state.curve]}. Colours: ${scales[state.scale]}.`;
  }

  function paintMap({ token: picked, head, bar, readout }, i, state) {
    const { layer, at, peak, numbers } = view[i];
    const [rows, columns] = grids[i];
    const value = (row, column) => of("map", i).at(layer, ...at, row, column);
    const [low, high] = state.scale === "common" ? limits : ends(value, rows, columns);
    heat(picked.pixels, { rows, columns, low, high, table, value });
    frame(picked.marks, rows, columns, [{ row: at[0], column: at[1] }]);
    if (peak[0] !== NO_PATCH) {
      picked.marks.append(...["vx-edge", "vx-frame"].map((name) => svg("ellipse", { class: name, cx: peak[1] + 0.5, cy: peak[0] + 0.5, rx: 0.25, ry: 0.25 })));
    }
    head.replaceChildren(labels[i], h("small", {}, ` ${layers[i][layer]}, depth ${fixed(depths[i][layer])}, ${rows} × ${columns}`));
    bar.set(low, high);
    picked.sync(state);
    readout.textContent = numbers;
  }

  function drawLines({ curve, layer }) {
    const series = labels.flatMap((label, i) => {
      const color = LINES[i];
      const y = (l) => (curve === "token" ? of("own", i).at(l, ...view[i].at) - of("others", i).at(l, ...view[i].at) : of(curve, i).at(l));
      const points = depths[i].map((depth, l) => [depth, y(l)]);
      const chance = curve === "found" ? [{ color, thin: true, dashed: true, points: [[0, chances[i]], [1, chances[i]]] }] : [];
      return [{ label, color, points }, { color, dots: true, points: [points[view[i].layer]] }, ...chance];
    });
    lineName.textContent = `${curves[curve]}${curve === "found" ? " (dashed: chance)" : ""}`;
    lines.draw(series, [steps[layer].depth], { y: ranges[curve], yLabel: curve === "found" ? "share of tokens" : "CKA, own − others" });
  }

  return mount({
    model, el, title: "Does a token still know its place?",
    controls: [
      slider(model, { name: "layer", label: "Depth", text: (step) => fixed(steps[step].depth) }),
      choice(model, { name: "scale", label: "Colours", options: choices.scale.map((one) => [one, scales[one]]) }),
      choice(model, { name: "curve", label: "Line plot", options: choices.curve.map((one) => [one, curves[one]]) }),
    ],
    body: [
      h("div", { class: "vx-maps" }, ...maps.map((map) => map.element)),
      h("div", {}, lineName, lines.element),
    ],
    update,
    notes: `Choose a token by click or arrow keys on any map. Frame: its own patch; ring: the patch most similar to it. Contrast: CKA with its own patch less the mean of the others. ${pixels}Values of the maps within ${fixed(error, 3)} of the measured ones.`,
  });
}

const token = ([row, column], [rows, columns]) => `Token (${row}, ${column}) of ${rows} × ${columns}`;

function foundInWords(at, peak, contrast) {
  if (peak[0] === NO_PATCH) return "no values, as nothing here differs between the images";
  const away = Math.max(...at.map((place, axis) => Math.abs(place - peak[axis])));
  const where = away ? `patch (${peak.join(", ")}), ${away} ${away === 1 ? "patch" : "patches"} away` : "its own patch";
  return `most similar to ${where}, contrast ${fixed(contrast, 3)}`;
}

// The lowest and the highest value of a map, 0 and 1 where there is none.
function ends(value, rows, columns) {
  const all = Array.from({ length: rows * columns }, (_, i) => value(Math.floor(i / columns), i % columns)).filter(Number.isFinite);
  return all.length ? [Math.min(...all), Math.max(...all)] : [0, 1];
}

export default { render };
