// Figure 7: how much longer what the skip carries is than what the branch adds: token by token, and block by block.

const GAP = 1; // between the small maps, in tokens
const OTHERS = [LINES[2], LINES[4], LINES[5]]; // models without tokens

function render({ model, el }) {
  const { labels, grids, prefix, blocks, limits, units, branches, averages, quantity, choices } = model.get("header");
  const values = arrays(model);
  const table = colors(model, "viridis");
  const kinds = choices.branch;
  let view = null;

  const map = picker({
    label: "Token, at its place in the image", rows: () => view.rows, columns: () => view.columns,
    get: () => (view.token < view.prefix ? null : [Math.floor(view.place / view.columns), view.place % view.columns]),
    set: (row, column) => change(model, { token: view.prefix + row * view.columns + column }),
    text: () => `${view.word(view.token)}: ${fixed(view.value(view.token))}`,
    hover: (row, column) => {
      const token = view.prefix + row * view.columns + column;
      readout.textContent = row === null ? "" : `${view.word(token)}: ${fixed(view.value(token))}`;
    },
  });
  const overview = picker({
    label: "Block and branch", rows: kinds.length, columns: () => view.blocks.length, classes: "vx-overview",
    get: () => [view.branch, view.block],
    set: (row, column) => change(model, { branch: kinds[row], block: column }),
    text: () => `block ${view.blocks[view.block]}, ${branches[kinds[view.branch]]}`,
  });
  const swatches = Array.from({ length: Math.max(...prefix.map((names) => names.length)) }, (_, i) => swatch(i));
  const readout = h("p", { class: "vx-readout" });
  const bar = colorBar(table, { label: quantity, low: 0, high: 1 });
  const head = h("p", { class: "vx-head" });
  const numbers = h("div", { class: "vx-ticks", "aria-hidden": "true" });
  const lines = plot({ label: "The ratio by block", xLabel: "block", yLabel: quantity });
  const linesHead = h("p", { class: "vx-head" });

  // A token without a place in the image.
  function swatch(i) {
    const color = h("canvas", { "aria-hidden": "true" });
    const text = h("span", {});
    const element = h("button", { type: "button", class: "vx-button vx-swatch", onclick: () => change(model, { token: i }) }, color, text);
    const paint = () => {
      element.hidden = i >= view.prefix;
      element.setAttribute("aria-pressed", view.token === i);
      heat(color, { rows: 1, columns: 1, value: () => view.value(i), low: view.limits[0], high: view.limits[1], table });
      text.textContent = `${view.word(i)} ${fixed(view.value(i))}`;
    };
    return { element, paint };
  }

  function see(state) {
    const i = state.model;
    const [rows, columns] = grids[i];
    const token = Math.min(state.token, prefix[i].length + rows * columns - 1);
    const block = Math.min(state.block, blocks[i].length - 1);
    const branch = kinds.indexOf(state.branch);
    const word = (one) => {
      const place = one - prefix[i].length;
      return prefix[i][one] ?? `token (${Math.floor(place / columns)}, ${place % columns}) of ${rows} × ${columns}`;
    };
    const ratio = values[`${state.average}${i}`];
    return { i, rows, columns, token, block, branch, word, ratio, mean: values[`mean_${state.average}${i}`],
      average: state.average, prefix: prefix[i].length, place: token - prefix[i].length, blocks: blocks[i],
      limits: limits[i][state.average][state.branch], value: (one) => ratio.at(block, branch, one) };
  }

  function update(state) {
    view = see(state);
    const { rows, columns, limits: [low, high] } = view;
    heat(map.pixels, { rows, columns, low, high, table, value: (row, column) => view.value(view.prefix + row * columns + column) });
    map.pixels.style.aspectRatio = `${columns} / ${rows}`;
    const chosen = view.token < view.prefix ? [] : [{ row: Math.floor(view.place / columns), column: view.place % columns }];
    frame(map.marks, rows, columns, chosen);
    paintOverview();
    for (const one of [map, overview]) one.sync(state);
    for (const one of swatches) one.paint();
    bar.set(low, high);
    head.textContent = `${labels[view.i]}: ${branches[state.branch]} of block ${view.blocks[view.block]}`;
    drawLines(state);
    return sentence(state);
  }

  function sentence(state) {
    const { token, prefix: count, word, value, mean, block, branch } = view;
    const others = count && token !== 0 ? [`${word(0)} ${fixed(value(0))}`] : [];
    others.push(`mean of spatial tokens ${fixed(mean.at(block, branch))}`);
    return `${labels[view.i]}, block ${view.blocks[block]}, ${branches[state.branch]}: the ratio of skip to branch is `
      + `${fixed(value(token))} for ${word(token)}; ${others.join(", ")} (${averages[state.average]}).`;
  }

  // All blocks from left to right, a branch a row.
  function paintOverview() {
    const { rows, columns, ratio, prefix: first } = view;
    const [high, wide] = [rows + GAP, columns + GAP];
    const [height, width] = [kinds.length * high - GAP, view.blocks.length * wide - GAP];
    const scales = kinds.map((kind) => limits[view.i][view.average][kind]);
    const value = (y, x) => {
      const branch = Math.floor(y / high);
      const [row, column] = [y % high, x % wide];
      if (row >= rows || column >= columns) return NaN;
      const [from, to] = scales[branch];
      return (ratio.at(Math.floor(x / wide), branch, first + row * columns + column) - from) / (to - from || 1);
    };
    heat(overview.pixels, { rows: height, columns: width, value, low: 0, high: 1, table });
    clearGaps(overview.pixels, high, wide);
    overview.pixels.style.aspectRatio = `${width} / ${height}`;
    frame(overview.marks, height, width,
      [{ row: view.branch * high, column: view.block * wide, height: high - GAP, width: wide - GAP }]);
    const every = Math.ceil(view.blocks.length / 12);
    numbers.replaceChildren(...view.blocks.map((block, i) => h("span", {}, i % every ? "" : String(block))));
  }

  function drawLines(state) {
    const { ratio, mean, branch, token } = view;
    const points = (value) => view.blocks.map((block, i) => [block, value(i)]);
    const color = LINES[branch];
    const drawn = [{ label: "mean of spatial tokens", color, dashed: true, dots: true, points: points((i) => mean.at(i, branch)) }];
    if (view.prefix) drawn.unshift({ label: view.word(0), color, dots: true, points: points((i) => ratio.at(i, branch, 0)) });
    if (token || !view.prefix) {
      drawn.push({ label: view.word(token), color: LINES[3], dots: true, points: points((i) => ratio.at(i, branch, token)) });
    }
    units.forEach((one, j) => drawn.push({ label: one.label, color: OTHERS[j % OTHERS.length], dashed: true, thin: true, dots: true,
      hollow: one.projected, points: one.blocks.map((block, i) => [block, values[`unit_${state.average}${j}`].at(i)]) }));
    const all = drawn.flatMap((one) => one.points);
    const top = Math.max(0, ...all.map(([, y]) => y).filter(Number.isFinite));
    lines.draw(drawn, [view.blocks[view.block]], { x: [0, Math.max(...all.map(([x]) => x))], y: [0, 1.05 * top || 1],
      xLabel: units.length ? "block or unit" : "block" });
    linesHead.textContent = `${branches[state.branch]}, by block`;
  }

  const options = (name, words) => choices[name].map((key) => [key, words[key]]);
  return mount({
    model, el, title: "Is a token carried by the skip, or remade by the branch?",
    controls: [
      labels.length > 1 && choice(model, { name: "model", label: "Model", options: labels.map((label, i) => [i, label]) }),
      slider(model, { name: "block", label: "Block", text: (i) => String(i) }),
      choice(model, { name: "branch", label: "Branch", options: options("branch", branches) }),
      choices.average.length > 1 && choice(model, { name: "average", label: "Average", options: options("average", averages) }),
    ].filter(Boolean),
    body: [
      h("div", { class: "vx-wide" }, h("p", { class: "vx-head" }, `All blocks: ${branches[kinds[0]]} above, ${branches[kinds[1]]} below`), overview.element, numbers),
      h("div", {}, head, map.element, h("div", { class: "vx-swatches" }, ...swatches.map((one) => one.element)), bar.element, readout),
      h("div", {}, linesHead, lines.element),
    ],
    update,
    notes: "Bright: the skip carries the token; dark: the branch remakes it. Each branch has its own colours, the same in all blocks. "
      + "Grey, none: the branch adds nothing, or has no skip. "
      + `${units.some((one) => one.projected.includes(true)) ? "Hollow: units whose skip is a projection. " : ""}Values are the measured ones.`,
  });
}

function clearGaps(canvas, high, wide) {
  const context = canvas.getContext("2d");
  for (let y = high - GAP; y < canvas.height; y += high) context.clearRect(0, y, canvas.width, GAP);
  for (let x = wide - GAP; x < canvas.width; x += wide) context.clearRect(x, 0, GAP, canvas.height);
}

export default { render };
