// Pictures of neurons and edges: colours, one atlas of tiles for each column, lines by sign and width.

const FALLBACK = { paper: "#fff", ink: "#222", quiet: "#777", line: "#ccc", panel: "#f6f6f6", positive: "#2f6db3",
  negative: "#c8394b", accent: "#e39b2d" };
const MOST_PIXELS = 2 ** 24; // of an atlas; larger tiles are thinned out

// The colours of the page, and tables from a signed byte to a pixel.
export function palette(element) {
  const style = getComputedStyle(element);
  const probe = document.createElement("canvas").getContext("2d");
  const colours = {};
  for (const [name, fallback] of Object.entries(FALLBACK)) {
    probe.fillStyle = fallback;
    probe.fillStyle = style.getPropertyValue(`--${name}`).trim() || fallback;
    colours[name] = probe.fillStyle;
  }
  colours.classes = [colours.positive, colours.accent, colours.negative, "#4c9a5b", "#8a63b8", "#6b7785"];
  colours.weights = table(colours.positive, colours.negative, 0.7);
  colours.heat = table(colours.positive, colours.negative, 1);
  // The side of a class, and of all others.
  const others = (i) => [colours.accent, colours.positive][i] ?? "#888888";
  colours.sides = colours.classes.map((colour, i) => table(colour, others(i), 1));
  return colours;
}

const rgb = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));

function table(positive, negative, power) {
  const found = new Uint32Array(256);
  const [up, down] = [rgb(positive), rgb(negative)];
  for (let v = -127; v < 128; v++) {
    const [r, g, b] = v > 0 ? up : down;
    const alpha = Math.round(255 * (Math.abs(v) / 127) ** power);
    found[v + 128] = (alpha << 24) | (b << 16) | (g << 8) | r; // little-endian, as all browsers' machines are
  }
  found[0] = (30 << 24) | 0x808080; // no edge
  return found;
}

// Draws the tiles of a column into its atlas. `bytes` hold `length` values for each node; `shape` is the
// height and width of a tile. `tables` is one table, or a function from a node's index to one.
export function drawAtlas(column, bytes, length, shape, tables) {
  const n = column.ids.length;
  const thin = Math.max(1, Math.ceil(Math.sqrt((n * shape[0] * shape[1]) / MOST_PIXELS)));
  const [h, w] = shape.map((side) => Math.ceil(side / thin));
  const tile = Math.max(h, w);
  const cell = tile + Math.max(1, Math.round(tile * column.gap));
  const [width, height] = [column.cols * cell, column.rows * cell];
  let atlas = column.atlas;
  if (!atlas || atlas.width !== width || atlas.height !== height) {
    const canvas = Object.assign(document.createElement("canvas"), { width, height });
    const image = new ImageData(width, height);
    atlas = { canvas, image, width, height, pixels: new Uint32Array(image.data.buffer) };
  }
  Object.assign(atlas, { tile, cell });
  atlas.pixels.fill(0);
  for (let i = 0; i < n && (i + 1) * length <= bytes.length; i++) {
    const colours = typeof tables === "function" ? tables(i) : tables;
    const left = (i % column.cols) * cell + ((tile - w) >> 1);
    const top = Math.floor(i / column.cols) * cell + ((tile - h) >> 1);
    for (let y = 0; y < h; y++) {
      const from = i * length + y * thin * shape[1];
      const to = (top + y) * width + left;
      for (let x = 0; x < w; x++) {
        const at = y * thin * shape[1] + x * thin;
        if (at < length) atlas.pixels[to + x] = colours[bytes[from + x * thin] + 128];
      }
    }
  }
  atlas.canvas.getContext("2d").putImageData(atlas.image, 0, 0);
  column.atlas = atlas;
}

// Height and width of a tile for so many weights: an image's, or, if it is not too long, that of the column of nodes
// that they read, so that each stands where its node stands; else a rectangle that they fill, or nearly a square. The
// last row may have places without a weight.
export function tileShape(length, image, before) {
  if (image && image[0] * image[1] === length) return image;
  const rows = (cols) => Math.max(1, Math.ceil(length / cols));
  const side = Math.ceil(Math.sqrt(length)) || 1;
  const widths = Array.from({ length: side }, (_, i) => side + i).filter((cols) => length % cols === 0);
  const fits = (cols) => cols > 0 && cols <= 4 * rows(cols) && rows(cols) <= 4 * cols;
  const cols = [before?.cols, ...widths, side].find(fits);
  return [rows(cols), cols];
}

// Draws the seen tiles of a column. A grid's gaps are to its tiles as in its atlas, so that a far grid is one image.
export function drawTiles(ctx, column, nodes, k) {
  const { atlas } = column;
  if (!atlas) return;
  ctx.imageSmoothingEnabled = column.tile * k < atlas.tile;
  for (const node of nodes) {
    const col = node.index % column.cols;
    const row = Math.floor(node.index / column.cols);
    ctx.drawImage(atlas.canvas, col * atlas.cell, row * atlas.cell, atlas.tile, atlas.tile,
      node.x, node.y, node.size, node.size);
  }
}

// --- status ---------------------------------------------------------------------------------------

export const STATUSES = {
  dead: "dead: its value never changes, or is never positive",
  dormant: "dormant: hardly ever active",
  frozen: "frozen: training leaves it alone",
  cut: "cut: no edges",
  nan: "NaN began here",
};

const ICE = "#35b6d6";
const ALARM = "#ff1f9c";

let hatch = null;

function hatching() {
  if (hatch) return hatch;
  const canvas = Object.assign(document.createElement("canvas"), { width: 8, height: 8 });
  const ctx = canvas.getContext("2d");
  ctx.strokeStyle = "#888";
  ctx.lineWidth = 1.6;
  ctx.beginPath();
  for (const d of [-8, 0, 8]) {
    ctx.moveTo(d - 1, 9);
    ctx.lineTo(d + 9, -1);
  }
  ctx.stroke();
  hatch = ctx.createPattern(canvas, "repeat");
  return hatch;
}

// Marks neurons that are not as others. Widths are in pixels of the screen: `k` is the zoom.
export function drawStatus(ctx, nodes, colours, k) {
  const by = {};
  for (const node of nodes) if (node.status !== "ok") (by[node.status] ??= []).push(node);
  const path = (group, grow = 0) => {
    ctx.beginPath();
    for (const { x, y, size } of group) ctx.rect(x - grow, y - grow, size + 2 * grow, size + 2 * grow);
  };
  const cover = (group, alpha) => {
    path(group);
    ctx.globalAlpha = alpha;
    ctx.fillStyle = colours.paper;
    ctx.fill();
    ctx.globalAlpha = 1;
  };
  if (by.dormant) cover(by.dormant, 0.68);
  if (by.dead) {
    cover(by.dead, 0.8);
    hatching().setTransform(new DOMMatrix().scale(1 / k));
    ctx.fillStyle = hatch;
    ctx.fill();
  }
  if (by.cut) {
    cover(by.cut, 1);
    ctx.setLineDash([4 / k, 3 / k]);
    ctx.strokeStyle = colours.quiet;
    ctx.lineWidth = 1.2 / k;
    ctx.stroke();
    ctx.setLineDash([]);
  }
  if (by.frozen) {
    path(by.frozen, 1 / k);
    ctx.strokeStyle = ICE;
    ctx.lineWidth = 2.6 / k;
    ctx.stroke();
    for (const node of by.frozen) if (node.size * k > 22) snowflake(ctx, node, k);
  }
  for (const [width, alpha] of by.nan ? [[12, 0.25], [7, 0.45], [3, 1]] : []) {
    path(by.nan, 2 / k);
    ctx.strokeStyle = ALARM;
    ctx.globalAlpha = alpha;
    ctx.lineWidth = width / k;
    ctx.stroke();
    ctx.globalAlpha = 1;
  }
}

function snowflake(ctx, { x, y, size }, k) {
  const r = 5 / k;
  const [cx, cy] = [x + size - 1.4 * r, y + 1.4 * r];
  ctx.fillStyle = "#fff";
  ctx.globalAlpha = 0.85;
  ctx.beginPath();
  ctx.arc(cx, cy, 1.4 * r, 0, 7);
  ctx.fill();
  ctx.globalAlpha = 1;
  ctx.lineWidth = 1.4 / k;
  ctx.beginPath();
  for (const angle of [0, 1, 2].map((i) => (i * Math.PI) / 3 + Math.PI / 2)) {
    ctx.moveTo(cx - r * Math.cos(angle), cy - r * Math.sin(angle));
    ctx.lineTo(cx + r * Math.cos(angle), cy + r * Math.sin(angle));
  }
  ctx.stroke();
}

// --- edges ----------------------------------------------------------------------------------------

const WIDTHS = 6;

// Lines of edges as numbers, the weakest first: [x0, y0, x1, y1, bucket] each. Buckets are signs and widths.
export function lines(at, edges) {
  const most = edges.reduce((m, [, , weight]) => Math.max(m, Math.abs(weight ?? 0)), 0) || 1;
  const known = edges.filter(([source, target]) => at.has(source) && at.has(target));
  known.sort((a, b) => Math.abs(a[2] ?? 0) - Math.abs(b[2] ?? 0));
  const found = new Float32Array(known.length * 5);
  known.forEach(([source, target, weight], i) => {
    const [from, to] = [at.get(source), at.get(target)];
    const inside = from.column.kind === "image" ? from.size / 2 : from.size;
    const level = Math.min(WIDTHS - 1, Math.floor((Math.abs(weight ?? 0) / most) * WIDTHS));
    const bucket = weight === null ? 0 : 1 + level + (weight < 0 ? WIDTHS : 0);
    found.set([from.x + inside, from.y + from.size / 2, to.x, to.y + to.size / 2, bucket], i * 5);
  });
  return found;
}

// Strokes the lines from `first` to `last`. `bold` is a factor of widths, `ink` of opacity.
export function drawLines(ctx, found, k, colours, options) {
  const { first = 0, last = found.length / 5, bold = 1, ink = 1, curved = false, box } = options;
  const paths = [];
  for (let i = first * 5; i < last * 5; i += 5) {
    const [x0, y0, x1, y1] = [found[i], found[i + 1], found[i + 2], found[i + 3]];
    if (box && (Math.max(x0, x1) < box[0] || Math.min(x0, x1) > box[2] || Math.max(y0, y1) < box[1]
        || Math.min(y0, y1) > box[3])) continue;
    const path = (paths[found[i + 4]] ??= new Path2D());
    path.moveTo(x0, y0);
    const bend = curved ? (x1 - x0) / 2 : 0;
    if (curved) path.bezierCurveTo(x0 + bend, y0, x1 - bend, y1, x1, y1);
    else path.lineTo(x1, y1);
  }
  paths.forEach((path, bucket) => {
    const level = bucket === 0 ? 1 : (bucket - 1) % WIDTHS;
    ctx.strokeStyle = bucket === 0 ? colours.quiet : bucket > WIDTHS ? colours.negative : colours.positive;
    ctx.globalAlpha = Math.min(1, ink * (0.16 + 0.13 * level));
    ctx.lineWidth = (bold * (0.5 + 0.6 * level)) / k;
    ctx.stroke(path);
  });
  ctx.globalAlpha = 1;
}

// Very many lines, drawn into images a part at a time, so that no frame is late: one image of the whole, and
// a sharp one of the present view as soon as it rests.
export class ManyLines {
  constructor() {
    this.found = new Float32Array(0);
    this.whole = this.detail = this.next = null;
    this.part = 1000;
  }

  replace(found) {
    this.found = found;
    this.stale = true;
    this.detail = this.detail && { ...this.detail, k: -1 };
    this.next = null;
  }

  get length() {
    return this.found.length / 5;
  }

  // Draws the images; the sharp one where there is one.
  draw(ctx, view) {
    const { detail } = this;
    const whole = this.whole ?? (this.next?.kind === "whole" ? this.next : null);
    if (!whole) return;
    ctx.imageSmoothingEnabled = true;
    const box = (image) => {
      const zoom = view.k / image.view.k;
      return [view.x - image.view.x * zoom, view.y - image.view.y * zoom, image.w * zoom, image.h * zoom];
    };
    const close = detail && detail.k > 0 && view.k < detail.k * 3 && view.k > detail.k / 3;
    const sharp = close && view.k > whole.view.k * 1.1;
    ctx.save();
    if (sharp) {
      ctx.beginPath();
      ctx.rect(0, 0, view.w, view.h);
      ctx.rect(...box(detail));
      ctx.clip("evenodd");
    }
    ctx.drawImage(whole.canvas, ...box(whole));
    ctx.restore();
    if (sharp) ctx.drawImage(detail.canvas, ...box(detail));
  }

  // Draws one more part; returns whether more is left. `fit` is the view of the whole, `rests` whether the view does.
  work(view, fit, ratio, colours, rests, late) {
    if (!this.next) {
      const { whole, detail } = this;
      const needsWhole = this.stale || !whole || whole.view.k !== fit.k || whole.w !== fit.w;
      const covered = detail && detail.k === view.k && detail.view.x === view.x && detail.view.y === view.y;
      if (needsWhole) this.next = image("whole", fit, ratio);
      else if (rests && view.k > fit.k * 1.1 && !covered) this.next = image("detail", view, ratio);
      else return !rests && view.k > fit.k * 1.1 && !covered;
      this.stale &&= this.next.kind !== "whole";
    }
    this.part = Math.max(400, Math.min(8000, this.part * (late ? 0.6 : 1.15)));
    const { next } = this;
    const last = Math.min(this.length, next.done + Math.round(this.part));
    const { k, x, y, w, h } = next.view;
    const box = [-x / k, -y / k, (w - x) / k, (h - y) / k];
    const ink = Math.min(0.7, Math.sqrt(2000 / this.length));
    drawLines(next.ctx, this.found, k, colours, { first: next.done, last, bold: 0.7, ink, box });
    next.done = last;
    if (last < this.length) return true;
    this[next.kind] = { ...next, k };
    this.next = null;
    return true;
  }
}

function image(kind, view, ratio) {
  const canvas = Object.assign(document.createElement("canvas"), { width: view.w * ratio, height: view.h * ratio });
  const ctx = canvas.getContext("2d");
  ctx.setTransform(view.k * ratio, 0, 0, view.k * ratio, view.x * ratio, view.y * ratio);
  return { kind, canvas, ctx, view: { ...view }, w: view.w, h: view.h, done: 0 };
}
