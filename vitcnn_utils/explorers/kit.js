// What all explorers share. An explorer's own script follows in the same module and ends with `export default { render }`.
// `model` is anywidget's: get, set, save_changes, on, off. In the static book it is a small stand-in (runtime.js)
// that also has link(), the address of the present state.

// The colours of plots/style.py: blue, orange, green, purple, red, grey.
const LINES = ["#2f7fc1", "#d2691e", "#1d9a6c", "#a866b8", "#d04a4a", "#808080"];
const GREY = LINES[5];
// One colour a model and one line a way of training, in all figures.
const MODELS = new Map([["ViT", LINES[0]], ["CNN", LINES[1]], ["ViT-GAP", LINES[2]], ["small ViT", LINES[3]]]);
const DASHED = "4 3", DOTTED = "1 3", DASH_DOT = "7 3 1 3";
const VARIANTS = [["small data", DASHED], ["second seed", DASH_DOT], ["untrained", DOTTED]];

// --- data ---------------------------------------------------------------------------------------------------

// The arrays that `pack` in base.py laid out: {name: {shape, codes, at(...index), flat(position)}}.
function arrays(model) {
  const view = model.get("data");
  const types = { u1: Uint8Array, u2: Uint16Array, f4: Float32Array };
  // A copy, as a view may begin anywhere and numbers of 2 or 4 bytes may not.
  const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength).slice().buffer;
  const unpacked = {};
  for (const [name, place] of Object.entries(model.get("header").arrays)) {
    const size = place.shape.reduce((product, length) => product * length, 1);
    unpacked[name] = array(new types[place.type](bytes, place.offset, size), place);
  }
  return unpacked;
}

function array(codes, { shape, low, step, type }) {
  const none = low === undefined ? undefined : 2 ** (8 * Number(type[1])) - 1;
  const flat = (position) => {
    const code = codes[position];
    return none === undefined ? code : code === none ? NaN : low + step * code;
  };
  const position = (index) => index.reduce((sum, i, axis) => sum * shape[axis] + i, 0);
  return { shape, codes, flat, at: (...index) => flat(position(index)), position, values: () => Array.from(codes, (_, i) => flat(i)) };
}

// The lowest and the highest of numbers, 0 and 1 where there is none.
function extent(numbers) {
  let [low, high] = [Infinity, -Infinity];
  for (const one of numbers) {
    if (!Number.isFinite(one)) continue;
    if (one < low) low = one;
    if (one > high) high = one;
  }
  return low <= high ? [low, high] : [0, 1];
}

const cellsOf = (rows, columns, value) => Array.from({ length: rows * columns }, (_, i) => value(Math.floor(i / columns), i % columns));

// On which cell of another grid over the same image the middle of a cell lies: [row, column] of [rows, columns].
const placeOn = (place, grid, other) => place.map((index, axis) => Math.floor(((2 * index + 1) * other[axis]) / (2 * grid[axis])));

// Which of numbers is nearest to a value, the first of equals.
const nearest = (numbers, value) => numbers.reduce((best, one, i) => (Math.abs(one - value) < Math.abs(numbers[best] - value) ? i : best), 0);

// A number in words: no minus before zero, 'none' where there is no value.
const fixed = (value, digits = 2) => (Number.isFinite(value) ? value.toFixed(digits).replace(/^-(?=0\.?0*$)/, "") : "none");

// --- elements -----------------------------------------------------------------------------------------------

const SVG = "http://www.w3.org/2000/svg";

// h("p", {class: "x", onclick: f}, "text", child): an element; svg(…) the same in SVG's namespace.
const h = (tag, properties, ...children) => fill(document.createElement(tag), properties, children);
const svg = (tag, properties, ...children) => fill(document.createElementNS(SVG, tag), properties, children);

function fill(element, properties, children) {
  for (const [key, value] of Object.entries(properties ?? {})) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// --- models -------------------------------------------------------------------------------------------------

// How the lines of models look, by labels 'MODEL' or 'MODEL, VARIANT': models without a colour of their own take those that
// are left; the same model once more, in a variant without a line of its own, is dashed.
function looksOf(labels) {
  const parts = labels.map((label) => label.split(/, (.*)/s));
  const names = [...new Set(parts.map(([name]) => name))];
  const free = LINES.slice(0, 5).filter((color) => !names.some((name) => MODELS.get(name) === color));
  const others = names.filter((name) => !MODELS.has(name));
  const known = (variant = "") => VARIANTS.find(([start]) => variant.startsWith(start))?.[1];
  return parts.map(([name, variant], i) => {
    const place = others.indexOf(name);
    const isAgain = place >= free.length || parts.slice(0, i).some(([one, how]) => one === name && !known(how));
    return { color: MODELS.get(name) ?? free[place % free.length], dash: known(variant) ?? (isAgain ? DASHED : undefined) };
  });
}

// 'blocks.3, depth 0.50'
const layerInWords = (names, depths, i) => `${names[i]}, depth ${fixed(depths[i])}`;

const placeInWords = ([row, column], [rows, columns]) => `token (${row}, ${column}) of ${rows} × ${columns}`;
const capital = (text) => text[0].toUpperCase() + text.slice(1);

let counter = 0;
const freshId = () => `vx-${Date.now().toString(36)}-${(counter += 1)}`;

// --- the frame of every explorer ------------------------------------------------------------------------------

// controls: what slider() and choice() made. body: elements. pickers: what picker() made, wherever they stand in the
// body. update(state): paints all, and returns the sentence. notes: small print. Returns what anywidget calls at the end.
function mount({ model, el, controls, body, pickers = [], update, notes = "" }) {
  const names = model.get("state_names");
  const { title, start } = model.get("header");
  const shown = controls.filter(Boolean);
  const reset = h("button", { type: "button", class: "vx-button", onclick: () => change(model, start) }, "Reset");
  const sentence = h("p", { class: "vx-sentence", role: "status", "aria-live": "polite" });
  // In a notebook, JupyterLab would take the arrow keys to go from cell to cell.
  const root = h("div", { class: "vx", role: "region", "aria-label": title, "data-lm-suppress-shortcuts": "true" },
    h("p", { class: "vx-title" }, title),
    h("div", { class: "vx-controls" }, ...shown.map((control) => control.element)),
    h("div", { class: "vx-body" }, ...body.filter(Boolean)),
    sentence,
    h("div", { class: "vx-foot" }, h("small", {}, notes), h("span", {}, reset, copyLink(model))));
  const state = () => Object.fromEntries(names.map((name) => [name, allowed(model, name)]));
  const paint = () => {
    const now = state();
    for (const control of [...shown, ...pickers]) control.sync(now);
    sentence.textContent = update(now);
  };
  for (const name of names) model.on(`change:${name}`, paint);
  el.append(root);
  root.vitcnn = { arrays: arrays(model), state };
  paint();
  return () => {
    for (const name of names) model.off(`change:${name}`, paint);
    root.remove();
  };
}

// A state's value within what header.choices allows: a count n (0 to n - 1) or a list of words.
function allowed(model, name) {
  const value = model.get(name);
  const choices = model.get("header").choices[name];
  if (Array.isArray(choices)) return choices.includes(value) ? value : choices[0];
  return Math.min(Math.max(Math.round(Number(value)) || 0, 0), choices - 1);
}

// The only way by which an explorer changes its state.
function change(model, values) {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
  model.save_changes();
}

function copyLink(model) {
  if (!model.link) return null;
  const button = h("button", { type: "button", class: "vx-button", onclick: copy }, "Copy link");
  async function copy() {
    const address = model.link();
    try {
      await navigator.clipboard.writeText(address);
      button.textContent = "Copied";
    } catch {
      // No clipboard (a page from the disk, an old browser): show the address to copy by hand.
      window.prompt("The address of this view", address);
    }
    setTimeout(() => { button.textContent = "Copy link"; }, 1500);
  }
  return button;
}

// --- controls: {element, sync(state)} ---------------------------------------------------------------------------

// A number from 0 to count - 1. text(value): how it is said, as 'block 3'.
function slider(model, { name, label, text = String }) {
  const id = freshId();
  const count = model.get("header").choices[name];
  const output = h("output", { for: id });
  const input = h("input", { type: "range", id, min: 0, max: count - 1, step: 1,
    oninput: () => change(model, { [name]: Number(input.value) }) });
  const sync = (state) => {
    input.value = state[name];
    output.textContent = text(state[name]);
    input.setAttribute("aria-valuetext", text(state[name]));
  };
  return { element: h("div", { class: "vx-control" }, h("label", { for: id }, label), input, output), sync };
}

// Where in depth: at each stop, each model shows the layer nearest to it.
function depthSlider(model) {
  const { stops } = model.get("header");
  return slider(model, { name: "layer", label: "Depth", text: (i) => fixed(stops[i]) });
}

// One of a few: buttons up to four of them, else a list. words: what the values of a choice of words are called, if not by
// themselves; of a choice of numbers, what each is called. Null where there is nothing to choose.
function choice(model, { name, label, words }) {
  const choices = model.get("header").choices[name];
  const values = Array.isArray(choices) ? choices : Array.from({ length: choices }, (_, i) => i);
  const texts = values.map((value) => words?.[value] ?? value);
  if (values.length < 2) return null;
  const set = (i) => change(model, { [name]: values[i] });
  const { element, check } = values.length > 4 ? list(label, texts, set) : buttons(label, texts.map((text) => [text]), set);
  return { element, sync: (state) => check(values.indexOf(state[name])) };
}

function list(label, texts, set) {
  const id = freshId();
  const select = h("select", { id, onchange: () => set(select.selectedIndex) }, ...texts.map((text) => h("option", {}, text)));
  const check = (i) => { select.selectedIndex = i; };
  return { element: h("div", { class: "vx-control" }, h("label", { for: id }, label), select), check };
}

// contents: the children of each button.
function buttons(label, contents, set, classes = "") {
  const group = freshId();
  const inputs = contents.map((_, i) => h("input", { type: "radio", name: group, id: freshId(), onchange: () => set(i) }));
  const element = h("fieldset", { class: `vx-control vx-choice ${classes}` }, h("legend", {}, label),
    h("span", {}, ...inputs.flatMap((input, i) => [input, h("label", { for: input.id }, ...contents[i])])));
  return { element, inputs, check: (i) => { inputs[i].checked = true; } };
}

// Is the chosen token a patch, or one of those without a place in the image, `most` at most? At first, the patch in the middle
// of the grid. paint(token, count, describe): count: how many have no place; describe(i): how far along the colours each is,
// and what is said of it.
function tokenChoice(model, { label, most, grid: [rows, columns], table }) {
  const colors = Array.from({ length: most }, () => h("i", { class: "vx-chip" }));
  const words = colors.map(() => h("span", {}));
  let count = most, patch = Math.floor(rows / 2) * columns + Math.floor(columns / 2);
  const { element, inputs, check } = buttons(label, [["a patch"], ...colors.map((color, i) => [color, words[i]])],
    (i) => change(model, { token: i ? i - 1 : count + patch }), "vx-query");
  const paint = (token, now, describe) => {
    count = now;
    if (token >= count) patch = token - count; // to come back to
    element.hidden = count === 0;
    check(token < count ? token + 1 : 0);
    colors.forEach((color, i) => {
      for (const one of [inputs[i + 1], inputs[i + 1].nextElementSibling]) one.hidden = i >= count;
      const [share, text] = i < count ? describe(i) : [0, ""];
      color.style.background = css(table, share);
      words[i].textContent = text;
    });
  };
  return { element, paint };
}

// A picture of rows x columns cells in which one is chosen by click, touch or arrow keys. `pixels`: the canvas; `marks`: an
// SVG on top, one unit a cell. get(state) gives [row, column] or null; set(row, column) changes the state; text(state)
// says what is chosen. cell(x, y): of a point in fractions of the picture, where cells are not all of one size.
// hover(row, column | null): what the pointer is over. upward: row 0 is at the bottom.
function picker({ label, rows, columns, get, set, text, hover, cell, upward = false, classes = "" }) {
  const size = () => [typeof rows === "function" ? rows() : rows, typeof columns === "function" ? columns() : columns];
  const pixels = h("canvas", { "aria-hidden": "true" });
  const marks = svg("svg", { preserveAspectRatio: "none", "aria-hidden": "true" });
  const element = h("div", { class: `vx-picker ${classes}`, tabindex: 0, role: "slider", "aria-label": label,
    onpointerdown: pick, onpointermove: move, onpointerleave: () => hover?.(null), onkeydown: key }, pixels, marks);
  let chosen = null;

  function at(event) {
    const box = pixels.getBoundingClientRect();
    const [r, c] = size();
    const x = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 0.9999);
    let y = Math.min(Math.max((event.clientY - box.top) / box.height, 0), 0.9999);
    if (upward) y = 0.9999 - y;
    return cell ? cell(x, y) : [Math.floor(y * r), Math.floor(x * c)];
  }
  function pick(event) {
    if (event.button === 0) set(...at(event));
  }
  function move(event) {
    if (event.buttons & 1 && event.pointerType === "mouse") set(...at(event));
    hover?.(...at(event));
  }
  function key(event) {
    const [r, c] = size();
    const [row, column] = chosen ?? [0, 0];
    const up = upward ? 1 : -1;
    const to = { ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1], ArrowUp: [row + up, column],
      ArrowDown: [row - up, column], Home: [row, 0], End: [row, c - 1], PageUp: [upward ? r - 1 : 0, column],
      PageDown: [upward ? 0 : r - 1, column] }[event.key];
    if (!to || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    set(Math.min(Math.max(to[0], 0), r - 1), Math.min(Math.max(to[1], 0), c - 1));
  }
  function sync(state) {
    chosen = get(state);
    const [r, c] = size();
    element.setAttribute("aria-valuemin", 0);
    element.setAttribute("aria-valuemax", r * c - 1);
    element.setAttribute("aria-valuenow", chosen ? chosen[0] * c + chosen[1] : 0);
    element.setAttribute("aria-valuetext", text(state));
  }
  return { element, pixels, marks, sync };
}

// A heat map over the image's grid, in which a cell is chosen: its name above it; its colours and a line of text below it.
// get, set: see picker. say(row, column): a cell in words; rest(): what stands there while no cell is pointed at.
// paint({rows, columns, low, high, value, chosen}): chosen: [row, column] or null; the colours' ends are said times `times`.
function gridMap(table, { label, get, set, say, rest = () => "", text, bar, digits, times = 1 }) {
  let size = [1, 1];
  const head = h("p", { class: "vx-head" });
  const readout = h("p", { class: "vx-readout" });
  const map = picker({ label, rows: () => size[0], columns: () => size[1], get, set, text,
    hover: (row, column) => { readout.textContent = row === null ? rest() : say(row, column); } });
  const colors = colorBar(table, { label: bar, low: 0, high: 1, digits });
  const element = h("div", { class: "vx-token-map" }, head, map.element, colors.element, readout);
  function paint(state, { rows, columns, low, high, value, chosen }) {
    size = [rows, columns];
    heat(map.pixels, { rows, columns, low, high, table, value });
    map.pixels.style.aspectRatio = `${columns} / ${rows}`;
    frame(map.marks, rows, columns, chosen ? [{ row: chosen[0], column: chosen[1] }] : []);
    colors.set(times * low, times * high);
    readout.textContent = rest();
    map.sync(state);
  }
  const show = (isShown) => { for (const one of [map.element, colors.element]) one.hidden = !isShown; };
  return { element, head, readout, marks: map.marks, paint, show };
}

// --- painting ---------------------------------------------------------------------------------------------------

// The 256 colours of the explorer's map, as [r, g, b] one after the other.
function colors(model) {
  const hex = model.get("header").colors;
  return Uint8Array.from({ length: hex.length / 2 }, (_, i) => parseInt(hex.slice(2 * i, 2 * i + 2), 16));
}

const BAD = [128, 128, 128]; // where there is no value: GREY

// Fill a canvas, one pixel a cell, or `across` and `down` (which cell each pixel shows) where cells differ in size.
// value(row, column) between low and high takes the colours of `table`; upward: row 0 is at the bottom.
function heat(canvas, { rows, columns, value, low, high, table, across, down, upward = false }) {
  const width = across?.length ?? columns;
  const height = down?.length ?? rows;
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  // The colours of the cells first, so that a map of many pixels asks for each value once.
  const cells = new Uint8Array(4 * rows * columns);
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      cells.set([...shade(value(row, column), low, high, table), 255], 4 * (row * columns + column));
    }
  }
  const image = new ImageData(width, height);
  const [from, to] = [cells, image.data].map((bytes) => new Uint32Array(bytes.buffer));
  for (let y = 0; y < height; y += 1) {
    const line = upward ? height - 1 - y : y;
    const start = columns * (down ? down[line] : line);
    for (let x = 0; x < width; x += 1) to[y * width + x] = from[start + (across ? across[x] : x)];
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function shade(value, low, high, table) {
  if (!Number.isFinite(value)) return BAD;
  const color = 3 * Math.min(Math.max(Math.floor(((value - low) / (high - low || 1)) * 256), 0), 255);
  return table.subarray(color, color + 3);
}

const css = (table, share) => `rgb(${shade(share, 0, 1, table).join()})`;

// A frame around one cell, light with a dark edge, so that it is seen on every colour. For `marks` of a picker.
function frame(marks, rows, columns, cells, upward = false) {
  marks.setAttribute("viewBox", `0 0 ${columns} ${rows}`);
  marks.replaceChildren(...cells.flatMap(({ row, column, width = 1, height = 1, dashed = false }) =>
    ["vx-edge", "vx-frame"].map((name) => svg("rect", { class: dashed ? `${name} vx-dashed` : name, x: column,
      y: upward ? rows - row - height : row, width, height }))));
}

// A colour bar with its ends and what it means.
function colorBar(table, { label, low, high, digits = 1 }) {
  const canvas = h("canvas", { "aria-hidden": "true" });
  const ends = [h("span", {}), h("span", {})];
  const name = h("span", { class: "vx-bar-label" }, label);
  const set = (from, to, what = label) => {
    ends[0].textContent = fixed(from, digits);
    ends[1].textContent = fixed(to, digits);
    name.textContent = what;
  };
  heat(canvas, { rows: 1, columns: 256, value: (_, x) => x, low: 0, high: 256, table });
  set(low, high);
  return { element: h("div", { class: "vx-bar" }, ends[0], canvas, ends[1], name), set };
}

// Lines over x. draw(series, marks, options) draws all anew. series: {label, points: [[x, y], …], color, thin, dash, dots,
// hollow (which dots are), band: [[x, low, high], …]}; marks: x where a thin upright line stands; options take the place of
// those given here: head, xLabel, yLabel, the ends x and y, and xTicks and yTicks, [[x, text], …] in place of even ones.
function plot({ label, height = 200, ...given }) {
  const box = { width: 340, height, left: 44, right: 8, top: 8, bottom: 36 };
  const head = h("p", { class: "vx-head" });
  const figure = h("figure", { class: "vx-plot", role: "img", "aria-label": label });
  const draw = (series, marks = [], options = {}) => {
    const now = { ...given, ...options };
    const { px, py } = scales(box, now);
    const chart = svg("svg", { viewBox: `0 0 ${box.width} ${height}`, "aria-hidden": "true" },
      ...axes({ ...box, ...now, px, py }),
      ...marks.map((value) => svg("line", { class: "vx-mark", x1: px(value), x2: px(value), y1: box.top, y2: height - box.bottom })),
      ...series.flatMap((one) => line(one, px, py)));
    const legend = series.filter((one) => one.label).map((one) => h("span", {},
      svg("svg", { viewBox: "0 0 24 6", "aria-hidden": "true" },
        svg("path", { d: "M0 3H24", stroke: one.color, "stroke-width": 3, "stroke-dasharray": one.dash })), one.label));
    head.textContent = now.head;
    figure.replaceChildren(chart, h("figcaption", {}, ...legend));
  };
  return { element: h("div", {}, head, figure), draw };
}

// Where a value lies in a box of pixels whose inner edges are the ends x and y.
function scales({ width, height, left, right, top, bottom }, { x: [x0, x1], y: [y0, y1] }) {
  return { px: (value) => left + ((value - x0) / (x1 - x0 || 1)) * (width - left - right),
    py: (value) => height - bottom - ((value - y0) / (y1 - y0 || 1)) * (height - top - bottom) };
}

function line({ points, color, thin, dash, dots, hollow, band = [] }, px, py) {
  // A gap in the values is a gap in the line.
  const steps = points.map(([a, b], i) => Number.isFinite(b)
    ? `${i && Number.isFinite(points[i - 1][1]) ? "L" : "M"}${px(a).toFixed(1)} ${py(b).toFixed(1)}` : "");
  const path = svg("path", { d: steps.join(""), fill: "none", stroke: color, "stroke-width": thin ? 1 : 2,
    "stroke-dasharray": dash });
  const circles = points.flatMap(([a, b], i) => (dots && Number.isFinite(b)
    ? [svg("circle", { cx: px(a).toFixed(1), cy: py(b).toFixed(1), r: 3, fill: hollow?.[i] ? "none" : color, stroke: color })] : []));
  const known = band.filter(([, low, high]) => Number.isFinite(low) && Number.isFinite(high));
  const edge = [...known.map(([a, low]) => [a, low]), ...known.reverse().map(([a, , high]) => [a, high])];
  const area = svg("polygon", { points: edge.map(([a, b]) => `${px(a).toFixed(1)},${py(b).toFixed(1)}`).join(" "), fill: color, "fill-opacity": 0.2 });
  return [edge.length ? area : null, path, ...circles].filter(Boolean);
}

function axes({ x, y, px, py, width, height, left, right, bottom, top, xLabel, yLabel, xTicks, yTicks }) {
  const base = height - bottom;
  const text = (words, options) => svg("text", options, words);
  const even = (ends) => ticks(...ends).map((value) => [value, String(value)]);
  return [
    svg("path", { class: "vx-axis", fill: "none", d: `M${left} ${top}V${base}H${width - right}` }),
    ...(xTicks ?? even(x)).map(([value, words]) => text(words, { x: px(value), y: base + 14, "text-anchor": "middle" })),
    ...(yTicks ?? even(y)).map(([value, words]) => text(words, { x: left - 5, y: py(value) + 4, "text-anchor": "end" })),
    text(xLabel, { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }),
    text(yLabel, { transform: `translate(11 ${(top + base) / 2}) rotate(-90)`, "text-anchor": "middle" }),
  ];
}

// Round numbers between two ends, four to seven of them.
function ticks(low, high) {
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / 4));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => span / size <= 6) ?? 10 * power;
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * span; i += 1) found.push(Number((i * step).toPrecision(6)));
  return found;
}
