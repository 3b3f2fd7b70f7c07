// Figures 11 and 13: accuracy of linear probes by depth, for several models, for the read-outs of one, and by token.

const READOUTS = { cls: "CLS token", mean: "mean of tokens", "mean with cls": "mean of tokens and CLS", "first token": "first token",
  token: "single tokens, averaged", chosen: "token chosen on the map" };
const SCALES = { own: "each map its own scale", common: "one scale for all" };

function render({ model, el }) {
  const { labels, layers, depths, grids, readouts, stops, chance, draws, error, choices } = model.get("header");
  const values = arrays(model);
  const looks = looksOf(labels);
  const finest = [choices.row, choices.column];
  const order = choices.readout;
  const hasMaps = order.includes("chosen");
  const hasPanel = readouts.some((one) => one.length > 1);
  const of = (key, i) => values[`${key}${i}`];
  const has = (i, readout) => readouts[i].includes(readout);
  const common = extent(labels.flatMap((_, i) => of("by_token", i).values()));
  // Room for every line and its band, in steps of a tenth, up to 1.
  const upper = (i, mean, spread) => of(mean, i).values().map((value, k) => value + (of(spread, i).flat(k) || 0));
  const [, highest] = extent(labels.flatMap((_, i) => [...upper(i, "accuracy", "spread"), ...upper(i, "by_token", "token_spread")]));
  let view = null;

  const axis = { xLabel: "depth of the layer, 0 to 1", yLabel: "test accuracy, %", x: [0, 1],
    y: [0, Math.min(100, 10 * Math.ceil(10 * highest + 1e-9))], height: 220 };
  const models = plot({ label: "Probe accuracy by depth, one line a model", ...axis });
  const beside = plot({ label: "Probe accuracy by depth of one model, one line a read-out", ...axis });
  const map = gridMap(colors(model), {
    label: "Token, on the map of accuracy by token", bar: "accuracy, %", times: 100,
    get: () => view.at,
    set: (...at) => {
      const [row, column] = placeOn(at, grids[view.model], finest);
      change(model, { row, column });
    },
    text: () => tokenInWords(...view.at), say: (row, column) => tokenInWords(row, column), rest: () => tokenInWords(...view.at),
  });

  // Mean and standard deviation over draws, of a read-out of model i in one of its layers.
  function measured(i, name, layer, at) {
    if (name === "chosen") return ["by_token", "token_spread"].map((key) => of(key, i).at(layer, ...at));
    return ["accuracy", "spread"].map((key) => of(key, i).at(readouts[i].indexOf(name), layer));
  }
  function percent(...which) {
    const [mean, spread] = measured(...which);
    return `${fixed(100 * mean, 1)}${Number.isFinite(spread) ? ` ± ${fixed(100 * spread, 1)}` : ""} %`;
  }
  const tokenInWords = (row, column) => `${placeInWords([row, column], grids[view.model])}: `
    + percent(view.model, "chosen", view.layers[view.model], [row, column]);

  function update(state) {
    const places = grids.map((grid) => placeOn([state.row, state.column], finest, grid));
    const place = state.readout === "chosen" ? ` (${state.row}, ${state.column}) of ${finest.join(" × ")}` : "";
    view = { ...state, places, at: places[state.model], layers: depths.map((own) => nearest(own, stops[state.layer])),
      title: capital(READOUTS[state.readout]) + place };
    drawModels();
    if (hasPanel) drawBeside();
    if (hasMaps) drawMap();
    return sentence();
  }

  // One line with its band, and a dot at the present depth.
  function curve(i, name, look) {
    const points = depths[i].map((depth, layer) => [depth, ...measured(i, name, layer, view.places[i]).map((value) => 100 * value)]);
    return [{ ...look, points: points.map(([x, y]) => [x, y]), band: points.map(([x, y, spread]) => [x, y - spread, y + spread]) },
      { color: look.color, dots: true, points: [points[view.layers[i]].slice(0, 2)] }];
  }
  const byChance = { label: "chance", color: GREY, thin: true, dash: DASHED, points: [[0, 100 * chance], [1, 100 * chance]] };

  function drawModels() {
    const found = labels.flatMap((_, i) => (view.shown >> i) & 1 && has(i, view.readout) ? curve(i, view.readout, { label: labels[i], ...looks[i] }) : []);
    models.draw([...found, byChance], [stops[view.layer]], { head: view.title });
  }
  function drawBeside() {
    const i = view.model;
    const found = readouts[i].flatMap((name) => curve(i, name, { label: READOUTS[name], thin: name !== view.readout, color: LINES[order.indexOf(name)] }));
    beside.draw([...found, byChance], [stops[view.layer]], { head: `${labels[i]}: all read-outs` });
  }
  function drawMap() {
    const i = view.model, layer = view.layers[i], [rows, columns] = grids[i];
    map.show(has(i, "chosen"));
    map.head.textContent = `${labels[i]}, ${layers[i][layer]}: single tokens`;
    if (has(i, "chosen")) {
      const [low, high] = view.scale === "common" ? common : mapEnds(i, layer);
      map.paint(view, { rows, columns, low, high, value: (row, column) => of("by_token", i).at(layer, row, column), chosen: view.at });
    } else map.readout.textContent = "Single tokens of this model were not probed.";
  }
  const mapEnds = (i, layer) => extent(cellsOf(...grids[i], (row, column) => of("by_token", i).at(layer, row, column)));

  function sentence() {
    const { layers: now, shown, readout: name, places } = view;
    const parts = labels.flatMap((label, i) => {
      if (!((shown >> i) & 1)) return [];
      return has(i, name) ? `${label} (${layerInWords(layers[i], depths[i], now[i])}) ${percent(i, name, now[i], places[i])}` : `${label} not measured`;
    });
    return `${view.title}: ${parts.join("; ") || "no model is shown"}. Chance: ${fixed(100 * chance, 1)} %.${besideInWords()}`;
  }
  function besideInWords() {
    const { model: i, layers: now, at, scale } = view;
    if (!hasPanel) return "";
    if (!has(i, "chosen")) return ` Beside: ${labels[i]}, single tokens not measured.`;
    const [low, high] = mapEnds(i, now[i]).map((end) => fixed(100 * end, 1));
    return ` Beside: ${labels[i]} (${layers[i][now[i]]}), ${tokenInWords(...at)}, all tokens ${low} to ${high} %; ${SCALES[scale]}.`;
  }

  return mount({
    model, el,
    controls: [
      depthSlider(model),
      choice(model, { name: "readout", label: "Read-out", words: READOUTS }),
      labels.length > 1 && checks(model, "shown", "Lines", labels),
      hasPanel && choice(model, { name: "model", label: "Model beside", words: labels }),
      hasMaps && choice(model, { name: "scale", label: "Map's colours", words: SCALES }),
    ],
    body: [
      models.element,
      hasPanel && beside.element,
      hasMaps && map.element,
    ],
    update,
    notes: `Each model shows its layer nearest to the chosen depth. ${hasMaps ? "Choose a token by click or arrow keys on the map. " : ""}`
      + `${draws > 1 ? "Bands and ±: one standard deviation over draws of the labelled images. " : ""}Values within ${(100 * error).toFixed(3)} % of the measured ones.`,
  });
}

// Which of several are shown: boxes to tick, together one number, the sum of 2 ** i of those ticked.
function checks(model, name, label, options) {
  const boxes = options.map((_, i) => h("input", { type: "checkbox", id: freshId(),
    onchange: (event) => change(model, { [name]: (model.get(name) & ~(1 << i)) | (event.target.checked << i) }) }));
  const element = h("fieldset", { class: "vx-control vx-checks" }, h("legend", {}, label),
    ...boxes.map((box, i) => h("label", { for: box.id }, box, options[i])));
  return { element, sync: (state) => boxes.forEach((box, i) => { box.checked = (state[name] >> i) & 1; }) };
}

export default { render };
