/**
 * @file The curve of a training: a point every few steps or seconds, and every validation; a line of curve.jsonl each, never too many.
 */
import { appendFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { TrainingProgress } from '../editors/training/editorTraining.ts';
import { replaceFile } from '../files/replaceFile.ts';

/** Means over the steps since the point before. */
export interface TrainingPoint {
  readonly step: number;
  readonly loss: number;
  readonly terms: Readonly<Record<string, number>>;
  readonly gradientNorm: number;
  readonly editsPerSecond: number;
}

/** Edits held out, measured alone without a scope: mean of the five, 0..1. */
export interface TrainingValidation {
  readonly step: number;
  readonly exactMatch: number;
  readonly teacherForced: number;
}

type CurveLine = { readonly point: TrainingPoint } | { readonly validation: TrainingValidation };

/** A training has so many points where all take the same number of steps; so many more may be recorded as time passes. */
const POINTS = 1000;
/** The longest time between two points, where a step does not take longer. */
const SECONDS_BETWEEN = 3;

const fileIn = (folder: string) => join(folder, 'curve.jsonl');

/** The curve so far, oldest first; lines that a crash cut short are left out. */
export async function readTrainingCurve(
  folder: string,
): Promise<{ points: TrainingPoint[]; validations: TrainingValidation[] }> {
  const text = await readFile(fileIn(folder), 'utf8').catch(() => '');
  const points: TrainingPoint[] = [];
  const validations: TrainingValidation[] = [];
  for (const line of text.split('\n')) {
    try {
      const read = JSON.parse(line) as CurveLine;
      if ('point' in read) points.push(read.point);
      else validations.push(read.validation);
    } catch {}
  }
  return { points, validations };
}

/** Every two points as one: means over the steps of both. */
export function halved(points: readonly TrainingPoint[]): TrainingPoint[] {
  const merged: TrainingPoint[] = [];
  for (let at = 0; at < points.length; at += 2) {
    const [one, other] = [points[at]!, points[at + 1]];
    if (!other) {
      merged.push(one);
      break;
    }
    const before = points[at - 1]?.step ?? 0;
    merged.push(mean([one, other], [one.step - before, other.step - one.step]));
  }
  return merged;
}

/** Points made of steps, kept in a training's folder as far as its state is. */
export class TrainingCurve {
  readonly #folder: string;
  readonly #gap: number;
  readonly #editsPerStep: number;
  #gathered: TrainingPoint[] = [];
  #unsaved: TrainingPoint[] = [];
  /** seconds at the last point; null before the first step of this run */
  #told: number | null = null;

  constructor(folder: string, steps: number, editsPerStep: number) {
    this.#folder = folder;
    this.#gap = Math.max(1, Math.ceil(steps / POINTS));
    this.#editsPerStep = editsPerStep;
  }

  /** Takes up a step; a point where one is due. */
  add({ step, steps, seconds, loss, terms, gradientNorm }: TrainingProgress): TrainingPoint | null {
    const first = this.#told === null;
    const told = this.#told ?? seconds;
    this.#told = told;
    this.#gathered.push({ step, loss, terms, gradientNorm, editsPerSecond: 0 });
    const due = step % this.#gap === 0 || step === steps || seconds - told >= SECONDS_BETWEEN;
    if (!due) return null;
    const count = this.#gathered.length;
    // The first step alone says nothing of speed: no time had passed before it.
    const speed =
      first || (count === 1 && told === 0)
        ? 0
        : (count * this.#editsPerStep) / Math.max(1e-3, seconds - told);
    const shares = this.#gathered.map(() => 1);
    const point = { ...mean(this.#gathered, shares), editsPerSecond: speed };
    this.#told = seconds;
    this.#gathered = [];
    this.#unsaved.push(point);
    return point;
  }

  /** Writes what was not written yet; where there are too many points, every two become one. */
  async save(): Promise<void> {
    await this.#append(this.#unsaved.splice(0).map((point) => ({ point })));
    const { points, validations } = await readTrainingCurve(this.#folder);
    if (points.length <= 2 * POINTS) return;
    const lines = [
      ...halved(points).map((point) => ({ point })),
      ...validations.map((validation) => ({ validation })),
    ];
    await replaceFile(fileIn(this.#folder), (handle) => handle.writeFile(textOf(lines)));
  }

  validated(validation: TrainingValidation): Promise<void> {
    return this.#append([{ validation }]);
  }

  async #append(lines: readonly CurveLine[]): Promise<void> {
    await appendFile(fileIn(this.#folder), textOf(lines));
  }
}

const textOf = (lines: readonly CurveLine[]) => lines.map((line) => `${JSON.stringify(line)}\n`).join('');

/** Weighted means of points; the step is the last one's. */
function mean(points: readonly TrainingPoint[], shares: readonly number[]): TrainingPoint {
  const total = shares.reduce((a, b) => a + b, 0);
  const of = (value: (point: TrainingPoint) => number) =>
    points.reduce((sum, point, at) => sum + value(point) * shares[at]!, 0) / total;
  const last = points.at(-1)!;
  return {
    step: last.step,
    loss: of(({ loss }) => loss),
    terms: Object.fromEntries(
      Object.keys(last.terms).map((name) => [name, of(({ terms }) => terms[name] ?? 0)]),
    ),
    gradientNorm: of(({ gradientNorm }) => gradientNorm),
    editsPerSecond: of(({ editsPerSecond }) => editsPerSecond),
  };
}
