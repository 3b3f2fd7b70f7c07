// Figures 11 and 13: accuracy of linear probes by depth, for several models, for the read-outs of one, and by token.

const FAMILY = 5; // colours before lines begin to be dashed: the sixth, grey, is chance's

function render({ model, el }) {
  const { labels, layers, depths, grids, readouts, words, steps, scales, chance, limits, top, draws, error, choices } = model.get("header");
  const values = arrays(model);
  const table = colors(model, "viridis");
  const finest = [choices.row, choices.column];
  const order = choices.readout;
  const hasMaps = order.includes("chosen");
  const hasPanel = readouts.some((one) => one.length > 1);
  const of = (key, i) => values[`${key}${i}`];
  const has = (i, readout) => readouts[i].includes(readout);
  let view = null;

  const axis = { xLabel: "depth of the layer, 0 to 1", yLabel: "test accuracy, %", x: [0, 1], y: [0, 100 * top], height: 220 };
  const models = plot({ label: "Probe accuracy by depth, one line a model", ...axis });
  const beside = plot({ label: "Probe accuracy by depth of one model, one line a read-out", ...axis });
  const [modelsName, besideName, mapName, readout] = ["vx-head", "vx-head", "vx-head", "vx-readout"].map((name) => h("p", { class: name }));
  const map = picker({
    label: "Token, on the map of accuracy by token",
    rows: () => grids[view.model][0], columns: () => grids[view.model][1],
    get: () => view.at,
    set: (row, column) => change(model, { row: cellAt(row, grids[view.model][0], finest[0]),
      column: cellAt(column, grids[view.model][1], finest[1]) }),
    text: () => tokenInWords(...view.at),
    hover: (row, column) => { readout.textContent = row === null ? tokenInWords(...view.at) : tokenInWords(row, column); },
  });
  const bar = colorBar(table, { label: "accuracy, %", low: 0, high: 100 });
  const mapBox = h("div", { class: "vx-token-map" }, mapName, map.element, bar.element, readout);

  // Mean and standard deviation over draws, of a read-out of model i in one of its layers.
  function measured(i, name, layer, at) {
    if (name === "chosen") return ["by_token", "token_spread"].map((key) => of(key, i).at(layer, ...at));
    return ["accuracy", "spread"].map((key) => of(key, i).at(readouts[i].indexOf(name), layer));
  }
  function percent(...which) {
    const [mean, spread] = measured(...which);
    return `${fixed(100 * mean, 1)}${Number.isFinite(spread) ? ` ± ${fixed(100 * spread, 1)}` : ""} %`;
  }
  const tokenInWords = (row, column) => `token (${row}, ${column}) of ${grids[view.model].join(" × ")}: `
    + percent(view.model, "chosen", view.layers[view.model], [row, column]);

  function update(state) {
    const places = grids.map(([rows, columns]) => [cellAt(state.row, finest[0], rows), cellAt(state.column, finest[1], columns)]);
    view = { ...state, places, at: places[state.model], layers: steps[state.layer].shown,
      title: sentenceCase(words[state.readout]) + (state.readout === "chosen" ? ` (${state.row}, ${state.column}) of ${finest.join(" × ")}` : "") };
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
  const byChance = { label: "chance", color: LINES[FAMILY], thin: true, dashed: true, points: [[0, 100 * chance], [1, 100 * chance]] };

  function drawModels() {
    const found = labels.flatMap((_, i) => (view.shown >> i) & 1 && has(i, view.readout) ? curve(i, view.readout, { label: labels[i], ...lineOf(i) }) : []);
    modelsName.textContent = view.title;
    models.draw([...found, byChance], [steps[view.layer].depth]);
  }
  function drawBeside() {
    const i = view.model;
    const found = readouts[i].flatMap((name) => curve(i, name, { label: words[name], thin: name !== view.readout, ...lineOf(order.indexOf(name)) }));
    besideName.textContent = `${labels[i]}: all read-outs`;
    beside.draw([...found, byChance], [steps[view.layer].depth]);
  }
  function drawMap() {
    const i = view.model, layer = view.layers[i], [rows, columns] = grids[i];
    const measuredHere = has(i, "chosen");
    for (const element of [map.element, bar.element]) element.hidden = !measuredHere;
    mapName.textContent = `${labels[i]}, ${layers[i][layer]}: single tokens`;
    readout.textContent = measuredHere ? tokenInWords(...view.at) : "Single tokens of this model were not probed.";
    if (!measuredHere) return;
    const [low, high] = view.scale === "common" ? limits : mapEnds(i, layer);
    map.pixels.style.aspectRatio = `${columns} / ${rows}`;
    heat(map.pixels, { rows, columns, low, high, table, value: (row, column) => of("by_token", i).at(layer, row, column) });
    frame(map.marks, rows, columns, [{ row: view.at[0], column: view.at[1] }]);
    bar.set(100 * low, 100 * high);
    map.sync(view);
  }
  function mapEnds(i, layer) {
    const [rows, columns] = grids[i];
    const all = Array.from({ length: rows * columns }, (_, k) => of("by_token", i).at(layer, Math.floor(k / columns), k % columns)).filter(Number.isFinite);
    return all.length ? [Math.min(...all), Math.max(...all)] : [0, 1];
  }

  function sentence() {
    const { layers: now, shown, readout: name, places } = view;
    const parts = labels.flatMap((label, i) => {
      if (!((shown >> i) & 1)) return [];
      return has(i, name) ? `${label} (${layers[i][now[i]]}) ${percent(i, name, now[i], places[i])}` : `${label} not measured`;
    });
    return `${view.title}, near depth ${fixed(steps[view.layer].depth)}: ${parts.join("; ") || "no model is shown"}. Chance: ${fixed(100 * chance, 1)} %.` + besideInWords();
  }
  function besideInWords() {
    const { model: i, layers: now, at, scale } = view;
    if (!hasPanel) return "";
    if (!has(i, "chosen")) return ` Beside: ${labels[i]}, single tokens not measured.`;
    const [low, high] = mapEnds(i, now[i]).map((end) => fixed(100 * end, 1));
    return ` Beside: ${labels[i]} (${layers[i][now[i]]}), ${tokenInWords(...at)}, all tokens ${low} to ${high} %; ${scales[scale]}.`;
  }

  return mount({
    model, el, title: "What does a layer know of the class?",
    controls: [
      slider(model, { name: "layer", label: "Depth", text: (step) => fixed(steps[step].depth) }),
      order.length > 1 && choice(model, { name: "readout", label: "Read-out", options: order.map((one) => [one, words[one]]) }),
      labels.length > 1 && checks(model, "shown", "Lines", labels),
      hasPanel && labels.length > 1 && choice(model, { name: "model", label: "Model beside", options: labels.map((label, i) => [i, label]) }),
      hasMaps && choice(model, { name: "scale", label: "Map's colours", options: choices.scale.map((one) => [one, scales[one]]) }),
    ].filter(Boolean),
    body: [
      h("div", {}, modelsName, models.element),
      hasPanel && h("div", {}, besideName, beside.element),
      hasMaps && mapBox,
    ].filter(Boolean),
    update,
    notes: `${hasMaps ? "Choose a token by click or arrow keys on the map. " : ""}${draws > 1 ? "Bands and ±: one standard deviation over draws of the labelled images. " : ""}`
      + `Values within ${(100 * error).toFixed(3)} % of the measured ones.`,
  });
}

const lineOf = (i) => ({ color: LINES[i % FAMILY], dashed: i >= FAMILY });
const sentenceCase = (text) => text[0].toUpperCase() + text.slice(1);

// Which of several are shown: boxes to tick, together one number, the sum of 2 ** i of those ticked.
function checks(model, name, label, options) {
  const boxes = options.map((_, i) => h("input", { type: "checkbox", id: freshId(),
    onchange: (event) => change(model, { [name]: (model.get(name) & ~(1 << i)) | (event.target.checked << i) }) }));
  const element = h("fieldset", { class: "vx-control vx-checks" }, h("legend", {}, label),
    ...boxes.map((box, i) => h("label", { for: box.id }, box, options[i])));
  return { element, sync: (state) => boxes.forEach((box, i) => { box.checked = (state[name] >> i) & 1; }) };
}

export default { render };
