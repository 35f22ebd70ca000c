/**
 * @file The demo world: what scenes, questions, pictures, facts, the tokenizer and the editing set promise.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Template } from '@huggingface/jinja';
import { Tokenizer } from '@huggingface/tokenizers';
import sharp from 'sharp';
import { beforeAll, describe, expect, it } from 'vitest';
import {
  type EditingRecord,
  type EvqaRecord,
  editingRecords,
  splitOf,
  writeEditingSet,
} from '../../electron/demo/editingSet.ts';
import { otherTexts, pictureTexts, trainTokenizer, vocabularySize } from '../../electron/demo/tokenizer.ts';
import { facts } from '../../electron/demo/world/facts.ts';
import { OBJECTS, objectNamed, TAUGHT_OBJECTS, UNTAUGHT_OBJECTS } from '../../electron/demo/world/objects.ts';
import {
  captionOf,
  drawQuestion,
  drawWording,
  QUESTION_KINDS,
  questionsOf,
  rephrase,
  type Topic,
  wordings,
} from '../../electron/demo/world/questions.ts';
import { seededRandom } from '../../electron/demo/world/random.ts';
import { patchLabels, renderScene } from '../../electron/demo/world/render.ts';
import { extentOf, restyleScene, type Scene, sceneNumber } from '../../electron/demo/world/scene.ts';
import { loadSprites } from '../../electron/demo/world/sprites.ts';
import { TEMPLATE_KINDS, TYPING, typed } from '../../electron/demo/world/wordings.ts';
import { fixture } from '../support/fixtures.ts';
import { answersTo } from './answers.ts';

beforeAll(() => loadSprites(), 60_000);

function scenes(count: number): Scene[] {
  return Array.from({ length: count }, (_, i) => sceneNumber('test', 11, i));
}

describe('objects', () => {
  it('names at least 150 taught and 14 untaught things, each once', () => {
    expect(TAUGHT_OBJECTS.length).toBeGreaterThanOrEqual(150);
    expect(UNTAUGHT_OBJECTS.length).toBeGreaterThanOrEqual(14);
    expect(new Set(OBJECTS.map(({ name }) => name)).size).toBe(OBJECTS.length);
    expect(new Set(OBJECTS.map(({ plural }) => plural)).size).toBe(OBJECTS.length);
    expect(new Set(OBJECTS.map(({ icon }) => icon)).size).toBe(OBJECTS.length);
  });

  it('gives every untaught thing a taught look-alike of its own category', () => {
    for (const kind of UNTAUGHT_OBJECTS) {
      const alike = objectNamed(kind.looksLike ?? '');
      expect(alike.taught).toBe(true);
      expect(alike.category).toBe(kind.category);
    }
  });
});

describe('scenes', () => {
  it('are the same for the same seed and differ between seeds', () => {
    expect(sceneNumber('a', 1, 5)).toEqual(sceneNumber('a', 1, 5));
    expect(sceneNumber('a', 1, 5)).not.toEqual(sceneNumber('a', 2, 5));
    expect(sceneNumber('a', 1, 5)).not.toEqual(sceneNumber('b', 1, 5));
    const scene = sceneNumber('a', 1, 5);
    expect(renderScene(scene)).toEqual(renderScene(structuredClone(scene)));
    expect(questionsOf(scene, seededRandom(3))).toEqual(questionsOf(scene, seededRandom(3)));
  });

  it('show one to four taught things inside the picture, and every taught thing in turn', () => {
    const seen = new Set<string>();
    for (const scene of scenes(3000)) {
      expect(scene.objects.length).toBeGreaterThanOrEqual(1);
      expect(scene.objects.length).toBeLessThanOrEqual(4);
      for (const object of scene.objects) {
        seen.add(object.name);
        const { width, height } = extentOf(object);
        // The largest lose at most the outermost pixel.
        expect(object.x - width / 2).toBeGreaterThan(-1.1);
        expect(object.x + width / 2).toBeLessThan(121.1);
        expect(object.y - height / 2).toBeGreaterThan(-1.1);
        expect(object.y + height / 2).toBeLessThan(121.1);
      }
    }
    expect([...seen].sort()).toEqual(TAUGHT_OBJECTS.map(({ name }) => name).sort());
  });

  it('draw the untaught things only where they are asked for', () => {
    for (const scene of scenes(3000)) {
      for (const object of scene.objects) expect(objectNamed(object.name).taught).toBe(true);
    }
  });
});

/** Fills every slot a topic may have. */
const anything = {
  noun: 'animal',
  object: 'dog',
  place: 'left',
  relation: 'left',
  first: 'dog',
  second: 'cat',
} as const;

describe('questions', () => {
  it('have exactly one right answer, which is theirs, in every wording', () => {
    const kinds = new Set<string>();
    for (const [i, scene] of scenes(600).entries()) {
      for (const question of questionsOf(scene, seededRandom(i))) {
        kinds.add(question.kind);
        const all = (['taught', 'heldOut', 'newCore'] as const).flatMap((set) =>
          wordings(question.topic, set),
        );
        // Each scene takes another part of them, so that all are read in the end.
        for (const wording of all.filter((_, place) => place % 60 === i % 60)) {
          const answers = answersTo(wording, scene);
          expect([wording, ...new Set(answers)]).toEqual([wording, question.answer]);
        }
      }
    }
    expect([...kinds].sort()).toEqual([...QUESTION_KINDS].sort());
  });

  it('come in at least four wordings, and are rephrased by another one', () => {
    for (const [i, scene] of scenes(200).entries()) {
      for (const question of questionsOf(scene, seededRandom(i))) {
        const all = wordings(question.topic);
        expect(new Set(all).size).toBeGreaterThanOrEqual(4);
        const other = rephrase(question, seededRandom(i));
        expect(other).not.toBe(question.question);
        expect(all).toContain(other);
      }
    }
  });

  it('are held out by the hundred, in wordings that no training asks', () => {
    const taught = new Set<string>();
    for (let i = 0; i < 40_000; i++) {
      const random = seededRandom(i);
      taught.add(drawWording({ kind: TEMPLATE_KINDS[i % 8]!, ...anything } as Topic, random));
    }
    const apart = TEMPLATE_KINDS.flatMap((kind) =>
      (['heldOut', 'newCore'] as const).flatMap((set) => wordings({ kind, ...anything } as Topic, set)),
    );
    expect(apart.length).toBeGreaterThan(1000);
    expect(apart.filter((wording) => taught.has(wording))).toEqual([]);
    expect(taught.size).toBeGreaterThan(1000);
  });

  it('are typed in other cases, marks and spaces, and nothing else', () => {
    const bare = (text: string) => text.toLowerCase().replace(/[?. ]/g, '');
    for (const typing of TYPING) {
      const question = 'Which animal do you see?';
      expect(typed(question, typing)).not.toBe(question);
      expect(bare(typed(question, typing))).toBe(bare(question));
    }
  });

  it('ask for presence with yes and no in balance, half of the absent things being of a shown category', () => {
    const answers = { yes: 0, no: 0 };
    let alike = 0;
    for (const [i, scene] of scenes(4000).entries()) {
      const question = drawQuestion(scene, seededRandom(i), { presence: 1e9 });
      expect(question.kind).toBe('presence');
      answers[question.answer as 'yes' | 'no']++;
      const { category } = objectNamed(question.about);
      if (question.answer === 'no') {
        alike += scene.objects.some(({ name }) => objectNamed(name).category === category) ? 1 : 0;
      }
    }
    expect(answers.yes / 4000).toBeGreaterThan(0.46);
    expect(answers.yes / 4000).toBeLessThan(0.54);
    expect(alike / answers.no).toBeGreaterThan(0.45);
  });

  it('caption every object with its place, in reading order', () => {
    const order = [
      'top left',
      'top',
      'top right',
      'left',
      'middle',
      'right',
      'bottom left',
      'bottom',
      'bottom right',
    ];
    for (const [i, scene] of scenes(300).entries()) {
      const parts = captionOf(scene, seededRandom(i)).answer.split(', ');
      const told = parts.map((part) => /^(?:an? )?(.+) (?:at|on|in) the (.+)$/.exec(part)!.slice(1));
      expect(told.map(([name]) => name).sort()).toEqual(scene.objects.map(({ name }) => name).sort());
      for (const [name, place] of told) {
        const there = answersTo(`What is shown at the ${place} of the picture?`, scene);
        expect(there).toContain(name);
      }
      const ranks = told.map(([, place]) => order.indexOf(place!));
      expect(ranks).toEqual(ranks.toSorted((a, b) => a - b));
    }
  });
});

describe('facts', () => {
  const all = facts();

  it('are some hundreds, and no question has two answers', () => {
    expect(all.length).toBeGreaterThanOrEqual(300);
    expect(all.length).toBeLessThanOrEqual(600);
    const questions = all.flatMap((fact) => fact.questions);
    expect(new Set(questions).size).toBe(questions.length);
    for (const fact of all) {
      expect(fact.questions.length).toBeGreaterThanOrEqual(2);
      expect(fact.answer).toMatch(/^[a-z]+( [a-z]+)?$/);
      for (const question of fact.questions) expect(question).toMatch(/^[A-Z][A-Za-z ]+[?.]$/);
    }
  });

  it('name every untaught thing several times, at least once as the answer', () => {
    for (const { name } of UNTAUGHT_OBJECTS) {
      const mentions = all.filter(
        ({ questions, answer }) => answer === name || new RegExp(`\\b${name}\\b`).test(questions[0]!),
      );
      expect(mentions.length, name).toBeGreaterThanOrEqual(3);
      expect(
        all.some(({ answer }) => answer === name),
        name,
      ).toBe(true);
    }
  });
});

describe('pictures', () => {
  /** Like the scene, with nothing but its objects: no noise, no clutter, a plain background. */
  function bare(scene: Scene): Scene {
    return {
      ...scene,
      clutter: [],
      background: { ...scene.background, pattern: 'plain', ground: undefined },
      noise: { strength: 0, seed: 1 },
      light: { brightness: 1, contrast: 1, tint: [1, 1, 1] },
    };
  }

  it('have patch labels where pixels differ from the empty picture, and the right kind there', () => {
    let labelled = 0;
    for (const scene of scenes(150).map(bare)) {
      const labels = patchLabels(scene);
      const full = renderScene(scene);
      const empty = renderScene({ ...scene, objects: [] });
      for (let patch = 0; patch < 100; patch++) {
        const [row, column] = [Math.floor(patch / 10), patch % 10];
        let changed = 0;
        for (let y = row * 12; y < row * 12 + 12; y++) {
          for (let x = column * 12; x < column * 12 + 12; x++) {
            const at = (y * 120 + x) * 3;
            const difference = [0, 1, 2].reduce(
              (sum, c) => sum + Math.abs(full[at + c]! - empty[at + c]!),
              0,
            );
            if (difference > 2) changed++;
          }
        }
        const label = labels[patch]!;
        // a nearly untouched patch is background; a label needs a third of the patch, and an object whose box reaches it
        if (changed < 0.3 * 144) expect(label).toBe(-1);
        if (label < 0) continue;
        labelled++;
        const reaches = scene.objects.some((object) => {
          const { width, height } = extentOf(object);
          return (
            objectNamed(object.name).index === label &&
            Math.abs(column * 12 + 6 - object.x) < width / 2 + 6 &&
            Math.abs(row * 12 + 6 - object.y) < height / 2 + 6
          );
        });
        expect(reaches).toBe(true);
      }
    }
    expect(labelled).toBeGreaterThan(500);
  });

  it('show nearly every object in at least one labelled patch', () => {
    let objects = 0;
    let found = 0;
    for (const scene of scenes(500)) {
      const labels = new Set(patchLabels(scene));
      for (const name of new Set(scene.objects.map((object) => object.name))) {
        objects++;
        if (labels.has(objectNamed(name).index)) found++;
      }
    }
    expect(found / objects).toBeGreaterThan(0.95);
  });

  it('keep objects and places when drawn in the other style, and look different', () => {
    let same = 0;
    let either = 0;
    for (const [i, scene] of scenes(100).entries()) {
      const other = restyleScene(scene, seededRandom(i), true);
      expect(other.objects.map(({ name, x, y }) => [name, x, y])).toEqual(
        scene.objects.map(({ name, x, y }) => [name, x, y]),
      );
      expect(other.objects.every((object, k) => object.style !== scene.objects[k]!.style)).toBe(true);
      expect(other.background.colour).toBe(scene.background.colour);
      const [a, b] = [renderScene(bare(scene)), renderScene(bare({ ...scene, objects: other.objects }))];
      expect(a.filter((value, k) => Math.abs(value - b[k]!) > 20).length).toBeGreaterThan(100);
      const [la, lb] = [patchLabels(scene), patchLabels(other)];
      for (let patch = 0; patch < 100; patch++) {
        if (la[patch] === -1 && lb[patch] === -1) continue;
        either++;
        if (la[patch] === lb[patch]) same++;
      }
    }
    expect(same / either).toBeGreaterThan(0.5);
  });

  it('are painted (time printed, not judged)', () => {
    const list = scenes(300);
    const start = performance.now();
    for (const scene of list) expect(renderScene(scene).length).toBe(120 * 120 * 3);
    console.log(`${((performance.now() - start) / list.length).toFixed(2)} ms a picture`);
  });
});

describe('tokenizer', () => {
  const files = trainTokenizer();
  const tokenizer = new Tokenizer(files.tokenizer, files.config);
  const tokens = (text: string): string[] => tokenizer.encode(text, { add_special_tokens: false }).tokens;

  it('makes every word of the demo world one token, with and without a picture before it', () => {
    expect(vocabularySize(files)).toBeLessThanOrEqual(4000);
    for (const text of [...pictureTexts(), ...otherTexts()]) {
      const pieces = text.match(/[A-Za-z]+|[^A-Za-z ]/g) ?? [];
      expect(tokens(text)).toHaveLength(pieces.length);
      if (/[?.]/.test(text)) expect(tokens(`<image>\n${text}`)).toHaveLength(pieces.length + 3);
    }
    expect(tokens('Which animal is this? dog').at(-1)).toBe('▁dog');
    expect(tokens('<image>\nWhat is left of the dog?')).toEqual([
      '<image>',
      '▁',
      '<0x0A>',
      'What',
      '▁is',
      '▁left',
      '▁of',
      '▁the',
      '▁dog',
      '?',
    ]);
  });

  it('gives a question the same tokens whatever answer follows', () => {
    for (const [i, scene] of scenes(50).entries()) {
      for (const { question, answer } of questionsOf(scene, seededRandom(i))) {
        const prompt = tokenizer.encode(`<image>\n${question}`).ids;
        const whole = tokenizer.encode(`<image>\n${question} ${answer}`).ids;
        expect(prompt[0]).toBe(1);
        expect(whole.slice(0, prompt.length)).toEqual(prompt);
        expect(tokenizer.decode(whole.slice(prompt.length)).trim()).toBe(answer);
      }
    }
  });

  it('returns every text from its ids, known words or not', () => {
    const texts = [
      ...pictureTexts().filter((_, i) => i % 60 === 0),
      ...otherTexts().filter((_, i) => i % 20 === 0),
      'Zebras über 42 €, "x-y" (ok)!',
      'a  b\nc',
    ];
    for (const text of texts) {
      const { ids } = tokenizer.encode(text);
      expect(ids).not.toContain(0);
      expect(tokenizer.decode(ids, { skip_special_tokens: true })).toBe(text);
    }
  });

  it('writes the plain prompt by its chat template', () => {
    const template = new Template(files.config.chat_template as string);
    const content = [{ type: 'text', text: 'Where is the dog?' }, { type: 'image' }];
    expect(template.render({ messages: [{ role: 'user', content }] })).toBe('<image>\nWhere is the dog?');
    expect(template.render({ messages: [{ role: 'user', content: 'Where?' }] })).toBe('Where?');
  });

  describe('beside a Llama tokenizer of the same kind', () => {
    it('has the same normaliser, decoder, post-processor, model settings and configuration fields', () => {
      const folder = fixture('checkpoints/llava_tiny');
      const read = (name: string) => JSON.parse(readFileSync(path.join(folder, name), 'utf8'));
      const theirs = read('tokenizer.json');
      for (const part of [
        'normalizer',
        'pre_tokenizer',
        'post_processor',
        'decoder',
        'truncation',
        'padding',
        'version',
      ]) {
        expect(files.tokenizer[part], part).toEqual(theirs[part]);
      }
      const settings = ({ vocab: _v, merges: _m, ...rest }: Record<string, unknown>) => rest;
      expect(settings(files.tokenizer.model)).toEqual(settings(theirs.model));
      const fields = Object.keys(files.tokenizer.added_tokens[0]!).sort();
      expect(fields).toEqual(Object.keys(theirs.added_tokens[0]).sort());
      expect(files.specialTokens).toEqual(read('special_tokens_map.json'));
      expect(Object.keys(files.config)).toEqual(
        expect.arrayContaining(Object.keys(read('tokenizer_config.json'))),
      );
    });
  });
});

describe('editing set', () => {
  let train: EditingRecord[] = [];
  let test: EditingRecord[] = [];
  beforeAll(async () => {
    await loadSprites();
    train = editingRecords('train', 3000, 1);
    test = editingRecords('test', 300, 1);
  });
  const names = (scene: Scene) => scene.objects.map(({ name }) => name);

  it('shares no pair and no picture between train and test', () => {
    const pair = ({ object, alt }: { object: string; alt: string }) => `${object} > ${alt}`;
    const pairs = new Set(train.map(pair));
    expect(test.filter((record) => pairs.has(pair(record)))).toEqual([]);
    for (const record of train) expect(splitOf(record.object, record.alt)).toBe('train');
    const pictures = (record: EditingRecord) =>
      [record.image, record.image_rephrase, record.m_loc].map((scene) => JSON.stringify(scene));
    const seen = new Set(train.flatMap(pictures));
    expect(test.flatMap(pictures).filter((picture) => seen.has(picture))).toEqual([]);
    expect(test).toEqual(editingRecords('test', 300, 1));
  });

  it('mixes the kinds of edit, and shows things never taught with their right names', () => {
    const share = (kind: string) => train.filter((record) => record.kind === kind).length / train.length;
    expect(share('unknown') + share('disguised') + share('identity')).toBeGreaterThan(0.65);
    for (const kind of ['unknown', 'disguised']) expect(share(kind)).toBeGreaterThan(0.1);
    for (const kind of ['count', 'where']) expect(share(kind)).toBeGreaterThan(0.07);
    for (const kind of ['background', 'relation']) expect(share(kind)).toBeGreaterThan(0.01);
    expect(test.every(({ image }) => image.objects.every(({ disguise }) => !disguise))).toBe(true);
    const unknown = test.filter(({ kind }) => kind === 'unknown');
    expect(new Set(unknown.map(({ alt }) => alt)).size).toBeGreaterThanOrEqual(5);
    for (const { alt, object, pred } of unknown) {
      expect(object).toBe(alt);
      expect(objectNamed(alt).looksLike).toBe(pred);
    }
    const targets = new Set(train.map(({ alt }) => alt));
    const fresh = test.filter(({ alt }) => !targets.has(alt));
    expect(fresh.length / test.length).toBeLessThan(0.05);
  });

  it('asks about what the pictures show: the edit, its rephrases and its probes', () => {
    for (const record of [...test, ...train.slice(0, 300)]) {
      const shown = objectIn(record) ? record.object : record.pred;
      for (const [question, scene] of [
        [record.src, record.image],
        [record.rephrase, record.image],
        [record.src, record.image_rephrase],
      ] as const) {
        expect([question, ...new Set(answersTo(question, scene))]).toEqual([question, shown]);
      }
      expect(record.rephrase).not.toBe(record.src);
      if (record.kind !== 'unknown') expect(record.alt).not.toBe(shown);
      expect(new Set(answersTo(record.m_loc_q, record.m_loc))).toEqual(new Set([record.m_loc_a]));
      expect(new Set(answersTo(record.same_image_q, record.image))).toEqual(new Set([record.same_image_a]));
      expect(names(record.m_loc)).not.toEqual(expect.arrayContaining([record.object]));
      expect(names(record.m_loc).filter((name) => names(record.image).includes(name))).toEqual([]);
      expect(record.loc_ans).not.toBe(record.alt);
      for (const wording of [record.heldout, record.new_core]) {
        expect([wording, ...new Set(answersTo(wording, record.image))]).toEqual([wording, shown]);
        expect(wordings(record.topic)).not.toContain(wording);
      }
      if (record.image_swapped) {
        expect(new Set(answersTo(record.src, record.image_swapped))).toEqual(new Set([record.swapped_a]));
        expect(names(record.image_swapped)).not.toContain(record.object);
        expect(record.swapped_a).not.toBe(record.alt);
      }
      if (record.image_elsewhere) {
        expect(new Set(answersTo(record.elsewhere_q!, record.image_elsewhere))).toEqual(
          new Set([record.object]),
        );
      }
      expect(names(record.image_rephrase)).toEqual(names(record.image));
    }
    // the picture shows it, and the model is not expected to say so: a thing never taught, or in disguise
    function objectIn({ kind, object }: { kind: string; object: string }): boolean {
      return (
        kind === 'unknown' || kind === 'disguised' || (kind === 'identity' && !objectNamed(object).taught)
      );
    }
  });

  it('is written with what some things are about first, to measure on them alone', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'emend-editing-set-'));
    try {
      const every = editingRecords('test', 6, 5).map(({ object, src }) => ({ object, src }));
      const first = new Set([every.at(-1)!.object]);
      expect(every[0]!.object).not.toBe(every.at(-1)!.object);
      await writeEditingSet(folder, 'test', 6, 5, first);
      const written = JSON.parse(readFileSync(path.join(folder, 'test.json'), 'utf8')) as EvqaRecord[];
      const about = (wanted: boolean) => every.filter(({ object }) => first.has(object) === wanted);
      expect(written.map(({ object, src }) => ({ object, src }))).toEqual([...about(true), ...about(false)]);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it('is written as E-VQA JSON with its pictures beside it', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'emend-editing-set-'));
    try {
      await writeEditingSet(folder, 'test', 6, 5);
      const written = JSON.parse(readFileSync(path.join(folder, 'test.json'), 'utf8')) as EvqaRecord[];
      expect(written).toHaveLength(6);
      const memory = editingRecords('test', 6, 5);
      for (const [i, record] of written.entries()) {
        for (const field of [
          'src',
          'rephrase',
          'pred',
          'alt',
          'loc',
          'loc_ans',
          'm_loc_q',
          'm_loc_a',
        ] as const) {
          expect(record[field]).toBe(memory[i]![field]);
        }
        for (const field of [
          'image',
          'image_rephrase',
          'm_loc',
          'image_swapped',
          'image_elsewhere',
        ] as const) {
          const scene = memory[i]![field];
          expect(record[field] === undefined).toBe(scene === undefined);
          if (!scene) continue;
          const { data, info } = await sharp(path.join(folder, record[field]!))
            .raw()
            .toBuffer({ resolveWithObject: true });
          expect([info.width, info.height, info.channels]).toEqual([120, 120, 3]);
          expect(Buffer.compare(data, Buffer.from(renderScene(scene)))).toBe(0);
        }
      }
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
