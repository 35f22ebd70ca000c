/**
 * @file Examples as a scope sees them: the frozen model is run once per picture and once per question, and what it holds is kept in
 * a folder, so that a training that is started again does not run it again.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { EmendError } from '../../../errors.ts';
import type { Pixels } from '../../../models/picture.ts';
import type { VisionLanguageModel } from '../../../models/visionLanguageModel.ts';
import type { NumberedAsk, ScopeAsk, ScopeFamily, ScopeSource } from './examples.ts';
import {
  type InputName,
  PICTURE_INPUTS,
  type Projection,
  Projector,
  pictureRows,
  plainQuestion,
  principalComponents,
  QUESTION_INPUTS,
  questionRows,
  type RawRows,
  type ScopeLayers,
} from './features.ts';

/** A family with places of its pictures and numbered asks. */
export interface NumberedFamily {
  /** places of its pictures, and the scene of each */
  readonly pictures: ReadonlyArray<{ readonly place: number; readonly scene: number }>;
  readonly asks: readonly NumberedAsk[];
  /** see `ScopeFamily`; without prompts */
  readonly answers: readonly NumberedAsk[] | null;
}

export interface ScopeDataset {
  readonly families: readonly NumberedFamily[];
  /** rows of every picture, one picture after the other [pictures, rows, width] */
  readonly pictures: { readonly rows: number; readonly width: number; readonly data: Int8Array };
  /** rows of every question [rows, width] */
  readonly questions: ReadonlyArray<Int8Array>;
  readonly questionWidth: number;
}

export interface Projections {
  readonly projections: Readonly<Record<InputName, Projection>>;
  /** components of each input */
  readonly components: number;
  /** share of each input's variance along them */
  readonly kept: Readonly<Record<InputName, number>>;
}

export type Progress = (stage: string, done: number, total: number) => void;

/** What a picture and a question are to the model, before projection. */
async function rawPicture(model: VisionLanguageModel, pixels: Pixels, layers: ScopeLayers) {
  const visual = await model.visualEmbeddings(pixels);
  const encoded = model.prompts.encodePrompt({ prompt: '?', image: true });
  // Rows behind the picture do not change it.
  const [picture] = encoded.pictures as [number];
  const ids = encoded.ids.slice(0, picture + 1);
  const input = await model.lay({ ...encoded, ids, lastPromptToken: picture }, visual);
  return pictureRows(model, await model.prefill(input, []), layers);
}

/** Principal components of what the model holds of the first families. */
export async function fitProjections(
  model: VisionLanguageModel,
  source: ScopeSource,
  layers: ScopeLayers,
  wanted: { readonly components: number; readonly families: number },
): Promise<Projections> {
  const components = Math.min(wanted.components, model.hidden);
  const rows = new Map<InputName, Float32Array[]>(
    [...PICTURE_INPUTS, ...QUESTION_INPUTS].map((name) => [name, []]),
  );
  const take = (raw: RawRows) => {
    for (const [name, values] of Object.entries(raw)) rows.get(name as InputName)!.push(values);
  };
  for (let index = 0; index < Math.min(wanted.families, source.families); index++) {
    const { family, pixels } = await source.family(index);
    for (const picture of pixels.slice(0, 2)) take(await rawPicture(model, picture, layers));
    for (const { wordings } of family.asks) take(await questionRows(model, wordings[0]!, layers));
  }
  const projections: Partial<Record<InputName, Projection>> = {};
  const kept: Partial<Record<InputName, number>> = {};
  for (const [name, parts] of rows) {
    const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      all.set(part, at);
      at += part.length;
    }
    const found = await principalComponents(all, model.hidden, components);
    projections[name] = { mean: found.mean, directions: found.directions };
    kept[name] = found.kept;
  }
  return {
    projections: projections as Record<InputName, Projection>,
    components,
    kept: kept as Record<InputName, number>,
  };
}

/** Runs the model over a source, or reads what an earlier run kept in `folder`. */
export async function encodeSource(
  model: VisionLanguageModel,
  modelFingerprint: string,
  source: ScopeSource,
  layers: ScopeLayers,
  projections: Projections,
  options: { readonly folder: string; readonly signal?: AbortSignal; readonly progress?: Progress },
): Promise<ScopeDataset> {
  const { components } = projections;
  const hash = createHash('sha256').update(
    JSON.stringify([
      3,
      modelFingerprint,
      model.prompts.form,
      source.name,
      source.families,
      layers,
      components,
    ]),
  );
  for (const { mean, directions } of Object.values(projections.projections)) {
    hash.update(new Uint8Array(mean.buffer, mean.byteOffset, mean.byteLength));
    hash.update(new Uint8Array(directions.buffer, directions.byteOffset, directions.byteLength));
  }
  const stem = join(options.folder, `examples-${hash.digest('hex').slice(0, 16)}`);
  const known = await readKept(stem);
  if (known) return known;

  const projector = await Projector.create(projections.projections, model.hidden, components);
  try {
    const width = PICTURE_INPUTS.length * components;
    const questionWidth = QUESTION_INPUTS.length * components;
    const pictures: Int8Array[] = [];
    const families: ScopeFamily[] = [];
    for (let index = 0; index < source.families; index++) {
      if (options.signal?.aborted) throw new EmendError('cancelled', 'Training was stopped.');
      options.progress?.('Pictures', index, source.families);
      const { family, pixels } = await source.family(index);
      families.push(family);
      for (const picture of pixels)
        pictures.push((await projector.project(await rawPicture(model, picture, layers), null)).picture);
    }
    const rows = pictures[0]!.length / width;
    const data = new Int8Array(pictures.length * rows * width);
    for (const [place, picture] of pictures.entries()) {
      if (picture.length !== rows * width)
        throw new EmendError('unsupported', 'A learned scope needs pictures of one number of visual tokens.');
      data.set(picture, place * rows * width);
    }
    const { prompts, numbered } = numberFamilies(families);
    const questions: Int8Array[] = [];
    for (const [place, prompt] of prompts.entries()) {
      if (options.signal?.aborted) throw new EmendError('cancelled', 'Training was stopped.');
      if (place % 100 === 0) options.progress?.('Questions', place, prompts.length);
      questions.push((await projector.project(null, await questionRows(model, prompt, layers))).question);
    }
    const made = { families: numbered, pictures: { rows, width, data }, questions, questionWidth };
    await keep(stem, made);
    return made;
  } finally {
    await projector.dispose();
  }
}

/** Numbers texts and places; questions that typing alone tells apart are one prompt. */
export function numberFamilies(families: readonly ScopeFamily[]): {
  prompts: string[];
  numbered: NumberedFamily[];
} {
  const table = () => {
    const known = new Map<string, number>();
    const numberOf = (text: string) => {
      const found = known.get(text) ?? known.size;
      known.set(text, found);
      return found;
    };
    return { known, numberOf };
  };
  const [prompts, questions, things, abouts] = [table(), table(), table(), table()];
  let place = 0;
  const numbered = families.map(({ pictures, asks, answers }, family): NumberedFamily => {
    const number = (
      { scene, question, kind, about, names, doubtful }: Omit<ScopeAsk, 'wordings'>,
      wordings: readonly string[],
    ): NumberedAsk => ({
      family,
      scene,
      question: questions.numberOf(question),
      thing: about === null ? -1 : things.numberOf(`${kind}\n${about}`),
      about: about === null ? -1 : abouts.numberOf(about),
      names,
      doubtful,
      prompts: [...new Set(wordings.map((wording) => prompts.numberOf(plainQuestion(wording))))],
    });
    return {
      pictures: pictures.map((scene) => ({ place: place++, scene })),
      asks: asks.map((ask) => number(ask, ask.wordings)),
      answers: answers?.map((answer) => number(answer, [])) ?? null,
    };
  });
  return { prompts: [...prompts.known.keys()], numbered };
}

async function keep(stem: string, { families, pictures, questions, questionWidth }: ScopeDataset) {
  await mkdir(join(stem, '..'), { recursive: true });
  const lengths = questions.map((rows) => rows.length);
  const text = JSON.stringify({
    families,
    rows: pictures.rows,
    width: pictures.width,
    lengths,
    questionWidth,
  });
  await writeFile(`${stem}.bin.part`, Buffer.concat([pictures.data, ...questions].map(bytesOf)));
  await rename(`${stem}.bin.part`, `${stem}.bin`);
  await writeFile(`${stem}.json`, text);
}

const bytesOf = ({ buffer, byteOffset, byteLength }: Int8Array) =>
  new Uint8Array(buffer, byteOffset, byteLength);

export async function readKept(stem: string): Promise<ScopeDataset | null> {
  const text = await readFile(`${stem}.json`, 'utf8').catch(() => null);
  if (text === null) return null;
  const { families, rows, width, lengths, questionWidth } = JSON.parse(text) as {
    families: NumberedFamily[];
    rows: number;
    width: number;
    lengths: number[];
    questionWidth: number;
  };
  const bytes = await readFile(`${stem}.bin`);
  const all = new Int8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = families.reduce((sum, { pictures }) => sum + pictures.length, 0);
  const size = count * rows * width;
  if (all.length !== lengths.reduce((sum, length) => sum + length, size)) return null;
  let at = size;
  const questions = lengths.map((length) => {
    at += length;
    return all.subarray(at - length, at);
  });
  return { families, pictures: { rows, width, data: all.subarray(0, size) }, questions, questionWidth };
}
