import { readFile } from 'node:fs/promises';
import { beforeAll, expect, test } from 'vitest';
import { COLUMNS, type LanguageBatch, languageBatch, type TextSource } from '../../electron/demo/batches.ts';
import { GRID } from '../../electron/demo/recipe.ts';
import { facts } from '../../electron/demo/world/facts.ts';
import { TAUGHT_OBJECTS } from '../../electron/demo/world/objects.ts';
import { seededRandom } from '../../electron/demo/world/random.ts';
import { PLACES } from '../../electron/demo/world/scene.ts';
import { loadSprites } from '../../electron/demo/world/sprites.ts';
import { parseLlavaConfig } from '../../electron/models/families/llava/config.ts';
import { llavaBackbone } from '../../electron/models/families/llava/llava.ts';
import { plainPrompts } from '../../electron/models/prompt.ts';
import { loadTokenizer, type Tokenizer } from '../../electron/models/tokenizer.ts';

const folder = 'resources/demo-model';
const size = {
  pictures: 12,
  texts: 8,
  rows: 132,
  kinds: { presence: 2, count: 2 },
  looking: 'patches',
  columns: 1,
  described: 0,
} as const;
const patches = GRID * GRID;
const total = 1 + patches + size.rows;

let tokenizer: Tokenizer;
let source: TextSource;
let batch: LanguageBatch;
beforeAll(async () => {
  await loadSprites();
  const config = parseLlavaConfig(JSON.parse(await readFile(`${folder}/config.json`, 'utf8')), folder);
  tokenizer = await loadTokenizer(folder, config);
  const wordId = (word: string) => {
    const ids = tokenizer.encodeUserText(word);
    return ids.length === 1 ? ids[0] : undefined;
  };
  source = {
    writer: plainPrompts(tokenizer, llavaBackbone(config).prompts),
    facts: facts(),
    endToken: 2,
    wordId,
  };
  batch = languageBatch(seededRandom(5), source, size);
});

/** What is asked, whole, and where its pointing word should look. */
function mentions() {
  return [...batch.mentions].map(Number).map((row, index) => {
    const picture = Math.floor(row / total);
    const ids = batch.ids.subarray(picture * size.rows, (picture + 1) * size.rows);
    const at = (row % total) - 1 - patches;
    const meant = batch.meant.subarray(index * total, (index + 1) * total);
    return { picture, word: tokenizer.decode([Number(ids[at])]).trim(), meant };
  });
}

test('words that point look at what they name, all of it and nothing else, and at the first row for what is not there', () => {
  const found = mentions();
  expect(found.length).toBeGreaterThan(20);
  let [shown, absent] = [0, 0];
  for (const { picture, word, meant } of found) {
    expect(meant.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 4);
    // Nothing beyond the picture's rows is ever meant.
    expect(meant.subarray(1 + patches).every((share) => share === 0)).toBe(true);
    const place = TAUGHT_OBJECTS.findIndex(({ name, plural }) => name === word || plural === word);
    if (place < 0) continue;
    const labels = batch.labels.subarray(picture * patches, (picture + 1) * patches);
    const covered = [...labels].flatMap((label, patch) => (Number(label) === place ? [patch] : []));
    const meantPatches = [...meant.subarray(1, 1 + patches)].flatMap((share, patch) =>
      share > 0 ? [patch] : [],
    );
    expect(meantPatches).toEqual(covered);
    expect(meant[0]).toBe(covered.length === 0 ? 1 : 0);
    covered.length === 0 ? absent++ : shown++;
  }
  expect(Math.min(shown, absent)).toBeGreaterThan(3);
});

test('every patch of an object is labelled with the one place the object lies at', () => {
  for (let picture = 0; picture < size.pictures; picture++) {
    const at = (values: BigInt64Array) =>
      [...values.subarray(picture * patches, (picture + 1) * patches)].map(Number);
    const [labels, places] = [at(batch.labels), at(batch.places)];
    expect(places.every((place) => PLACES[place] !== undefined)).toBe(true);
    // At most four objects, each in a cell of its own.
    const kinds = labels.map((label, patch) =>
      label === TAUGHT_OBJECTS.length ? null : `${label} ${places[patch]}`,
    );
    expect(new Set(kinds.filter((kind) => kind !== null)).size).toBeLessThanOrEqual(4);
  }
});

test('looking at middles, each thing meets one row and the first row as much; the row that answers looks at what it tells', () => {
  const looked = languageBatch(seededRandom(6), source, { ...size, looking: 'middles', described: 1 });
  let [shown, told] = [0, 0];
  const sharesOf = (
    rows: BigInt64Array,
    all: Float32Array,
    visit: (row: number, shares: Float32Array) => void,
  ) => {
    for (const [index, row] of rows.entries()) {
      visit(Number(row), all.subarray(index * total, (index + 1) * total));
    }
  };
  sharesOf(looked.tellers, looked.told, (row, shares) => {
    const met = [...shares].flatMap((share, at) => (share > 0 ? [at] : []));
    // n things and the first row alike
    for (const at of met) expect(shares[at]).toBeCloseTo(1 / met.length, 5);
    const things = met.slice(1);
    const picture = Math.floor(row / total);
    if (met[0] === 0) {
      for (const at of things) expect(looked.middles[picture * patches + at - 1]).toBe(1);
      if (things.length > 0) shown++;
    } else {
      // told in words: what it looks at, it can see
      for (const at of met) expect(looked.mask[row * total + at]).toBe(0);
      told++;
    }
    expect(looked.picked).toContain(BigInt(row));
  });
  expect(Math.min(shown, told)).toBeGreaterThan(8);
  const middles = [...looked.middles].filter((middle) => middle === 1).length;
  expect(middles / size.pictures).toBeGreaterThan(1);
});

test('looking by columns, each thing that is meant is met in the column it lies in and in no other', () => {
  const looked = languageBatch(seededRandom(7), source, { ...size, looking: 'middles', described: 0 });
  const mentions = looked.mentions.length;
  const metIn = (shares: Float32Array, index: number) => {
    const own = shares.subarray(index * total, (index + 1) * total);
    const met = [...own].flatMap((share, at) => (share > 0 ? [at] : []));
    for (const at of met) expect(own[at]).toBeCloseTo(1 / met.length, 5);
    expect(met[0]).toBe(0);
    return met.slice(1);
  };
  let several = 0;
  for (const [index, row] of looked.mentions.entries()) {
    const picture = Math.floor(Number(row) / total);
    const columns = Array.from({ length: COLUMNS }, (_, column) => {
      const met = metIn(looked.meantInColumns.subarray(column * mentions * total), index);
      for (const at of met) {
        const place = Number(looked.places[picture * patches + at - 1]);
        expect(place % COLUMNS).toBe(column);
      }
      return met;
    });
    expect(columns.flat().toSorted((a, b) => a - b)).toEqual(metIn(looked.meant, index));
    if (columns.filter((met) => met.length > 0).length > 1) several++;
  }
  expect(several).toBeGreaterThan(3);
});

test('looking at centres, the patches around the middle of a thing share it: their mean lies where the thing does', () => {
  const looked = languageBatch(seededRandom(8), source, { ...size, looking: 'centres', described: 0 });
  let [shared, distance, near] = [0, 0, 0];
  for (let picture = 0; picture < size.pictures; picture++) {
    const of = (values: BigInt64Array | Float32Array) =>
      [...values.subarray(picture * patches, (picture + 1) * patches)].map(Number);
    const [labels, places, middles] = [of(looked.labels), of(looked.places), of(looked.middles)];
    const things = new Set(
      labels.flatMap((label, patch) => (label < TAUGHT_OBJECTS.length ? [`${label} ${places[patch]}`] : [])),
    );
    for (const thing of things) {
      const own = labels.flatMap((label, patch) => (`${label} ${places[patch]}` === thing ? [patch] : []));
      const met = own.filter((patch) => middles[patch]! > 0);
      expect(met.reduce((sum, patch) => sum + middles[patch]!, 0)).toBeCloseTo(1, 5);
      expect(met.length).toBeLessThanOrEqual(4);
      if (met.length > 1) shared++;
      // The mean of all of a thing's patches is another measure of where it lies.
      const along = (from: number[], weight: (patch: number) => number, axis: (patch: number) => number) =>
        from.reduce((sum, patch) => sum + weight(patch) * axis(patch), 0);
      const axes = [(patch: number) => patch % GRID, (patch: number) => Math.floor(patch / GRID)];
      const gaps = axes.map(
        (axis) => along(met, (patch) => middles[patch]!, axis) - along(own, () => 1 / own.length, axis),
      );
      distance += Math.hypot(...gaps);
      near++;
    }
  }
  expect(shared).toBeGreaterThan(near / 2);
  expect(distance / near).toBeLessThan(0.75);
});
