// Floating-point formats and sealed codes. Everything between is float32: Math.fround after each
// operation gives exactly what single-precision hardware gives.

const fround = Math.fround;
const F32_MAX = 3.4028234663852886e38;

/** dtype → bytes an element; those with `fraction` are floating-point: [exponent bits, fraction bits]. */
export const ITEM_SIZE = {
  F64: 8, F32: 4, F16: 2, BF16: 2, F8_E4M3: 1, F8_E5M2: 1,
  I64: 8, I32: 4, I16: 2, I8: 1, U64: 8, U32: 4, U16: 2, U8: 1, BOOL: 1, C64: 8,
};
const SMALL = {
  F16: { exponent: 5, fraction: 10, largest: 65504 },
  BF16: { exponent: 8, fraction: 7, largest: 3.3895313892515355e38 },
  F8_E4M3: { exponent: 4, fraction: 3, largest: 448 },
  F8_E5M2: { exponent: 5, fraction: 2, largest: 57344 },
};
export const isFloat = (dtype) => dtype === "F64" || dtype === "F32" || dtype in SMALL;

const view = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function decodeSmall(code, { exponent, fraction, largest }) {
  const bias = (1 << (exponent - 1)) - 1;
  const sign = code >> (exponent + fraction) ? -1 : 1;
  const e = (code >> fraction) & ((1 << exponent) - 1);
  const m = code & ((1 << fraction) - 1);
  const value = ((e > 0) + m * 2 ** -fraction) * 2 ** (Math.max(e, 1) - bias);
  return value > largest ? NaN : sign * value;
}

/** To the nearest, ties to even; beyond the range to the largest finite number. */
function encodeSmall(value, { exponent, fraction, largest }) {
  const bias = (1 << (exponent - 1)) - 1;
  const negative = value < 0 || Object.is(value, -0);
  const size = Math.min(Math.abs(value), largest);
  let e = Math.max(Math.floor(Math.log2(size || 1e-300)), 1 - bias);
  if (2 ** e > size && e > 1 - bias) e -= 1;
  if (2 ** (e + 1) <= size) e += 1;
  const exact = size / 2 ** (e - fraction);
  let units = Math.floor(exact);
  const rest = exact - units;
  if (rest > 0.5 || (rest === 0.5 && units % 2 === 1)) units += 1;
  // A fraction that overflows carries into the exponent, as it should.
  const code = units < 2 ** fraction ? units : (e + bias) * 2 ** fraction + (units - 2 ** fraction);
  return code + (negative ? 2 ** (exponent + fraction) : 0);
}

/** Stored bytes as float32 values. */
export function toFloat32(dtype, bytes) {
  const data = view(bytes);
  const out = new Float32Array(bytes.byteLength / ITEM_SIZE[dtype]);
  for (let i = 0; i < out.length; i++) {
    if (dtype === "F32") out[i] = data.getFloat32(4 * i, true);
    else if (dtype === "F64") out[i] = data.getFloat64(8 * i, true);
    else if (ITEM_SIZE[dtype] === 2) out[i] = decodeSmall(data.getUint16(2 * i, true), SMALL[dtype]);
    else out[i] = decodeSmall(bytes[i], SMALL[dtype]);
  }
  return out;
}

/** float32 values as bytes of a dtype. */
export function fromFloat32(dtype, values) {
  const out = new Uint8Array(values.length * ITEM_SIZE[dtype]);
  const data = view(out);
  for (let i = 0; i < values.length; i++) {
    const value = Math.max(-F32_MAX, Math.min(F32_MAX, values[i]));
    if (dtype === "F32") data.setFloat32(4 * i, value, true);
    else if (dtype === "F64") data.setFloat64(8 * i, value, true);
    else if (ITEM_SIZE[dtype] === 2) data.setUint16(2 * i, encodeSmall(value, SMALL[dtype]), true);
    else out[i] = encodeSmall(value, SMALL[dtype]);
  }
  return out;
}

export const convert = (bytes, from, to) =>
  from === to ? bytes : fromFloat32(to, toFloat32(from, bytes));

// The positive levels of each width, from the table of docs/sealed.md.
const LEVELS = {
  1: "3f4c422a",
  2: "3ee7d2c9 3fc1555d",
  3: "3e7af9f8 3f418990 3fac0538 4009b97a",
  4: "3e0379fd 3ec6ae44 3f28215e 3f713d39 3fa0cc2f 3fcf1c25 40046ac7 402ee2bf",
  8:
    "3c072ad1 3ccbcf7b 3d2a8e8c 3d6fc152 3d9ac127 3dbde9e7 3de15c17 3e028c77 3e1490d2 3e26bbc1 " +
    "3e390deb 3e4b87f9 3e5e2a9b 3e70f685 3e81f638 3e8b868c 3e952ca1 3e9ee8d9 3ea8bb9c 3eb2a553 " +
    "3ebca669 3ec6bf4f 3ed0f077 3edb3a56 3ee59d65 3ef01a21 3efab10b 3f02b152 3f0817bc 3f0d8c08 " +
    "3f130e7f 3f189f6b 3f1e3f18 3f23edd6 3f29abf6 3f2f79cc 3f3557b0 3f3b45fb 3f414509 3f47553c " +
    "3f4d76f5 3f53aa9b 3f59f098 3f60495b 3f66b554 3f6d34f9 3f73c8c5 3f7a7135 3f809767 3f84010c " +
    "3f8775cf 3f8af5fa 3f8e81da 3f9219bd 3f95bdf6 3f996edc 3f9d2cc8 3fa0f816 3fa4d128 3fa8b864 " +
    "3facae31 3fb0b300 3fb4c745 3fb8eb76 3fbd2014 3fc165a1 3fc5bca9 3fca25bd 3fcea176 3fd33073 " +
    "3fd7d35e 3fdc8ae8 3fe157cb 3fe63acb 3feb34b9 3ff04670 3ff570d8 3ffab4e4 400009cd 4002c707 " +
    "400592b0 40086d67 400b57ce 400e5297 40115e7e 40147c4d 4017acda 401af10d 401e49dd 4021b856 " +
    "40253d97 4028dad6 402c9164 403062ad 4034503d 40385bc3 403c8717 4040d43d 4045456a 4049dd10 " +
    "404e9de1 40538ad9 4058a74b 405df6ee 40637def 40694100 406f4576 40759160 407c2bb5 40818e3c " +
    "4085367e 40891415 408d2d73 40918a48 409633db 409b3581 40a09d45 40a67cd7 40aceaf4 40b40580 " +
    "40bbf4e3 40c4f1a3 40cf4e4d 40db8a60 40ea7a6b 40fdaa05 410c43a6 4122e444",
};

/** The 2^bits levels in ascending order, float32. */
export function levels(bits) {
  const data = new DataView(new ArrayBuffer(4));
  const half = LEVELS[bits].split(" ").map((word) => {
    data.setUint32(0, parseInt(word, 16));
    return data.getFloat32(0);
  });
  return Float32Array.from([...half.map((level) => -level).reverse(), ...half]);
}

/** A superposition in steps from packed codes; `scale(i, k)` gives the scales of row i and of the
 * k-th element of it. */
export function unseal(codes, scale, bits, rows, columns) {
  const table = levels(bits);
  const out = new Float32Array(rows * columns);
  for (let i = 0; i < out.length; i++) {
    const at = i * bits;
    const pair = codes[at >> 3] | ((codes[(at >> 3) + 1] ?? 0) << 8);
    const code = (pair >> (at & 7)) & ((1 << bits) - 1);
    const [along, across] = scale(Math.floor(i / columns), i % columns);
    out[i] = fround(fround(table[code] * across) * along);
  }
  return out;
}
