// Figures 9 and 10: how alike one token is to every patch of the input, in several models; and how that runs over depth.

const NO_PATCH = 255;
const CURVES = { token: "contrast of this token", mean: "mean contrast of all tokens", found: "share of tokens that find their patch" };
const SCALES = { own: "each map its own scale", common: "one scale for all" };

function render({ model, el }) {
  const { labels, layers, depths, grids, stops, choices, error } = model.get("header");
  const values = arrays(model);
  const table = colors(model);
  const looks = looksOf(labels);
  const finest = [choices.row, choices.column];
  const of = (key, i) => values[`${key}${i}`];
  const contrast = (i, layer, at) => of("own", i).at(layer, ...at) - of("others", i).at(layer, ...at);
  // Pixels are as like themselves as can be: on their scale no model's map would show anything.
  const isPixels = (i) => layers[i][0] === "pixels";
  const scaled = labels.map((_, i) => i).filter((i) => !isPixels(i) || labels.every((_, j) => isPixels(j)));
  const common = extent(scaled.flatMap((i) => extent(of("map", i).values())));
  const ranges = { token: fromZero(labels.flatMap((_, i) => of("own", i).values().map((own, k) => own - of("others", i).flat(k)))),
    mean: fromZero(labels.flatMap((_, i) => of("mean", i).values())), found: [0, 1] };
  let view = [];

  const maps = labels.map((label, i) => gridMap(table, {
    label: `Token of ${label}, on its map of CKA with each patch`, bar: "CKA", digits: 2,
    get: () => view[i].at,
    set: (...at) => {
      const [row, column] = placeOn(at, grids[i], finest);
      change(model, { row, column });
    },
    text: () => `token (${view[i].at.join(", ")}) ${view[i].found}`,
    say: (row, column) => `patch (${row}, ${column}): CKA ${fixed(of("map", i).at(view[i].layer, ...view[i].at, row, column), 3)}`,
    rest: () => view[i].numbers,
  }));
  const lines = plot({ label: "How well tokens localise, by depth", xLabel: "depth of the layer, 0 to 1", x: [0, 1] });

  // What the state means for one model.
  function see(state, i) {
    const layer = nearest(depths[i], stops[state.layer]);
    const at = placeOn([state.row, state.column], finest, grids[i]);
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
      const place = String(grids[i]) === String(finest) ? "" : `; ${placeInWords(at, grids[i])}`;
      return `${labels[i]} (${layerInWords(layers[i], depths[i], layer)}${place}): ${found}.`;
    });
    return `${capital(placeInWords([state.row, state.column], finest))}. ${parts.join(" ")} Line plot: ${CURVES[state.curve]}. Colours: ${SCALES[state.scale]}.`;
  }

  function paintMap(map, i, state) {
    const { layer, at, peak } = view[i];
    const [rows, columns] = grids[i];
    const value = (row, column) => of("map", i).at(layer, ...at, row, column);
    const [low, high] = state.scale === "common" ? common : extent(cellsOf(rows, columns, value));
    map.paint(state, { rows, columns, low, high, value, chosen: at });
    if (peak[0] !== NO_PATCH) {
      map.marks.append(...["vx-edge", "vx-frame"].map((name) => svg("ellipse", { class: name, cx: peak[1] + 0.5, cy: peak[0] + 0.5, rx: 0.25, ry: 0.25 })));
    }
    map.head.replaceChildren(labels[i], h("small", {}, ` ${layerInWords(layers[i], depths[i], layer)}, ${rows} × ${columns}`));
  }

  function drawLines({ curve, layer }) {
    const series = labels.flatMap((label, i) => {
      const points = depths[i].map((depth, l) => [depth, curve === "token" ? contrast(i, l, view[i].at) : of(curve, i).at(l)]);
      const chance = of("chance", i).at(0), { color } = looks[i];
      return [{ label, ...looks[i], points }, { color, dots: true, points: [points[view[i].layer]] },
        ...(curve === "found" ? [{ color, thin: true, dash: DASHED, points: [[0, chance], [1, chance]] }] : [])];
    });
    lines.draw(series, [stops[layer]], { head: `${CURVES[curve]}${curve === "found" ? " (thin: chance)" : ""}`, y: ranges[curve],
      yLabel: curve === "found" ? "share of tokens" : "CKA, own − others" });
  }

  return mount({
    model, el,
    controls: [
      depthSlider(model),
      choice(model, { name: "scale", label: "Colours", words: SCALES }),
      choice(model, { name: "curve", label: "Line plot", words: CURVES }),
    ],
    body: [
      h("div", { class: "vx-maps" }, ...maps.map((map) => map.element)),
      lines.element,
    ],
    update,
    notes: "Each model shows its layer nearest to the chosen depth. Choose a token by click or arrow keys on any map. Frame: its own patch; ring: the patch "
      + "most similar to it. Contrast: CKA with its own patch less the mean of the others. "
      + `${scaled.length < labels.length ? "One scale for all is that of the models; raw pixels may lie above it. " : ""}`
      + `Values of the maps within ${fixed(error, 3)} of the measured ones.`,
  });
}

function fromZero(numbers) {
  const [low, high] = extent(numbers);
  return [Math.min(low, 0), Math.max(high, 0)];
}

function foundInWords(at, peak, contrast) {
  if (peak[0] === NO_PATCH) return "no values, as nothing here differs between the images";
  const away = Math.max(...at.map((place, axis) => Math.abs(place - peak[axis])));
  const where = away ? `patch (${peak.join(", ")}), ${away} ${away === 1 ? "patch" : "patches"} away` : "its own patch";
  return `most similar to ${where}, contrast ${fixed(contrast, 3)}`;
}

export default { render };
