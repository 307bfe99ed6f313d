// Where everything stands: the input, then a column for each layer or level, in units of a world of its own.

const GAP = 0.15; // between the tiles of a grid, as a share of a tile
const HEIGHT = 1000;
const MOST_COLUMNS = 12; // a deeper graph gets a taller world, so that its edges have room
const MOST_NAMES = 64;

// Places of a network: {columns, input, at, x, y, w, h}. `at` finds a neuron or input by its id; `aspect` is
// the width of the view by its height.
export function layout(net, state, aspect) {
  const { plane } = state.data;
  const height = HEIGHT * Math.max(1, net.columns.length / MOST_COLUMNS);
  const at = new Map();
  const input = inputs(net, state, height, at);
  const outputs = new Set(net.outputs);
  const columns = net.columns.map((ids, number) => {
    const isOutput = ids.some((id) => outputs.has(id));
    const column = grid(ids, height, plane ? (isOutput ? 300 : 100) : 84);
    return Object.assign(column, { number, isOutput, nodes: [], atlas: null });
  });
  const boxes = [input, ...columns];
  const y = Math.min(...boxes.map((box) => box.y));
  const h = Math.max(...boxes.map((box) => box.y + box.h)) - y;
  const between = gap(boxes, h * aspect);
  let x = input.w;
  for (const column of columns) {
    column.x = x + between;
    x = column.x + column.w;
    column.ids.forEach((id, index) => {
      const inLayer = state.layers.length > 0 && index < state.layers[column.number].size;
      const place = inLayer ? { node: id, layer: column.number, neuron: index } : { node: id };
      const node = { id, place, column, index, size: column.tile, ...spot(column, index), ...net.neurons[id] };
      column.nodes.push(node);
      at.set(id, node);
    });
  }
  return { columns, input, at, x: 0, y, w: x, h };
}

// Between columns: at least some room for edges, and more if the view is wide.
function gap(boxes, width) {
  const [least, most] = boxes.length > MOST_COLUMNS ? [70, 110] : [130, 340];
  const free = width - boxes.reduce((sum, box) => sum + box.w, 0);
  return Math.min(most, Math.max(least, free / (boxes.length - 1)));
}

// A column of tiles; many wrap into a grid about as narrow as it can be read.
function grid(ids, height, largest) {
  const n = ids.length;
  const cols = n <= 16 || (height > HEIGHT && n <= 200) ? 1 : Math.round(Math.sqrt(n * 0.4));
  const rows = Math.ceil(n / cols);
  const tile = Math.min(largest, height / (rows * (1 + GAP)));
  const pitch = cols === 1 ? Math.min(tile * (height > HEIGHT ? 3 : 1.4), height / rows) : tile * (1 + GAP);
  const w = cols === 1 ? tile : cols * pitch - tile * GAP;
  const h = rows * pitch - (pitch - tile);
  return { ids, cols, rows, tile, pitch, gap: GAP, x: 0, y: -h / 2, w, h };
}

function spot(column, index) {
  const col = index % column.cols;
  const row = Math.floor(index / column.cols);
  return { x: column.x + col * column.pitch, y: column.y + row * column.pitch };
}

// The input: the frame of an image, tiles over the plane, dots with names, or a field of dots.
function inputs(net, state, height, at) {
  const ids = net.inputs;
  const place = (input, index, x, y, size) => at.set(ids[index], {
    id: ids[index], input: index, place: { node: ids[index], input: index }, column: input, index, x, y, size,
    name: state.data.columns?.[index] ?? `input ${index}`, status: "ok",
  });
  if (net.image && net.image[0] * net.image[1] === ids.length) {
    const [rows, cols] = net.image;
    const pixel = 460 / Math.max(rows, cols);
    const [w, h] = [cols * pixel, rows * pixel];
    const input = { kind: "image", ids, rows, cols, pixel, x: 0, y: -h / 2, w, h };
    ids.forEach((_, i) => place(input, i, (i % cols) * pixel, input.y + Math.floor(i / cols) * pixel, pixel));
    return input;
  }
  if (ids.length <= MOST_NAMES) {
    const tile = state.data.plane ? 80 : Math.min(26, height / ids.length / 1.2);
    const input = { kind: state.data.plane ? "plane" : "dots", number: -1, atlas: null, ...grid([0], height, tile) };
    const pitch = Math.min(tile * (state.data.plane ? 1.4 : 2.2), height / ids.length);
    const h = pitch * (ids.length - 1) + tile;
    Object.assign(input, { ids, cols: 1, rows: ids.length, pitch, tile, h, y: -h / 2 });
    ids.forEach((_, i) => place(input, i, 0, input.y + i * pitch, tile));
    input.nodes = ids.map((id) => at.get(id));
    return input;
  }
  const input = { kind: "field", ...grid(ids, height, 16) };
  ids.forEach((_, i) => {
    const { x, y } = spot(input, i);
    place(input, i, x, y, input.tile);
  });
  return input;
}

// The neuron or input at a point of the world.
export function nodeAt(world, x, y) {
  for (const column of [world.input, ...world.columns]) {
    if (x < column.x || x > column.x + column.w || y < column.y || y > column.y + column.h) continue;
    const pitch = column.pixel ?? column.pitch;
    const col = Math.min(column.cols - 1, Math.floor((x - column.x) / pitch));
    const index = Math.floor((y - column.y) / pitch) * column.cols + col;
    const node = world.at.get(column.ids[index]);
    if (node && x <= node.x + node.size && y <= node.y + node.size) return node;
  }
  return null;
}

// The nodes of a column that can be seen between two corners.
export function seen(column, x0, y0, x1, y1) {
  if (column.x > x1 || column.x + column.w < x0) return [];
  const first = Math.max(0, Math.floor((y0 - column.y) / column.pitch));
  const last = Math.min(column.rows - 1, Math.floor((y1 - column.y) / column.pitch));
  const found = column.nodes.slice(first * column.cols, (last + 1) * column.cols);
  return column.cols === 1 ? found : found.filter((node) => node.x <= x1 && node.x + node.size >= x0);
}
