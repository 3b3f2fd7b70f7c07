// Figure 7: how much longer what the skip carries is than what the branch adds: token by token, and block by block.

const GAP = 1; // between the small maps, in tokens
const BRANCHES = { attention: "self-attention", mlp: "MLP" };
const QUANTITY = "‖z‖ / ‖f(z)‖";

function render({ model, el }) {
  const { labels, grids, prefix, blocks, units, averages, choices } = model.get("header");
  const values = arrays(model);
  const table = colors(model);
  const looks = looksOf([...labels, ...units.map((one) => one.label)]);
  const kinds = choices.branch;
  const limits = labels.map((_, i) => Object.fromEntries(choices.average.map((key) => [key, kinds.map((_, branch) => spatialExtent(key, i, branch))])));
  let view = null;

  const map = gridMap(table, {
    label: "Token, at its place in the image", bar: QUANTITY,
    get: () => view.chosen,
    set: (row, column) => change(model, { token: view.prefix + row * view.columns + column }),
    text: () => inWords(view.token), say: (row, column) => inWords(view.prefix + row * view.columns + column),
  });
  const overview = picker({
    label: "Block and branch", rows: kinds.length, columns: () => view.blocks.length, classes: "vx-overview",
    get: () => [view.branch, view.block],
    set: (row, column) => change(model, { branch: kinds[row], block: column }),
    text: () => `block ${view.blocks[view.block]}, ${BRANCHES[kinds[view.branch]]}`,
  });
  const tokens = tokenChoice(model, { label: "Token", most: Math.max(...prefix.map((names) => names.length)), grid: grids[0], table });
  const numbers = h("div", { class: "vx-ticks", "aria-hidden": "true" });
  const lines = plot({ label: "The ratio by block", xLabel: units.length ? "block or unit" : "block", yLabel: QUANTITY });
  const inWords = (token) => `${view.word(token)}: ${fixed(view.value(token))}`;

  // The same colours for all blocks: the extremes of the spatial tokens.
  function spatialExtent(key, i, branch) {
    const ratio = values[`${key}${i}`], count = prefix[i].length, [B, , T] = ratio.shape;
    return extent(cellsOf(B, T - count, (block, token) => ratio.at(block, branch, count + token)));
  }

  function see(state) {
    const i = state.model, count = prefix[i].length;
    const [rows, columns] = grids[i];
    const token = Math.min(state.token, count + rows * columns - 1);
    const block = Math.min(state.block, blocks[i].length - 1);
    const branch = kinds.indexOf(state.branch);
    const place = (one) => [Math.floor((one - count) / columns), (one - count) % columns];
    const word = (one) => prefix[i][one] ?? placeInWords(place(one), grids[i]);
    const ratio = values[`${state.average}${i}`];
    const value = (one, of = block) => ratio.at(of, branch, one);
    const mean = (of = block) => {
      const spatial = Array.from({ length: rows * columns }, (_, k) => value(count + k, of));
      return spatial.reduce((sum, one) => sum + one, 0) / spatial.length;
    };
    return { i, rows, columns, token, block, branch, word, ratio, value, mean, average: state.average, prefix: count,
      chosen: token < count ? null : place(token), blocks: blocks[i], limits: limits[i][state.average][branch] };
  }

  function update(state) {
    view = see(state);
    const { rows, columns, limits: [low, high] } = view;
    map.paint(state, { rows, columns, low, high, value: (row, column) => view.value(view.prefix + row * columns + column), chosen: view.chosen });
    map.head.textContent = `${labels[view.i]}: ${BRANCHES[state.branch]} of block ${view.blocks[view.block]}`;
    paintOverview();
    overview.sync(state);
    tokens.paint(view.token, view.prefix, (i) => [(view.value(i) - low) / (high - low || 1), `${view.word(i)} ${fixed(view.value(i))}`]);
    drawLines(state);
    return sentence(state);
  }

  function sentence(state) {
    const { token, prefix: count, word, value, mean, block } = view;
    const others = count && token !== 0 ? [`${word(0)} ${fixed(value(0))}`] : [];
    others.push(`mean of spatial tokens ${fixed(mean())}`);
    return `${labels[view.i]}, block ${view.blocks[block]}, ${BRANCHES[state.branch]}: the ratio of skip to branch is `
      + `${fixed(value(token))} for ${word(token)}; ${others.join(", ")} (${averages[state.average]}).`;
  }

  // All blocks from left to right, a branch a row.
  function paintOverview() {
    const { rows, columns, ratio, prefix: first } = view;
    const [high, wide] = [rows + GAP, columns + GAP];
    const [height, width] = [kinds.length * high - GAP, view.blocks.length * wide - GAP];
    const value = (y, x) => {
      const branch = Math.floor(y / high);
      const [row, column] = [y % high, x % wide];
      if (row >= rows || column >= columns) return NaN;
      const [from, to] = limits[view.i][view.average][branch];
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
    const { token, value, mean, i } = view;
    const points = (of) => view.blocks.map((block, at) => [block, of(at)]);
    const { color } = looks[i];
    const drawn = [{ label: "mean of spatial tokens", color, dash: DASHED, dots: true, points: points(mean) }];
    if (view.prefix) drawn.unshift({ label: view.word(0), color, dots: true, points: points((at) => value(0, at)) });
    if (token || !view.prefix) drawn.push({ label: view.word(token), color: LINES[3], dots: true, points: points((at) => value(token, at)) });
    units.forEach((one, j) => drawn.push({ label: one.label, ...looks[labels.length + j], thin: true, dots: true,
      hollow: one.projected, points: one.blocks.map((block, at) => [block, values[`unit_${state.average}${j}`].at(at)]) }));
    const all = drawn.flatMap((one) => one.points);
    const top = Math.max(0, ...all.map(([, y]) => y).filter(Number.isFinite));
    lines.draw(drawn, [view.blocks[view.block]], { x: [0, Math.max(...all.map(([x]) => x))], y: [0, 1.05 * top || 1],
      head: `${BRANCHES[state.branch]}, by block` });
  }

  return mount({
    model, el,
    controls: [
      choice(model, { name: "model", label: "Model", words: labels }),
      slider(model, { name: "block", label: "Block" }),
      choice(model, { name: "branch", label: "Branch", words: BRANCHES }),
      choice(model, { name: "average", label: "Average", words: averages }),
    ],
    body: [
      h("div", { class: "vx-wide" }, h("p", { class: "vx-head" }, `All blocks: ${BRANCHES[kinds[0]]} above, ${BRANCHES[kinds[1]]} below`), overview.element, numbers),
      h("div", {}, map.element, tokens.element),
      lines.element,
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
