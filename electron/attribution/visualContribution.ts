/**
 * @file Visual-representation contribution (VisEdit eqs. 6–8): how much each visual row adds to the attention output at the
 * last prompt row, by layer. The heatmaps of the papers' figures.
 */
import { EmendError } from '../errors.ts';
import type { VisualGrid } from '../models/picture.ts';
import type { Positions } from '../models/positions.ts';
import type { ModelInput } from '../models/visionLanguageModel.ts';
import { floatsOf } from '../tensor/session.ts';
import { type Decoder, LayerInputs, rowsOf } from './layerInputs.ts';
import {
  type CellKind,
  type NoisePlace,
  PerturbedAttention,
  type PerturbedItem,
} from './perturbedAttention.ts';

/** Which rows are perturbed together, how, and how often. */
export interface Perturbation {
  /** `paper`: noise of `level`·σ on h^(l−1), σ its visual rows' standard deviation, ½(1 − cos); `code`: noise of `level` on the normed input of attention, 1 − cos */
  readonly variant: 'paper' | 'code';
  readonly level: number;
  /** draws the contribution is averaged over */
  readonly draws: number;
  /** cells at most this far in the visual grid, along either side, are perturbed together; 0: one row at a time */
  readonly radius: number;
}

/** Eqs. 6–8 as printed: one row at a time, noise of three standard deviations. */
export const paperPerturbation: Perturbation = { variant: 'paper', level: 3, draws: 10, radius: 0 };
/** The published code's heatmaps. */
export const codePerturbation: Perturbation = { variant: 'code', level: 0.7, draws: 10, radius: 3 };
/** The published code's training of the influence mapper. */
export const codeTrainingPerturbation: Perturbation = { variant: 'code', level: 0.7, draws: 1, radius: 0 };

/** Standard normal noise drawn from a seed, one vector for each draw and visual row; or given, one for each cell, draw and row of the cell's window. */
export type Noise =
  | { readonly kind: 'seed'; readonly seed: number }
  /** [cells, draws, most rows of a window, hidden] at each layer; rows in the order of `windows`, what is left unused */
  | { readonly kind: 'given'; readonly values: readonly Float32Array[] };

/** Hidden states to attribute in. */
export interface AttributionInput {
  /** hidden states entering each layer [rows, hidden] */
  readonly hidden: readonly Float32Array[];
  /** rows of the picture, in the order of its visual embeddings */
  readonly imageRows: readonly number[];
  /** row of the last prompt token, behind the picture */
  readonly lastPromptRow: number;
  /** positions of the rows; absent: 0, 1, 2, … */
  readonly positions?: Positions | undefined;
}

export interface VisualContribution {
  readonly layer: number;
  /** contribution of each cell asked for, averaged over draws [cells] */
  readonly mean: Float32Array;
  /** [cells, draws] */
  readonly perDraw: Float32Array;
}

/** A square where the count is one, else a line (Q-Formers' queries have no place in the picture). */
export function visualGrid(visualRows: number): VisualGrid {
  const side = Math.round(Math.sqrt(visualRows));
  return side * side === visualRows ? { height: side, width: side } : { height: 1, width: visualRows };
}

/** Cells within `radius` of each cell along both sides of the grid, itself included, in ascending order [cells][…]. */
export function windows({ height, width }: VisualGrid, radius: number): number[][] {
  return Array.from({ length: height * width }, (_, cell) => {
    const [y, x] = [Math.floor(cell / width), cell % width];
    const window: number[] = [];
    for (let row = Math.max(y - radius, 0); row <= Math.min(y + radius, height - 1); row++) {
      for (let column = Math.max(x - radius, 0); column <= Math.min(x + radius, width - 1); column++) {
        window.push(row * width + column);
      }
    }
    return window;
  });
}

/** Throws `invalid-input` for a perturbation nobody can mean: no draws, negative radius, a level that is not positive. */
export function checkPerturbation({ level, draws, radius }: Perturbation): void {
  const whole = (value: number, least: number, most: number) =>
    Number.isInteger(value) && value >= least && value <= most;
  if (Number.isFinite(level) && level > 0 && whole(draws, 1, 1000) && whole(radius, 0, 1000)) return;
  throw new EmendError(
    'invalid-input',
    `Noise of level ${level}, ${draws} draws and radius ${radius} cannot be used: the level is above 0, draws are 1 to 1000, the radius is 0 or more cells.`,
  );
}

/** Where a variant puts its noise. */
export const noisePlace = ({ variant }: Perturbation): NoisePlace =>
  variant === 'paper' ? 'layer-input' : 'attention-input';

/** Whether rows are perturbed one at a time. */
export const cellKind = ({ radius }: Perturbation): CellKind => (radius === 0 ? 'row' : 'window');

/** Standard normal numbers that depend on the seed only (mulberry32, Box–Muller). */
export function standardNormal(count: number, seed: number): Float32Array {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const values = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
    const angle = 2 * Math.PI * uniform();
    values[i] = radius * Math.cos(angle);
    if (i + 1 < count) values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

/** Standard deviation of all elements of some rows of hidden states [rows, hidden] (population; eq. 6's σ). */
export function standardDeviation(hidden: Float32Array, rows: readonly number[], width: number): number {
  const values = rowsOf(hidden, rows, width);
  let sum = 0;
  for (const value of values) sum += value;
  const mean = sum / values.length;
  let squares = 0;
  for (const value of values) squares += (value - mean) ** 2;
  return Math.sqrt(squares / values.length);
}

/** One input with its noise, as the attention takes it. `cells`: the cells to contribute, indices into the picture's rows. */
export function perturbedItem(
  input: AttributionInput,
  cells: readonly number[],
  grid: VisualGrid,
  perturbation: Perturbation,
  noise: Noise,
  width: number,
): PerturbedItem {
  const { imageRows } = input;
  const { draws } = perturbation;
  const visual = imageRows.length;
  const inside = visual > 0 && imageRows.every((row) => row >= 0 && row < input.lastPromptRow);
  if (!inside || grid.height * grid.width !== visual) {
    throw new EmendError(
      'invalid-input',
      `Visual attribution needs a picture before the last prompt token: ${visual} rows from ${imageRows[0]} to ${imageRows.at(-1)}, last prompt row ${input.lastPromptRow}, grid ${grid.height}×${grid.width}.`,
    );
  }
  const stray = cells.find((cell) => !Number.isInteger(cell) || cell < 0 || cell >= visual);
  if (cells.length === 0 || stray !== undefined) {
    throw new EmendError(
      'invalid-input',
      `Ask for some of cells 0 to ${visual - 1} of the picture${stray === undefined ? '' : `, not ${stray}`}.`,
    );
  }
  const all = windows(grid, perturbation.radius);
  const chosen = cells.map((cell) => all[cell]!);
  const scale = input.hidden.map((hidden) =>
    perturbation.variant === 'paper'
      ? perturbation.level * standardDeviation(hidden, imageRows, width)
      : perturbation.level,
  );
  const base = { hidden: input.hidden, positions: input.positions, keyRow: input.lastPromptRow, scale };

  if (noise.kind === 'seed') {
    // A row's draw is the same whichever window it is perturbed in, so its key and value are worked out once.
    const alone = perturbation.radius === 0;
    const perturbed = alone ? cells : all.map((_, cell) => cell);
    const drawn = standardNormal(draws * perturbed.length * width, noise.seed);
    return {
      ...base,
      rows: perturbed.map((cell) => imageRows[cell]!),
      cells: alone ? cells.map((_, index) => [index]) : chosen,
      noise: input.hidden.map(() => drawn),
    };
  }
  const slots = (noise.values[0]?.length ?? 0) / (cells.length * draws * width);
  const most = Math.max(...chosen.map((window) => window.length));
  if (!Number.isInteger(slots) || slots < most || (slots > 1 && perturbation.radius === 0)) {
    throw new EmendError(
      'invalid-input',
      `The noise given has ${slots} rows a window; windows have up to ${most}.`,
    );
  }
  return {
    ...base,
    // Slots a window leaves unused point to its first row and belong to no cell.
    rows: chosen.flatMap((window) =>
      Array.from({ length: slots }, (_, slot) => imageRows[window[slot] ?? window[0]!]!),
    ),
    cells: chosen.map((window, cell) => window.map((_, slot) => cell * slots + slot)),
    noise: noise.values.map((values) => drawsFirst(values, cells.length, draws, slots * width)),
  };
}

/** [cells, draws, size] → [draws, cells, size]. */
function drawsFirst(values: Float32Array, cells: number, draws: number, size: number): Float32Array {
  const result = new Float32Array(values.length);
  for (let cell = 0; cell < cells; cell++) {
    for (let draw = 0; draw < draws; draw++) {
      const from = (cell * draws + draw) * size;
      result.set(values.subarray(from, from + size), (draw * cells + cell) * size);
    }
  }
  return result;
}

/** Visual contributions at chosen layers, compiled once for many pictures and prompts. */
export class VisualAttribution {
  readonly perturbation: Perturbation;
  readonly #width: number;
  readonly #attention: PerturbedAttention;

  private constructor(perturbation: Perturbation, width: number, attention: PerturbedAttention) {
    this.perturbation = perturbation;
    this.#width = width;
    this.#attention = attention;
  }

  /** Only the attention weights of the chosen layers are loaded. Throws `invalid-input` for layers or noise that cannot be. */
  static async compile(
    decoder: Decoder,
    layers: readonly number[],
    perturbation: Perturbation = paperPerturbation,
  ): Promise<VisualAttribution> {
    checkPerturbation(perturbation);
    const attention = await PerturbedAttention.compile(
      decoder,
      layers,
      noisePlace(perturbation),
      cellKind(perturbation),
    );
    return new VisualAttribution(perturbation, decoder.hidden, attention);
  }

  get layers(): readonly number[] {
    return this.#attention.layers;
  }

  /** Contributions of every visual row, in the papers' range [0, 1] or the code's [0, 2]. */
  async run(
    input: AttributionInput,
    noise: Noise,
    grid: VisualGrid = visualGrid(input.imageRows.length),
  ): Promise<VisualContribution[]> {
    const cells = Array.from({ length: grid.height * grid.width }, (_, cell) => cell);
    const item = perturbedItem(input, cells, grid, this.perturbation, noise, this.#width);
    const turns = (await this.#attention.run([item]))[0]!;
    const { draws, variant } = this.perturbation;
    const factor = variant === 'paper' ? 0.5 : 1;
    return this.layers.map((layer, index) => {
      const perDraw = Float32Array.from({ length: cells.length * draws }, (_, at) => {
        const [cell, draw] = [Math.floor(at / draws), at % draws];
        return factor * turns[index]![draw * cells.length + cell]!;
      });
      const mean = Float32Array.from(cells, (cell) => {
        let sum = 0;
        for (let draw = 0; draw < draws; draw++) sum += perDraw[cell * draws + draw]!;
        return sum / draws;
      });
      return { layer, mean, perDraw };
    });
  }

  async dispose(): Promise<void> {
    await this.#attention.dispose();
  }
}

/** Layers whose attention is perturbed in one run: progress is told, and a wish to stop is heard, between two. */
const LAYERS_AT_ONCE = 4;

/**
 * Contributions of the picture's rows in prompts laid out for the model, at chosen layers: the part of the decoder below them
 * and their attention, compiled once for many prompts.
 */
export class PictureAttribution {
  readonly layers: readonly number[];
  readonly #below: LayerInputs;
  readonly #groups: readonly VisualAttribution[];

  private constructor(below: LayerInputs, groups: readonly VisualAttribution[]) {
    this.layers = below.layers;
    this.#below = below;
    this.#groups = groups;
  }

  /** `layers`: ascending. Throws as `VisualAttribution.compile`. */
  static async compile(
    decoder: Decoder,
    layers: readonly number[],
    perturbation: Perturbation = paperPerturbation,
  ): Promise<PictureAttribution> {
    const below = await LayerInputs.compile(decoder, layers);
    const groups: VisualAttribution[] = [];
    try {
      for (let from = 0; from < layers.length; from += LAYERS_AT_ONCE) {
        const group = layers.slice(from, from + LAYERS_AT_ONCE);
        groups.push(await VisualAttribution.compile(decoder, group, perturbation));
      }
      return new PictureAttribution(below, groups);
    } catch (error) {
      for (const made of [below, ...groups]) await made.dispose();
      throw error;
    }
  }

  /**
   * For each layer, of every visual row. `between` is awaited after every few layers, and may throw to stop.
   * Throws `invalid-input` for a prompt without a picture.
   */
  async run(
    input: ModelInput,
    seed = 0,
    between: (layersDone: number) => Promise<void> = async () => {},
  ): Promise<VisualContribution[]> {
    const { imageRows, lastPromptRow, positions, grid } = input;
    if (!imageRows)
      throw new EmendError('invalid-input', 'Visual attribution needs a picture with the prompt.');
    const [hidden] = await this.#below.run([{ ...input, hidden: await floatsOf(input.embeddings) }]);
    const found: VisualContribution[] = [];
    for (const group of this.#groups) {
      const entering = hidden!.slice(found.length, found.length + group.layers.length);
      const some = await group.run(
        { hidden: entering, imageRows, lastPromptRow, positions },
        { kind: 'seed', seed },
        grid ?? { height: 1, width: imageRows.length },
      );
      found.push(...some);
      await between(found.length);
    }
    return found;
  }

  async dispose(): Promise<void> {
    for (const part of [this.#below, ...this.#groups]) await part.dispose();
  }
}
