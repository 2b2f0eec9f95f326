// node check.mjs FOLDER: retrieves everything from each bank of the test vectors; exit 1 on a difference.

import { openAsBlob, readFileSync } from "node:fs";
import { join } from "node:path";
import { Bank, fromBlob } from "./reader.js";
import { xxh3 } from "./hashes.js";

/** What is wrong with one vector, or null. */
async function check(folder, name, entry) {
  const open = async (file) => fromBlob(await openAsBlob(join(folder, file)));
  let bank;
  try {
    const outside = entry.base ? await open(entry.base) : null;
    const shard = (file) => open(join(`${name}.randes.d`, file));
    bank = await Bank.open(await open(`${name}.randes`), outside, shard);
    await bank.verify();
  } catch (error) {
    return entry.breaks ? null : String(error);
  }
  if (entry.breaks) return `opened, though it breaks ${entry.breaks}`;
  const found = {};
  for (const task of bank.tasks.keys()) {
    found[task] = {};
    for (const tensor of bank.tensors(task)) {
      const { dtype, shape, data } = await bank.retrieve(task, tensor, entry.coefficient ?? null);
      found[task][bank.outputName(task, tensor)] = [dtype, shape, xxh3(data)];
    }
  }
  const sorted = (value) =>
    JSON.stringify(value, (_, item) =>
      item && typeof item === "object" && !Array.isArray(item)
        ? Object.fromEntries(Object.entries(item).sort())
        : item,
    );
  return sorted(found) === sorted(entry.tasks) ? null : "what comes back differs";
}

const folder = process.argv[2];
const index = JSON.parse(readFileSync(join(folder, "index.json"), "utf-8"));
let wrong = 0;
for (const [name, entry] of Object.entries(index)) {
  const problem = await check(folder, name, entry);
  if (problem) console.log(`${name}: ${problem}`);
  wrong += problem !== null;
}
console.log(`${Object.keys(index).length - wrong} of ${Object.keys(index).length} vectors as they should be`);
process.exit(wrong ? 1 : 0);
