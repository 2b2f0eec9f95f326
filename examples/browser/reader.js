// Reads banks (docs/bank-format.md, docs/sealed.md) by range: the header, the manifest, and then of
// one tensor only the base's bytes, one superposition and what the task keeps of its own.

import { shake256, xxh3 } from "./hashes.js";
import { ITEM_SIZE, convert, fromFloat32, isFloat, toFloat32, unseal } from "./numbers.js";

const CHUNK = 1 << 20;
const FEATURES = new Set(["superposition", "sealed", "share", "ties", "shards"]);
const DISTORTION = { 1: 0.3634, 2: 0.1175, 3: 0.03455, 4: 0.009501, 8: 0.00006 };
const fround = Math.fround;

function need(condition, rule) {
  if (!condition) throw new Error(rule);
}

const product = (numbers) => numbers.reduce((a, b) => a * b, 1);

// ---------------------------------------------------------------- sources of bytes

/** A file on a server that answers range requests. */
export async function fromUrl(url) {
  const first = await fetch(url, { headers: { Range: "bytes=0-7" } });
  need(first.status === 206, `${url}: the server answers no range requests`);
  const size = Number(first.headers.get("Content-Range").split("/")[1]);
  return {
    size,
    async read(start, end) {
      if (start === end) return new Uint8Array(0);
      const answer = await fetch(url, { headers: { Range: `bytes=${start}-${end - 1}` } });
      need(answer.status === 206, `${url}: ${answer.status}`);
      return new Uint8Array(await answer.arrayBuffer());
    },
  };
}

/** A File or Blob. */
export function fromBlob(blob) {
  return {
    size: blob.size,
    read: async (start, end) => new Uint8Array(await blob.slice(start, end).arrayBuffer()),
  };
}

// ---------------------------------------------------------------- JSON, shapes, streams

/** JSON without keys that stand twice and without half characters. */
function strictJson(bytes) {
  const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  const value = JSON.parse(text);
  // JSON.parse keeps the last of two equal keys: count them as they stand and as they came out.
  const strings = text.match(/"(?:[^"\\]|\\.)*"/g) ?? [];
  need(strings.every((word) => JSON.parse(word).isWellFormed?.() ?? true), "half a character");
  const standing = (text.replace(/"(?:[^"\\]|\\.)*"/g, '""').match(/"":/g) ?? []).length;
  const count = (item) => {
    if (Array.isArray(item)) return item.reduce((sum, inner) => sum + count(inner), 0);
    if (item === null || typeof item !== "object") return 0;
    return Object.values(item).reduce((sum, inner) => sum + 1 + count(inner), 0);
  };
  need(count(value) === standing, "a key twice");
  return value;
}

/** Rows and columns: leading dimensions multiplied, and the last; a vector is 1 × n. */
function matrix(shape) {
  return shape.length ? [product(shape.slice(0, -1)), shape.at(-1)] : [1, 1];
}

/** R × C of sealed scales and two-sided signs, a dimension on each side; a vector is 1 × n. */
function squarest(shape) {
  if (shape.length < 2) return [1, product(shape)];
  let best = null;
  for (let at = shape.length - 1; at >= 1; at--) {
    const cut = [product(shape.slice(0, at)), product(shape.slice(at))];
    if (best === null || cut[0] + cut[1] < best[0] + best[1]) best = cut;
  }
  return best;
}

function chunkSpans(shape) {
  const [rows, columns] = matrix(shape);
  const spans = [];
  if (columns > CHUNK) {
    for (let row = 0; row < rows; row++) {
      for (let at = 0; at < columns; at += CHUNK) {
        spans.push([row * columns + at, row * columns + Math.min(columns, at + CHUNK)]);
      }
    }
  } else if (rows * columns > 0) {
    const step = Math.floor(CHUNK / columns) * columns;
    for (let at = 0; at < rows * columns; at += step) {
      spans.push([at, Math.min(rows * columns, at + step)]);
    }
  }
  return spans;
}

function signBits(seed, name, count) {
  const bytes = shake256(`randes/1|signs|${seed}|${name}`, Math.ceil(count / 8));
  return (at) => (bytes[at >> 3] >> (at & 7)) & 1;
}

/** Whether element number i is flipped, as a function of i. */
function flipping(kind, seed, name, shape) {
  if (kind === "none") return () => 0;
  if (kind === "two-sided") {
    const [rows, columns] = squarest(shape);
    const bit = signBits(seed, name, rows + columns);
    return (i) => bit(Math.floor(i / columns)) ^ bit(rows + (i % columns));
  }
  const [rows, columns] = matrix(shape);
  if (kind === "column") {
    const bit = signBits(seed, name, columns);
    return (i) => bit(i % columns);
  }
  need(kind === "hankel", `signs ${kind}`);
  const bit = signBits(seed, name, Math.max(rows + columns - 1, 0));
  return (i) => bit(Math.floor(i / columns) + (i % columns));
}

/** σ: the layer that a task puts at each position. */
function permutation(kind, seed, index, layerType, layers) {
  const order = Array.from({ length: layers }, (_, i) => i);
  if (kind === "shift") return order.map((p) => (((p - index) % layers) + layers) % layers);
  need(kind === "random", `shuffle ${kind}`);
  const words = shake256(`randes/1|shuffle|${seed}|${layerType}`, 8 * layers);
  const data = new DataView(words.buffer, words.byteOffset, words.byteLength);
  for (let i = layers - 1, at = 0; i > 0; i--, at += 8) {
    const j = Number(data.getBigUint64(at, true) % BigInt(i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}

const byCodePoint = (a, b) => {
  const [left, right] = [[...a], [...b]];
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    if (left[i] !== right[i]) return left[i].codePointAt(0) - right[i].codePointAt(0);
  }
  return left.length - right.length;
};

// ---------------------------------------------------------------- the bank

export class Bank {
  /**
   * Reads the header, the manifest and the digests; `base` is the source of a base outside, and
   * `shard` gives that of a shard by its file's name, for a bank in shards.
   */
  static async open(source, base = null, shard = null) {
    const bank = new Bank();
    Object.assign(bank, await readHeader(source));
    bank.source = source;
    need(bank.metadata.format === "randes", "no bank");
    await bank.readChecks();
    if (bank.entries.has("shards")) await bank.readShards(shard);
    bank.manifest = strictJson(await bank.bytes("manifest"));
    bank.checkManifest();
    bank.tasks = new Map(bank.manifest.tasks.map((task) => [task.name, task]));
    bank.shapes = new Map(Object.entries(bank.manifest.base.tensors));
    bank.findUnits();
    bank.checkSums();
    if (bank.manifest.base.storage === "reference") {
      need(base, "the base lies outside this bank");
      bank.outside = { ...(await readHeader(base)), source: base };
    }
    return bank;
  }

  checkManifest() {
    const { format, version, features, seed } = this.manifest;
    need(format === "randes" && [1, 2].includes(version), `version ${version}`);
    need(this.metadata.version === String(version), "__metadata__");
    for (const feature of features) need(FEATURES.has(feature), `unknown feature ${feature}`);
    need(features.includes("shards") === this.sharded, "the feature shards");
    need(typeof seed === "number", "seed is no number");
    // JSON.parse rounds a larger seed without an error.
    need(Number.isSafeInteger(seed), "a seed that JavaScript cannot hold");
  }

  async readChecks() {
    const entry = this.entries.get("checks");
    const checks = await this.source.read(entry.first, entry.end);
    this.digests = digestsOf(await this.source.read(0, this.start), checks, this.entries);
  }

  /** Section 15: the tensors of shards, of which the index has the headers and the digests. */
  async readShards(shard) {
    const options = strictJson(await this.bytes("shards"));
    need(options.room % 8 === 0 && options.most > 0, "shards");
    const [index, digests] = [this.entries, new Map()];
    const entries = new Map();
    for (const key of index.keys()) {
      if (["shards", "manifest", "checks"].includes(key)) continue;
      const name = key.replace(/^shard\//, "");
      need(key.startsWith("shard/") && /^[0-9a-f]{32}$/.test(name), `an index with ${key}`);
      const found = shardOf(name, await this.bytes(key));
      const source = { file: `${name}.safetensors`, open: shard, size: found.size };
      for (const [tensor, place] of found.entries) {
        if (tensor === "checks" || tensor.startsWith("align/")) continue;
        need(tensor !== "manifest" && !entries.has(tensor), `${tensor} is in two shards`);
        entries.set(tensor, { ...place, source });
        digests.set(tensor, found.digests.get(tensor));
      }
    }
    for (const key of ["manifest", "checks"]) {
      entries.set(key, index.get(key));
      digests.set(key, this.digests.get(key));
    }
    Object.assign(this, { entries, digests, sharded: true });
  }

  /** Where a tensor's bytes are read: a shard is opened when it is first asked for. */
  async sourceOf({ source }) {
    if (!source) return this.source;
    need(source.open, "this bank is in shards; open it where they are beside it");
    source.opened ??= source.open(source.file);
    const opened = await source.opened;
    need(opened.size === source.size, `${source.file}: another length than its header says`);
    return opened;
  }

  /** A tensor's bytes, each chunk checked. */
  async bytes(name) {
    const entry = this.entries.get(name);
    const data = await (await this.sourceOf(entry)).read(entry.first, entry.end);
    const size = ITEM_SIZE[entry.dtype];
    for (const [first, end, digest] of this.digests.get(name)) {
      need(xxh3(data.subarray(first * size, end * size)) === digest, `${name}: a damaged chunk`);
    }
    return data;
  }

  /** Checks every byte. */
  async verify() {
    for (const name of this.entries.keys()) if (name !== "checks") await this.bytes(name);
  }

  superposable(name) {
    const [dtype, shape] = this.shapes.get(name);
    return isFloat(dtype) && product(shape) > 1;
  }

  layer(name) {
    // Version 1 counted the digits of every script; version 2 those of ASCII alone.
    const digits = this.manifest.version === 1 ? /^\p{Nd}+$/u : /^[0-9]+$/;
    const parts = name.split(".");
    const type = parts.map((part) => (digits.test(part) ? "*" : part)).join(".");
    return [type, parts.filter((part) => digits.test(part)).map(BigInt)];
  }

  findUnits() {
    const { targets, matched, every, exact = [] } = this.manifest.transform;
    const apart = new Set(exact);
    const chosen = targets === "all" ? null : new Set(matched);
    const types = new Map();
    for (const name of this.shapes.keys()) {
      if (!this.superposable(name) || apart.has(name) || (chosen && !chosen.has(name))) continue;
      const [type] = this.layer(name);
      const shape = this.shapes.get(name)[1].join("x");
      if (!types.has(type)) types.set(type, new Map());
      if (!types.get(type).has(shape)) types.get(type).set(shape, []);
      types.get(type).get(shape).push(name);
    }
    for (const [type, shapes] of types) {
      for (const [shape, names] of shapes) {
        names.sort((a, b) => {
          const [left, right] = [this.layer(a)[1], this.layer(b)[1]];
          for (let i = 0; i < left.length; i++) if (left[i] !== right[i]) return left[i] < right[i] ? -1 : 1;
          return byCodePoint(a, b);
        });
        const layers = names.filter((_, i) => i % every === 0);
        const label = shapes.size > 1 ? `${type}|${shape}` : type;
        for (const name of layers) this.units.set(name, { label, layers });
      }
    }
  }

  checkSums() {
    const shuffled = this.manifest.transform.shuffle !== "none";
    for (const task of this.tasks.values()) {
      const absent = absentOf(task);
      for (const name of this.shapes.keys()) {
        if (!this.superposable(name) || absent.has(name)) continue;
        const layers = (shuffled && this.units.get(name)?.layers) || [name];
        for (const layer of layers) {
          need(this.entries.has(`sum/${task.group}/${layer}`), `sum/${task.group}/${layer} is missing`);
        }
      }
    }
  }

  async baseBytes(name) {
    const { storage } = this.manifest.base;
    if (storage === "embed") return this.bytes(`base/${name}`);
    const [dtype, shape] = this.shapes.get(name);
    if (storage === "zero") return new Uint8Array(product(shape) * ITEM_SIZE[dtype]);
    const entry = this.outside.entries.get(name);
    const data = await this.outside.source.read(entry.first, entry.end);
    const digests = await this.bytes("stats/base-digests");
    let at = 0;
    for (const [other, [, otherShape]] of this.shapes) {
      const spans = chunkSpans(otherShape);
      for (const [first, end] of other === name ? spans : []) {
        const found = xxh3(data.subarray(first * ITEM_SIZE[dtype], end * ITEM_SIZE[dtype]));
        need(found === hex(digests.subarray(at, at + 16)), `${name}: another base`);
        at += 16;
      }
      if (other !== name) at += 16 * spans.length;
    }
    return data;
  }

  /** λ of a task: what tuning chose, else the default. */
  async coefficient(task) {
    if (task.coefficient !== undefined) return task.coefficient;
    if (task.default !== undefined) return task.default;
    const names = [...this.shapes.keys()].filter((name) => this.superposable(name));
    const { tasks, forgotten, sealed = {} } = this.manifest;
    const members = tasks.flatMap((other, k) => (other.group === task.group ? [k] : []));
    const others = forgotten.filter(([, group]) => group === task.group).length;
    if (members.length + others === 1 && !sealed[task.group]) return 1;
    const norms = toDoubles(await this.bytes("stats/norms"));
    let [kept, energy] = [norms, norms];
    if (this.entries.has("stats/rounded")) {
      const both = toDoubles(await this.bytes("stats/rounded"));
      [kept, energy] = [both.slice(0, norms.length), both.slice(norms.length)];
    }
    const rows = new Map(names.map((name, row) => [name, row]));
    const at = (name, k) => rows.get(name) * tasks.length + k;
    const absent = absentOf(task);
    const present = names.filter((name) => !absent.has(name));
    let [own, dot, total] = [0, 0, 0];
    for (const name of present) {
      own += norms[at(name, tasks.indexOf(task))];
      dot += kept[at(name, tasks.indexOf(task))];
      const place = this.place(task, name);
      const cut = this.entries.has(`scale/${task.group}/${place}`);
      const lost = cut ? DISTORTION[sealed[task.group].bits] : 0;
      const there = members.map((k) => energy[at(this.tensorAt(tasks[k], place), k)]);
      total += there.reduce((sum, one) => sum + one, 0) / (1 - lost);
    }
    if (!present.length) return 1;
    const cosine = own && total ? Math.max(0, dot / Math.sqrt(own * total)) : 0;
    return Math.round(Math.min(1, 8 * cosine) * 100) / 100;
  }

  /** The layers that are moved with a tensor, and a task's order of them; null where none are. */
  order(task, name) {
    const { shuffle } = this.manifest.transform;
    const unit = this.units.get(name);
    if (!unit || shuffle === "none") return null;
    const { label, layers } = unit;
    return { layers, order: permutation(shuffle, task.seed, task.index, label, layers.length) };
  }

  /** The position, by the base's name there, at which a task's tensor lies. */
  place(task, name) {
    const moved = this.order(task, name);
    return moved ? moved.layers[moved.order.indexOf(moved.layers.indexOf(name))] : name;
  }

  /** The tensor that a task has at a position. */
  tensorAt(task, place) {
    const moved = this.order(task, place);
    return moved ? moved.layers[moved.order[moved.layers.indexOf(place)]] : place;
  }

  /** m: one element in m of a tensor is in the group's superposition. */
  share(group, name) {
    const m = this.manifest.shares?.[group] ?? 1;
    const [rows, columns] = squarest(this.shapes.get(name)[1]);
    return 16 * m * (rows + columns) > rows * columns ? 1 : m;
  }

  /** S in steps, as float32, of every element; null where no task of the group changed any. */
  async superposition(group, name) {
    const key = `sum/${group}/${name}`;
    const entry = this.entries.get(key);
    if (!entry) return null;
    const [rows, columns] = squarest(this.shapes.get(name)[1]);
    const m = this.share(group, name);
    const width = Math.ceil(columns / m);
    /** The column of the k-th stored element of a row; columns and beyond are filling. */
    const column = (row, k) => ((((-row - group) % m) + m) % m) + k * m;
    const data = await this.bytes(key);
    let held;
    if (this.entries.has(`scale/${group}/${name}`)) {
      const { bits } = this.manifest.sealed[group];
      const scales = toFloat32("F16", await this.bytes(`scale/${group}/${name}`));
      const scale = (row, k) => [scales[row], scales[rows + column(row, k)] ?? 0];
      held = unseal(data, scale, bits, rows, width);
    } else {
      const values = new DataView(data.buffer, data.byteOffset, data.byteLength);
      const get = entry.dtype === "I16" ? (i) => values.getInt16(2 * i, true) : (i) => values.getInt8(i);
      held = Float32Array.from({ length: rows * width }, (_, i) => get(i));
    }
    if (m === 1) return held;
    const whole = new Float32Array(rows * columns);
    held.forEach((value, i) => {
      const [row, k] = [Math.floor(i / width), i % width];
      if (column(row, k) < columns) whole[row * columns + column(row, k)] = value;
    });
    return whole;
  }

  /** λ · 2^e · signs · S of the base's whole tensor, or null where it comes back as the base's. */
  async delta(task, name, coefficient) {
    const { signs } = this.manifest.transform;
    const source = this.place(task, name);
    let flipped = () => 0;
    if (this.units.has(name)) flipped = flipping(signs, task.seed, source, this.shapes.get(name)[1]);
    const sum = await this.superposition(task.group, source);
    if (sum === null) return null;
    const m = this.share(task.group, source);
    const factor = fround(fround(coefficient) * fround(m * 2 ** this.manifest.steps[source]));
    return sum.map((value, i) => factor * (flipped(i) ? -value : value));
  }

  /** The names that a task's checkpoint has. */
  tensors(task) {
    const { missing, own, ties = {} } = this.tasks.get(task);
    const shared = [...this.shapes.keys()].filter((n) => !missing.includes(n) && !(n in own));
    return [...shared, ...Object.keys(own), ...Object.keys(ties)];
  }

  /** The name in the checkpoint of a tensor that the bank calls `name`. */
  outputName(task, name) {
    const { prefix = ["", ""], unprefixed = [] } = this.tasks.get(task);
    const known = this.shapes.has(name) || name in (this.manifest.base.ties ?? {});
    const renamed = known && !unprefixed.includes(name) && name.startsWith(prefix[1]);
    return renamed ? prefix[0] + name.slice(prefix[1].length) : name;
  }

  /** One tensor of a task: {dtype, shape, data}; `name` as `tensors` lists it. */
  async retrieve(taskName, name, coefficient = null) {
    const task = this.tasks.get(taskName);
    if (name in (task.ties ?? {})) return this.retrieve(taskName, task.ties[name], coefficient);
    if (name in task.own) {
      const [dtype, shape] = task.own[name];
      return { dtype, shape, data: await this.bytes(`own/${taskName}/${name}`) };
    }
    const [baseDtype, baseShape] = this.shapes.get(name);
    const usual = isFloat(baseDtype) ? (task.dtype ?? baseDtype) : baseDtype;
    const dtype = task.dtypes[name] ?? usual;
    const shape = task.shapes[name] ?? baseShape;
    const base = await this.baseBytes(name);
    let delta = null;
    if (!task.unchanged.includes(name) && this.superposable(name)) {
      const chosen = coefficient ?? (await this.coefficient(task));
      delta = await this.delta(task, name, chosen);
    }
    let data;
    if (delta === null) data = convert(base, baseDtype, dtype);
    else data = fromFloat32(dtype, toFloat32(baseDtype, base).map((value, i) => value + delta[i]));
    data = data.subarray(0, product(shape) * ITEM_SIZE[dtype]);
    if (shape[0] > baseShape[0]) {
      const key = `own/${taskName}/${name}`;
      const rows = convert(await this.bytes(key), this.entries.get(key).dtype, dtype);
      data = Uint8Array.from([...data, ...rows]);
    }
    return { dtype, shape, data };
  }

  constructor() {
    this.digests = new Map();
    this.units = new Map();
    this.sharded = false;
  }
}

/** Tensors of the base of which nothing of a task is superposed. */
function absentOf(task) {
  const kept = new Set(Object.values(task.ties ?? {}));
  const missing = task.missing.filter((name) => !kept.has(name));
  return new Set([...task.unchanged, ...missing, ...Object.keys(task.own)]);
}

async function readHeader(source) {
  need(source.size >= 8, "shorter than its length field");
  const head = await source.read(0, 8);
  const length = Number(new DataView(head.buffer, head.byteOffset).getBigUint64(0, true));
  need(length <= 100_000_000 && 8 + length <= source.size, "a header longer than the file");
  return parseHeader(await source.read(8, 8 + length), source.size);
}

/** The tensors that a header's JSON says, in the order of their data; a size of null: as it says. */
function parseHeader(text, size) {
  need(text[0] === 0x7b, "a header that does not begin with {");
  const { __metadata__: metadata = {}, ...header } = strictJson(text);
  const start = 8 + text.length;
  const found = [];
  for (const [name, { dtype, shape, data_offsets: [first, end] }] of Object.entries(header)) {
    need(dtype in ITEM_SIZE, `${name}: dtype ${dtype}`);
    need(end - first === product(shape) * ITEM_SIZE[dtype], `${name}: size`);
    found.push([name, { dtype, shape, first: start + first, end: start + end }]);
  }
  found.sort(([, a], [, b]) => a.first - b.first || a.end - b.end);
  let at = start;
  for (const [name, { first, end }] of found) {
    need(first === at, `${name}: a hole or an overlap before it`);
    at = end;
  }
  need(size === null || at === size, "bytes behind the data");
  return { metadata, entries: new Map(found), start, size: at };
}

/** The digests that a table of them has for each tensor, as [first element, end, digest]. */
function digestsOf(head, checks, entries) {
  need(checks.length % 16 === 0 && checks.length >= 32, "checks");
  const at = (k) => hex(checks.subarray(16 * k, 16 * k + 16));
  need(at(checks.length / 16 - 1) === xxh3(checks.subarray(0, -16)), "the digest of checks");
  need(at(0) === xxh3(head), "the digest of the header");
  const digests = new Map();
  let next = 1;
  for (const [name, { shape }] of entries) {
    if (name === "checks") continue;
    const spans = chunkSpans(shape);
    digests.set(name, spans.map(([first, end], k) => [first, end, at(next + k)]));
    next += spans.length;
  }
  need(next === checks.length / 16 - 1, "the number of digests");
  return digests;
}

/** What an index says of a shard: its first bytes and its digests, checked as those of a file. */
function shardOf(name, data) {
  const length = Number(new DataView(data.buffer, data.byteOffset).getBigUint64(0, true));
  need(8 + length <= data.length, `${name}: a header longer than its copy`);
  const [head, checks] = [data.subarray(0, 8 + length), data.subarray(8 + length)];
  const found = parseHeader(head.subarray(8), null);
  need(found.metadata.format === "randes-shard", `${name}: no shard`);
  const last = [...found.entries].at(-1);
  need(last && last[0] === "checks", `${name}: checks is not last`);
  need(last[1].end - last[1].first === checks.length, `${name}: checks has another length`);
  need(hex(checks.subarray(-16)) === name, `${name}: another digest`);
  return { ...found, digests: digestsOf(head, checks, found.entries) };
}

const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

function toDoubles(bytes) {
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.length / 8 }, (_, i) => data.getFloat64(8 * i, true));
}
