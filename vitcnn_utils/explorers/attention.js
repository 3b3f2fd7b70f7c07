// Figures 3 and 4: the attention of one query on its picture, all heads of the block beside it, and how far all heads look.

const SIDE = 384; // pixels of the longer side of the large picture
const CELL = 8; // pixels of a patch in the small maps, at most
// What may be shown, and what the sentence adds where it is not both.
const VIEWS = { overlay: "", attention: " Shown: the attention without the picture.", picture: " Shown: the picture without the attention." };
const SCALES = { same: "same scale for all heads", own: "each head its own scale" };

function render({ model, el }) {
  const { models, blocks, heads, grid: [rows, columns], prefix, pictures, n_images: count, uniform, errors } = model.get("header");
  const values = arrays(model);
  const table = colors(model);
  const P = prefix.length;
  const over = `${count} image${count === 1 ? "" : "s"}`;
  const placeless = P > 1 ? `${prefix[0]} and ${P - 1} more token${P > 2 ? "s" : ""}` : prefix[0];
  const chart = headChart(model, values);
  let view = null;

  const place = (token) => (token < P ? null : [Math.floor((token - P) / columns), (token - P) % columns]);
  const word = (token) => (token < P ? prefix[token] : `token (${place(token).join(", ")})`);
  const picture = picker({
    label: "Query: the patch that looks", rows, columns, get: (state) => place(state.token),
    set: (row, column) => change(model, { token: P + row * columns + column }),
    text: (state) => `${word(state.token)} looks`,
    hover: (row, column) => {
      readout.textContent = row === null ? "" : `${word(P + row * columns + column)} gets ${percent(view.weight(row * columns + column))}`;
    },
  });
  const readout = h("p", { class: "vx-readout" });
  const bar = colorBar(table, { label: "% of the attention", low: 0, high: 1 });
  const query = tokenChoice(model, { label: "Query", most: P, grid: [rows, columns], table });
  const images = tiles(model, { name: "image", label: "Picture", texts: pictures });
  const small = tiles(model, { name: "head", label: "Head: what the same query looks at", texts: heads.map((head) => `head ${head}`) });
  const facts = h("tbody", {});

  // shares(head)(patch): the weight as a share of `most`, at which the colours of this head end.
  function see(state) {
    const { model: m, image, block, head, token, scale } = state;
    const relative = (one) => {
      const first = values.relative.position([m, image, block, one, token, 0]);
      return (patch) => values.relative.flat(first + patch);
    };
    const peaks = heads.map((_, one) => values.peak.at(m, image, block, one, token));
    const ends = scale === "same" ? peaks.map(() => Math.max(...peaks)) : peaks;
    const shown = (one) => {
      const share = relative(one), part = peaks[one] / ends[one] || 0;
      return (patch) => share(patch) * part;
    };
    const peak = peaks[head];
    const shares = prefix.map((_, i) => values.prefix.at(m, image, block, head, token, i));
    const onPlaceless = shares.reduce((sum, share) => sum + share, 0);
    const without = token < P ? NaN : values.query_distance.at(m, image, block, head, token - P);
    const of = (name) => values[name].at(m, block, head);
    return { shown, most: ends[head], weight: (patch) => relative(head)(patch) * peak, onPrefix: (i) => shares[i],
      query: { distance: without * (1 - onPlaceless), without, share: onPlaceless },
      all: { distance: of("distance"), without: of("distance_renormalized"), share: of("prefix_mass") } };
  }

  function update(state) {
    view = see(state);
    const chosen = place(state.token);
    paintPicture(picture.pixels, images.canvases[state.image], { show: state.view, rows, columns, table, share: view.shown(state.head) });
    frame(picture.marks, rows, columns, chosen ? [{ row: chosen[0], column: chosen[1] }] : []);
    small.canvases.forEach((canvas, i) => paintSmall(canvas, { rows, columns, table, share: view.shown(i), chosen }));
    small.say((i) => `${fixed(values.distance.at(state.model, state.block, i), 1)} px`);
    bar.set(0, 100 * view.most);
    query.paint(state.token, P, (i) => [view.onPrefix(i) / view.most, `${prefix[i]} gets ${percent(view.onPrefix(i))}`]);
    facts.replaceChildren(...factRows());
    chart.draw(state);
    return sentence(state);
  }

  function factRows() {
    const cell = (value, show) => h("td", {}, Number.isFinite(value) ? show(value) : "none");
    const row = (name, key, show) => h("tr", {}, h("th", { scope: "row" }, name), cell(view.query[key], show), cell(view.all[key], show));
    const first = row("Mean distance", "distance", pixels);
    return P ? [first, row(`… without the share of ${placeless}`, "without", pixels), row(`Share of ${placeless}`, "share", percent)] : [first];
  }

  function sentence({ model: m, image, block, head, token, view: shown, scale }) {
    const patches = Array.from({ length: rows * columns }, (_, patch) => view.weight(patch));
    const most = patches.indexOf(Math.max(...patches));
    const looks = `${models[m]}, block ${blocks[block]}, head ${heads[head]}: from ${word(token)} of ${pictures[image]}, the patch that gets most `
      + `is ${word(P + most)}, ${percent(view.weight(most))} of the attention`;
    const first = [looks, ...prefix.map((name, i) => `${name} gets ${percent(view.onPrefix(i))}`)].join("; ");
    const own = token < P ? "" : ` This query's mean distance is ${pixels(view.query.distance)}.`;
    const { distance, without, share } = view.all;
    const counted = P ? ` (${pixels(without)} without the share of ${placeless}, which is ${percent(share)})` : "";
    return `${first}.${own} The head's mean distance is ${pixels(distance)}${counted}, over ${over}.${VIEWS[shown]} Colours: ${SCALES[scale]}.`;
  }

  images.canvases.forEach((canvas, i) => paintPixels(canvas, values.pixels, i));
  return mount({
    model, el,
    controls: [
      choice(model, { name: "model", label: "Model", words: models }),
      slider(model, { name: "block", label: "Block", text: (i) => String(blocks[i]) }),
      choice(model, { name: "view", label: "Show" }),
      choice(model, { name: "scale", label: "Colours", words: SCALES }),
    ],
    pickers: [images, picture, small, chart],
    body: [
      h("div", {}, images.element, h("p", { class: "vx-head" }, "Choose the query: the patch that looks"), picture.element,
        query.element, bar.element, readout),
      h("div", {}, small.element,
        h("table", { class: "vx-facts" }, h("thead", {}, h("tr", {}, h("td", {}), h("th", { scope: "col" }, "this query"),
          h("th", { scope: "col" }, `head, ${over}`))), facts),
        h("p", { class: "vx-head" }, `All heads, sorted within each block; dashed: uniform attention, ${pixels(uniform)}`), chart.element, chart.readout),
    ],
    update,
    notes: "All numbers count from 0. Colours run from 0 to the largest weight of the query on a patch, in any head of the block or in each head by itself; "
      + "squares grow with the weight. "
      + `Shades are within ${fixed(100 * errors.weight, 1)} % of that largest weight, a query's distance within ${fixed(errors.distance, 2)} px; the heads' numbers are those of the figures.`,
  });
}

const percent = (share) => `${fixed(100 * share, 1)} %`;
const pixels = (distance) => `${fixed(distance, 1)} px`;

// --- what is chosen among pictures or heads: native radio buttons, each with a small canvas ---------------------

function tiles(model, { name, label, texts }) {
  const group = freshId();
  const canvases = texts.map(() => h("canvas", { "aria-hidden": "true" }));
  const inputs = texts.map((_, i) => h("input", { type: "radio", name: group, onchange: () => change(model, { [name]: i }) }));
  const more = texts.map(() => h("small", {}));
  const element = h("fieldset", { class: "vx-tiles" }, h("legend", {}, label),
    h("div", {}, ...texts.map((text, i) => h("label", {}, inputs[i], canvases[i], h("span", {}, text, " ", more[i])))));
  return { element, canvases, say: (text) => more.forEach((one, i) => { one.textContent = text(i); }),
    sync: (state) => inputs.forEach((input, i) => { input.checked = state[name] === i; }) };
}

// --- painting -----------------------------------------------------------------------------------------------------

function paintPixels(canvas, { shape: [, height, width], codes }, i) {
  Object.assign(canvas, { width, height });
  const image = new ImageData(width, height);
  const from = i * height * width * 3;
  for (let pixel = 0; pixel < height * width; pixel += 1) {
    image.data.set(codes.subarray(from + 3 * pixel, from + 3 * pixel + 3), 4 * pixel);
    image.data[4 * pixel + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// The colours alone, over a whole canvas. share(patch): how far along the colours, 0 to 1.
function spread(canvas, { rows, columns, table, share }) {
  heat(scratch, { rows, columns, value: (row, column) => share(row * columns + column), low: 0, high: 1, table });
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(scratch, 0, 0, canvas.width, canvas.height);
}

const scratch = document.createElement("canvas"); // a pixel a patch

// The picture with a square in each patch, larger and brighter with the weight, so that both can be read; or the colours
// alone; or the picture alone.
function paintPicture(canvas, image, { show, rows, columns, table, share }) {
  const cell = Math.max(Math.round(SIDE / Math.max(rows, columns)), 4);
  Object.assign(canvas, { width: columns * cell, height: rows * cell });
  canvas.style.aspectRatio = `${columns} / ${rows}`;
  const context = canvas.getContext("2d");
  if (show === "attention") {
    spread(canvas, { rows, columns, table, share });
    return;
  }
  context.imageSmoothingEnabled = image.width > canvas.width;
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
  if (show === "picture") return;
  context.strokeStyle = "#0008"; // tells a square from a picture of like colour
  for (let patch = 0; patch < rows * columns; patch += 1) {
    const side = cell * (0.16 + 0.5 * Math.sqrt(share(patch)));
    const x = (patch % columns + 0.5) * cell - side / 2, y = (Math.floor(patch / columns) + 0.5) * cell - side / 2;
    context.fillStyle = css(table, share(patch));
    context.fillRect(x, y, side, side);
    context.strokeRect(x, y, side, side);
  }
}

function paintSmall(canvas, { rows, columns, table, share, chosen }) {
  const cell = Math.max(Math.min(CELL, Math.floor(128 / Math.max(rows, columns))), 2);
  Object.assign(canvas, { width: columns * cell, height: rows * cell });
  spread(canvas, { rows, columns, table, share });
  if (!chosen) return;
  const context = canvas.getContext("2d");
  context.strokeStyle = "#fff";
  context.strokeRect(chosen[1] * cell + 0.5, chosen[0] * cell + 0.5, cell - 1, cell - 1);
}

// --- the chart of Figures 3 and 4 ---------------------------------------------------------------------------------

// A dot a head; left and right lead to the next block, up and down to the head that looks farther or nearer.
function headChart(model, values) {
  const { blocks, heads, uniform } = model.get("header");
  const [M, L, H] = values.distance.shape;
  const order = Array.from({ length: M }, (_, m) => blocks.map((_, b) =>
    heads.map((_, i) => i).sort((i, j) => values.distance.at(m, b, i) - values.distance.at(m, b, j))));
  const top = 1.08 * Math.max(uniform, ...values.distance.codes);
  const box = { width: 340, height: 210, left: 44, right: 8, top: 8, bottom: 36, x: [-0.5, L - 0.5], y: [0, top] };
  const { px, py } = scales(box, box);
  const shift = (rank) => (0.8 * (rank - (H - 1) / 2)) / H;
  const readout = h("p", { class: "vx-readout" });
  let m = 0;

  const distance = (b, rank) => values.distance.at(m, b, order[m][b][rank]);
  const words = (b, rank) => `block ${blocks[b]}, head ${heads[order[m][b][rank]]}: ${pixels(distance(b, rank))}`;
  const rankOf = (state) => order[state.model][state.block].indexOf(state.head);

  // The dot nearest to a point of the chart, both counted from its lower left corner.
  function nearest(x, y) {
    let best = [Infinity];
    for (let b = 0; b < L; b += 1) {
      for (let rank = 0; rank < H; rank += 1) {
        const far = Math.hypot(px(b + shift(rank)) - x * box.width, py(distance(b, rank)) - (1 - y) * box.height);
        if (far < best[0]) best = [far, rank, b];
      }
    }
    return best.slice(1);
  }

  const chart = picker({
    label: "All heads by mean distance", rows: H, columns: L, upward: true, cell: nearest, classes: "vx-plot vx-heads",
    get: (state) => [rankOf(state), state.block], set: (rank, b) => change(model, { block: b, head: order[m][b][rank] }),
    text: (state) => words(state.block, rankOf(state)),
    hover: (rank, b) => { readout.textContent = rank === null ? "" : words(b, rank); },
  });
  chart.pixels.style.visibility = "hidden"; // all is drawn in lines
  chart.pixels.style.aspectRatio = `${box.width} / ${box.height}`;
  chart.marks.setAttribute("viewBox", `0 0 ${box.width} ${box.height}`);

  let drawn = "";
  const lines = svg("g", {});
  const mark = svg("circle", { r: 6, fill: LINES[1], stroke: "currentColor", "stroke-width": 1.5 });
  chart.marks.replaceChildren(lines, mark);

  function draw(state) {
    m = state.model;
    const rank = rankOf(state);
    mark.setAttribute("cx", px(state.block + shift(rank)));
    mark.setAttribute("cy", py(distance(state.block, rank)));
    if (drawn === `${m} ${state.block}`) return; // choosing a query must not wait for all heads
    drawn = `${m} ${state.block}`;
    const every = Math.ceil(L / 12);
    lines.replaceChildren(
      ...axes({ ...box, px, py, xLabel: "block", yLabel: "mean distance (px)", xTicks: blocks.flatMap((block, b) => (b % every ? [] : [[b, String(block)]])) }),
      ...line({ points: box.x.map((x) => [x, uniform]), color: GREY, thin: true, dash: DASHED }, px, py),
      ...blocks.flatMap((_, b) => headsOf(b, b === state.block)));
  }

  // A line, and all dots in one path: round ends of strokes without length.
  function headsOf(b, chosen) {
    const points = heads.map((_, rank) => [b + shift(rank), distance(b, rank)]);
    const dots = points.map(([x, y]) => `M${px(x).toFixed(1)} ${py(y).toFixed(1)}h0`).join("");
    return [...line({ points, color: LINES[0], thin: !chosen }, px, py),
      svg("path", { d: dots, fill: "none", stroke: LINES[0], "stroke-width": chosen ? 5 : 3.5, "stroke-linecap": "round" })];
  }
  return { element: chart.element, readout, sync: chart.sync, draw };
}

export default { render };
