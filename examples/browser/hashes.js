// SHAKE-256 (FIPS 202) and XXH3-128 (seed 0), in the plainest form that BigInt allows.

const U64 = (1n << 64n) - 1n;
const rotate = (x, n) => ((x << n) | (x >> (64n - n))) & U64;

// ---------------------------------------------------------------- SHAKE-256

const ROUNDS = [];
const ROTATIONS = new Array(25).fill(0n);
{
  let lfsr = 1;
  for (let round = 0; round < 24; round++) {
    let constant = 0n;
    for (let j = 0; j < 7; j++) {
      if (lfsr & 1) constant |= 1n << ((1n << BigInt(j)) - 1n);
      lfsr = (lfsr << 1) ^ ((lfsr >> 7) * 0x171);
    }
    ROUNDS.push(constant);
  }
  let [x, y] = [1, 0];
  for (let t = 0; t < 24; t++) {
    ROTATIONS[x + 5 * y] = BigInt((((t + 1) * (t + 2)) / 2) % 64);
    [x, y] = [y, (2 * x + 3 * y) % 5];
  }
}

function keccak(a) {
  for (const constant of ROUNDS) {
    const c = [0, 1, 2, 3, 4].map((x) => a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20]);
    for (let x = 0; x < 5; x++) {
      const d = c[(x + 4) % 5] ^ rotate(c[(x + 1) % 5], 1n);
      for (let y = 0; y < 25; y += 5) a[x + y] ^= d;
    }
    const b = new Array(25);
    for (let x = 0; x < 5; x++) {
      for (let y = 0; y < 5; y++) {
        b[y + 5 * ((2 * x + 3 * y) % 5)] = rotate(a[x + 5 * y], ROTATIONS[x + 5 * y]);
      }
    }
    for (let y = 0; y < 25; y += 5) {
      for (let x = 0; x < 5; x++) {
        a[x + y] = b[x + y] ^ (~b[((x + 1) % 5) + y] & U64 & b[((x + 2) % 5) + y]);
      }
    }
    a[0] ^= constant;
  }
}

/** The first `size` bytes of SHAKE-256 of a string in UTF-8. */
export function shake256(text, size) {
  const rate = 136;
  const input = new TextEncoder().encode(text);
  const padded = new Uint8Array(Math.ceil((input.length + 1) / rate) * rate);
  padded.set(input);
  padded[input.length] ^= 0x1f;
  padded[padded.length - 1] ^= 0x80;
  const words = new DataView(padded.buffer);
  const state = new Array(25).fill(0n);
  for (let at = 0; at < padded.length; at += rate) {
    for (let i = 0; i < rate / 8; i++) state[i] ^= words.getBigUint64(at + 8 * i, true);
    keccak(state);
  }
  const out = new Uint8Array(Math.ceil(size / rate) * rate);
  const view = new DataView(out.buffer);
  for (let at = 0; at < size; at += rate) {
    for (let i = 0; i < rate / 8; i++) view.setBigUint64(at + 8 * i, state[i], true);
    keccak(state);
  }
  return out.subarray(0, size);
}

// ---------------------------------------------------------------- XXH3-128

const SECRET = new DataView(
  Uint8Array.from(
    ("b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221" +
      "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8" +
      "fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb17" +
      "0ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e")
      .match(/../g)
      .map((byte) => parseInt(byte, 16)),
  ).buffer,
);
const [P32_1, P32_2, P32_3] = [0x9e3779b1n, 0x85ebca77n, 0xc2b2ae3dn];
const P1 = 0x9e3779b185ebca87n;
const P2 = 0xc2b2ae3d27d4eb4fn;
const P3 = 0x165667b19e3779f9n;
const P4 = 0x85ebca77c2b2ae63n;
const P5 = 0x27d4eb2f165667c5n;
const MX1 = 0x165667919e3779f9n;
const MX2 = 0x9fb21c651e98df25n;

const secret = (at) => SECRET.getBigUint64(at, true);
const shifted = (x, n) => x ^ (x >> n);
const avalanche = (x) => shifted((shifted(x, 37n) * MX1) & U64, 32n);
const avalanche64 = (x) =>
  shifted((shifted((shifted(x, 33n) * P2) & U64, 29n) * P3) & U64, 32n);
const fold = (a, b) => {
  const product = a * b;
  return (product & U64) ^ (product >> 64n);
};
const swap = (x, bytes) => {
  let made = 0n;
  for (let i = 0; i < bytes; i++) made = (made << 8n) | ((x >> BigInt(8 * i)) & 0xffn);
  return made;
};

function upTo16(data, length) {
  const n = BigInt(length);
  if (length > 8) {
    const low = data.getBigUint64(0, true);
    let high = data.getBigUint64(length - 8, true);
    const product = (low ^ high ^ secret(32) ^ secret(40)) * P1;
    high ^= secret(48) ^ secret(56);
    let mixed = ((product & U64) + ((n - 1n) << 54n)) & U64;
    const upper = ((product >> 64n) + high + (high & 0xffffffffn) * (P32_2 - 1n)) & U64;
    mixed ^= swap(upper, 8);
    const again = mixed * P2;
    return [avalanche(again & U64), avalanche(((again >> 64n) + upper * P2) & U64)];
  }
  if (length > 3) {
    const whole = BigInt(data.getUint32(0, true)) | (BigInt(data.getUint32(length - 4, true)) << 32n);
    const product = (whole ^ secret(16) ^ secret(24)) * (P1 + (n << 2n) & U64);
    let low = product & U64;
    const high = ((product >> 64n) + (low << 1n)) & U64;
    low = shifted(low ^ (high >> 3n), 35n);
    return [shifted((low * MX2) & U64, 28n), avalanche(high)];
  }
  if (length > 0) {
    const [a, b, c] = [0, length >> 1, length - 1].map((at) => BigInt(data.getUint8(at)));
    const low = (a << 16n) | (b << 24n) | c | (n << 8n);
    const turned = swap(low, 4);
    const high = ((turned << 13n) | (turned >> 19n)) & 0xffffffffn;
    const key = (at) => BigInt(SECRET.getUint32(at, true) ^ SECRET.getUint32(at + 4, true)) & 0xffffffffn;
    return [avalanche64(low ^ key(0)), avalanche64(high ^ key(8))];
  }
  return [avalanche64(secret(64) ^ secret(72)), avalanche64(secret(80) ^ secret(88))];
}

function upTo240(data, length) {
  const read = (at) => data.getBigUint64(at, true);
  const mix16 = (at, key) => fold(read(at) ^ secret(key), read(at + 8) ^ secret(key + 8));
  let [low, high] = [(BigInt(length) * P1) & U64, 0n];
  const mix = (first, second, key) => {
    low = ((low + mix16(first, key)) & U64) ^ ((read(second) + read(second + 8)) & U64);
    high = ((high + mix16(second, key + 16)) & U64) ^ ((read(first) + read(first + 8)) & U64);
  };
  if (length <= 128) {
    for (let i = Math.floor((length - 1) / 32); i >= 0; i--) mix(16 * i, length - 16 * (i + 1), 32 * i);
  } else {
    for (let at = 0; at < 128; at += 32) mix(at, at + 16, at);
    [low, high] = [avalanche(low), avalanche(high)];
    for (let at = 128; at + 32 <= length; at += 32) mix(at, at + 16, 3 + at - 128);
    mix(length - 16, length - 32, 136 - 17 - 16);
  }
  const last = (low * P1 + high * P4 + BigInt(length) * P2) & U64;
  return [avalanche((low + high) & U64), (U64 + 1n - avalanche(last)) & U64];
}

function long(data, length) {
  const acc = [P32_3, P1, P2, P3, P4, P32_2, P5, P32_1];
  const stripe = (at, key) => {
    for (let i = 0; i < 8; i++) {
      const value = data.getBigUint64(at + 8 * i, true);
      const keyed = value ^ secret(key + 8 * i);
      acc[i ^ 1] = (acc[i ^ 1] + value) & U64;
      acc[i] = (acc[i] + (keyed & 0xffffffffn) * (keyed >> 32n)) & U64;
    }
  };
  const stripes = Math.floor((length - 1) / 64);
  for (let n = 0; n < stripes; n++) {
    stripe(64 * n, 8 * (n % 16));
    if (n % 16 === 15) {
      for (let i = 0; i < 8; i++) {
        acc[i] = ((shifted(acc[i], 47n) ^ secret(128 + 8 * i)) * P32_1) & U64;
      }
    }
  }
  stripe(length - 64, 121);
  const merge = (start, key) => {
    let sum = start & U64;
    for (let i = 0; i < 4; i++) {
      sum += fold(acc[2 * i] ^ secret(key + 16 * i), acc[2 * i + 1] ^ secret(key + 16 * i + 8));
    }
    return avalanche(sum & U64);
  };
  const n = BigInt(length);
  return [merge(n * P1, 11), merge(U64 ^ ((n * P2) & U64), 117)];
}

/** XXH3-128 of bytes, with seed 0, as 32 hexadecimal digits. */
export function xxh3(bytes) {
  const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = bytes.byteLength;
  const [low, high] = (length <= 16 ? upTo16 : length <= 240 ? upTo240 : long)(data, length);
  return ((high << 64n) | low).toString(16).padStart(32, "0");
}
