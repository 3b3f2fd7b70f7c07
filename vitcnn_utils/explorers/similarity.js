// Figures 1, 2 and 8: a heat map of CKA, one cell chosen, and the whole row of its layer beside it.

const PIXELS = 480; // a side of the map: fine enough for layers of unequal depth

function render({ model, el }) {
  const { titles, sides, error } = model.get("header");
  const maps = arrays(model);
  const table = colors(model);
  let view = null;

  const map = picker({
    label: "One pair of layers in the map of CKA", upward: true,
    rows: () => view.rows.length, columns: () => view.columns.length,
    get: () => [view.rows.indexOf(view.row), view.columns.indexOf(view.column)],
    set: (row, column) => change(model, { row: view.rows[row], column: view.columns[column] }),
    cell: (x, y) => [view.down[Math.floor(y * PIXELS)], view.across[Math.floor(x * PIXELS)]],
    text: () => view.sentence,
    hover: (row, column) => hover(row, column),
  });
  const readout = h("p", { class: "vx-readout" });
  const profile = plot({ label: "CKA of the chosen row's layer with every layer of the other axis",
    yLabel: "CKA", y: [0, 1] });
  const bar = colorBar(table, { label: "CKA", low: 0, high: 1, digits: 0 });
  const [yName, xName] = ["p", "p"].map((tag) => h(tag, { class: "vx-head" }));

  function update(state) {
    view = see(state);
    heat(map.pixels, { rows: view.rows.length, columns: view.columns.length, low: 0, high: 1, table, upward: true,
      across: view.across, down: view.down, value: (i, j) => view.values.at(view.rows[i], view.columns[j]) });
    cross(map.marks, view);
    map.sync(state);
    yName.textContent = `↑ ${view.a.model}`;
    xName.textContent = `${view.b.model} →`;
    drawProfile();
    return view.sentence;
  }

  // Everything that follows from the state: which layers are shown, where their cells lie, what is chosen.
  function see(state) {
    const [a, b] = sides[state.pair];
    const shown = (side) => {
      const found = side.kinds.flatMap((kind, i) => (state.layers === "all" || kind === state.layers ? [i] : []));
      return found.length ? found : side.kinds.map((_, i) => i);
    };
    const rows = shown(a), columns = shown(b);
    const row = rows[nearest(rows, state.row)], column = columns[nearest(columns, state.column)];
    const values = maps[`map${state.pair}`];
    const byDepth = state.axes === "depth";
    return { a, b, rows, columns, row, column, values, byDepth, down: cells(rows, a.depths, byDepth),
      across: cells(columns, b.depths, byDepth),
      sentence: `CKA of ${words(a, row)} and ${words(b, column)}: ${fixed(values.at(row, column))}. `
        + `Shown: ${state.layers} layers, by ${state.axes}.` };
  }

  function drawProfile(over = null) {
    const { a, b, rows, columns, row, column, values, byDepth } = view;
    const place = (layer) => (byDepth ? b.depths[layer] : layer);
    const curve = (i, look) => ({ label: a.names[i], points: columns.map((layer) => [place(layer), values.at(i, layer)]), ...look });
    const series = [curve(row, { color: LINES[0] })];
    if (over !== null && rows[over] !== row) series.push(curve(rows[over], { color: GREY, thin: true }));
    profile.draw(series, [place(column)], { head: `The row of ${a.names[row]}`,
      x: byDepth ? [0, 1] : [0, b.names.length - 1], xLabel: `${byDepth ? "depth" : "layer"} in ${b.model}` });
  }

  function hover(row, column) {
    if (row !== null) {
      const [i, j] = [view.rows[row], view.columns[column]];
      readout.textContent = `${view.a.names[i]} and ${view.b.names[j]}: ${fixed(view.values.at(i, j))}`;
    } else readout.textContent = "";
    drawProfile(row);
  }

  return mount({
    model, el,
    controls: [
      choice(model, { name: "pair", label: "Map", words: titles }),
      choice(model, { name: "layers", label: "Layers" }),
      choice(model, { name: "axes", label: "Axes" }),
    ],
    body: [
      h("div", {}, yName, map.element, xName, bar.element),
      h("div", {}, profile.element, readout),
    ],
    update,
    notes: `Choose a cell by click or arrow keys; point at another row to compare. Layers count from 0. Values within ${fixed(error, 3)} of the measured ones.`,
  });
}

const words = ({ model, names, kinds }, i) => `layer ${i} of 0 to ${names.length - 1} in ${model}, ${names[i]} (${kinds[i]})`;

// Which cell each pixel of an axis shows: all of one width, or each reaching halfway to its neighbours in depth.
function cells(shown, depths, byDepth) {
  const at = shown.map((i) => depths[i]);
  return Uint16Array.from({ length: PIXELS }, (_, pixel) => {
    const x = (pixel + 0.5) / PIXELS;
    return byDepth ? nearest(at, x) : Math.floor(x * shown.length);
  });
}

// The chosen row and cell, framed where their pixels lie.
function cross(marks, { rows, columns, row, column, down, across }) {
  const span = (cellOf, index) => [cellOf.indexOf(index), cellOf.lastIndexOf(index) + 1];
  const [bottom, top] = span(down, rows.indexOf(row));
  const [left, right] = span(across, columns.indexOf(column));
  frame(marks, PIXELS, PIXELS, [
    { row: bottom, column: 0, width: PIXELS, height: Math.max(top - bottom, 1), dashed: true },
    { row: bottom, column: left, width: Math.max(right - left, 1), height: Math.max(top - bottom, 1) },
  ], true);
}

export default { render };
