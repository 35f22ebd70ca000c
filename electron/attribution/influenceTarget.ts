/**
 * @file What the influence mapper learns from (VisEdit eqs. 18–19): how much each visual row of a neighbour (a generality or
 * locality sample) adds to the attention at the last token of the edit prompt.
 */
import { EmendError } from '../errors.ts';
import { AttentionNorms, type Decoder, rowsOf } from './layerInputs.ts';
import { PerturbedAttention, type PerturbedItem } from './perturbedAttention.ts';
import {
  type AttributionInput,
  cellKind,
  checkPerturbation,
  type Noise,
  noisePlace,
  type Perturbation,
  perturbedItem,
  visualGrid,
} from './visualContribution.ts';

/**
 * What of the neighbour takes its place in the edit sample, at each layer of L_h.
 * `paper`: all visual rows; `none`: nothing; `official`: the one number the published code's indexing slip replaces, in the
 * normed input of attention: element [first visual row, number of the row behind the last visual one].
 */
export type Replacement = 'paper' | 'none' | 'official';

/** An edit sample and a neighbour of it. */
export interface InfluencePair {
  /** hidden states of the edit sample entering the layers of L_h; rows behind the last prompt token are not read */
  readonly edit: AttributionInput;
  /**
   * the neighbour entering the same layers, up to its last visual row at least; of a picture with other rows than the edit's, what
   * stands before them goes with them
   */
  readonly neighbour: Omit<AttributionInput, 'lastPromptRow'>;
  /** visual rows to contribute, indices inside the picture; as many in every pair of a run */
  readonly cells: readonly number[];
  /** of the same kind in every pair of a run */
  readonly noise: Noise;
}

/** Contributions in one pair. */
export interface InfluenceContribution {
  /** by layer of L_h, averaged over draws [cells] */
  readonly perLayer: readonly Float32Array[];
  /** averaged over draws and layers, not normalised [cells] */
  readonly mean: Float32Array;
}

/** Attribution of neighbours to edit prompts at the layers of L_h, compiled once for a training run. */
export class InfluenceAttribution {
  readonly replacement: Replacement;
  readonly perturbation: Perturbation;
  readonly #width: number;
  readonly #attention: PerturbedAttention;
  /** only the `official` replacement works behind the norm */
  readonly #norms: AttentionNorms | null;

  private constructor(
    replacement: Replacement,
    perturbation: Perturbation,
    width: number,
    attention: PerturbedAttention,
    norms: AttentionNorms | null,
  ) {
    this.#norms = norms;
    this.replacement = replacement;
    this.perturbation = perturbation;
    this.#width = width;
    this.#attention = attention;
  }

  /**
   * `layers`: L_h, ascending. Throws `invalid-input` for layers or noise that cannot be, and for the `official` replacement
   * with the paper's noise, which lies before the norm.
   */
  static async compile(
    decoder: Decoder,
    layers: readonly number[],
    perturbation: Perturbation,
    replacement: Replacement = 'paper',
  ): Promise<InfluenceAttribution> {
    checkPerturbation(perturbation);
    if (replacement === 'official' && perturbation.variant !== 'code') {
      throw new EmendError(
        'invalid-input',
        'The official replacement goes with the noise of the published code.',
      );
    }
    const norms = replacement === 'official' ? await AttentionNorms.compile(decoder, layers) : null;
    const place = norms ? 'given-normed' : noisePlace(perturbation);
    const attention = await PerturbedAttention.compile(decoder, layers, place, cellKind(perturbation));
    return new InfluenceAttribution(replacement, perturbation, decoder.hidden, attention, norms);
  }

  get layers(): readonly number[] {
    return this.#attention.layers;
  }

  /** Pairs of any prompt lengths in one run; what a pair gives does not depend on those beside it. */
  async run(pairs: readonly InfluencePair[]): Promise<InfluenceContribution[]> {
    const { draws, variant } = this.perturbation;
    const items: PerturbedItem[] = [];
    for (const pair of pairs) {
      const input = await this.#replaced(pair);
      const grid = visualGrid(input.imageRows.length);
      items.push(perturbedItem(input, pair.cells, grid, this.perturbation, pair.noise, this.#width));
    }
    const factor = (variant === 'paper' ? 0.5 : 1) / draws;
    return (await this.#attention.run(items)).map((turns, index) => {
      const cells = pairs[index]!.cells.length;
      const perLayer = turns.map((turn) => {
        const mean = new Float32Array(cells);
        for (const [at, value] of turn.entries()) mean[at % cells]! += factor * value;
        return mean;
      });
      const mean = new Float32Array(cells);
      for (const contribution of perLayer) {
        for (const [cell, value] of contribution.entries()) mean[cell]! += value / perLayer.length;
      }
      return { perLayer, mean };
    });
  }

  /** The edit sample up to its last prompt token, with the neighbour in its place. */
  async #replaced({ edit, neighbour }: InfluencePair): Promise<AttributionInput> {
    const width = this.#width;
    if (neighbour.hidden.length !== this.layers.length) {
      throw new EmendError('internal', 'A neighbour needs hidden states at each of the layers.');
    }
    const visual = neighbour.hidden.map((states) => rowsOf(states, neighbour.imageRows, width));
    const own = edit.hidden.map((hidden) => hidden.slice(0, (edit.lastPromptRow + 1) * width));
    if (this.replacement === 'none') return { ...edit, hidden: own };
    if (!alike(edit, neighbour)) {
      if (this.replacement === 'official')
        throw new EmendError('invalid-input', 'The official replacement needs pictures of the same rows.');
      return spliced(edit, own, neighbour, width);
    }
    if (this.replacement === 'paper') {
      for (const [layer, rows] of visual.entries()) {
        for (const [at, row] of edit.imageRows.entries())
          own[layer]!.set(rows.subarray(at * width, (at + 1) * width), row * width);
      }
    }
    if (!this.#norms) return { ...edit, hidden: own };
    const normed = (await this.#norms.run(own)).map((states) => states.slice());
    const others = await this.#norms.run(visual);
    const [start, end] = [edit.imageRows[0]!, edit.imageRows.at(-1)! + 1];
    if (end < width)
      for (const [layer, states] of normed.entries()) states[start * width + end] = others[layer]![end]!;
    return { ...edit, hidden: normed };
  }

  async dispose(): Promise<void> {
    await this.#attention.dispose();
    await this.#norms?.dispose();
  }
}

/** Eq. 19's weights: contributions of the sampled rows, divided by their sum. Equal ones when nothing contributes. [cells] */
export function influenceTarget(contributions: Float32Array): Float32Array {
  let sum = 0;
  for (const value of contributions) sum += value;
  return contributions.map((value) => (sum > 0 ? value / sum : 1 / contributions.length));
}

/** L_h as the published code has it: the layers after the edit layer but the last, or the last where it alone is left. */
export function layersAfterEdit(editLayer: number, layers: number): number[] {
  if (!Number.isInteger(editLayer) || editLayer < 0 || editLayer > layers - 2) {
    throw new EmendError(
      'invalid-input',
      `Edit layer ${editLayer} leaves no layer above it: take 0 to ${layers - 2}.`,
    );
  }
  const between = Array.from({ length: layers - 2 - editLayer }, (_, index) => editLayer + 1 + index);
  return between.length > 0 ? between : [layers - 1];
}

/** Whether two pictures take the same rows at the same positions. */
function alike(edit: AttributionInput, neighbour: InfluencePair['neighbour']): boolean {
  if (neighbour.imageRows.join() !== edit.imageRows.join()) return false;
  const at = ({ positions }: Pick<AttributionInput, 'positions'>) =>
    positions?.map((axis) => edit.imageRows.map((row) => axis[row]).join()).join(';');
  return !edit.positions || !neighbour.positions || at(edit) === at(neighbour);
}

/**
 * The neighbour's rows up to the end of its picture, and the edit's behind the end of its own: eq. 18's replacement where the
 * two pictures take different rows. The edit's positions are moved to follow the neighbour's picture as they followed its own.
 */
function spliced(
  edit: AttributionInput,
  own: readonly Float32Array[],
  neighbour: InfluencePair['neighbour'],
  width: number,
): AttributionInput {
  const from = edit.imageRows.at(-1)! + 1;
  const to = neighbour.imageRows.at(-1)! + 1;
  const rest = edit.lastPromptRow + 1 - from;
  const hidden = own.map((states, layer) => {
    const whole = new Float32Array((to + rest) * width);
    whole.set(neighbour.hidden[layer]!.subarray(0, to * width));
    whole.set(states.subarray(from * width), to * width);
    return whole;
  });
  const axes = Math.max(edit.positions?.length ?? 1, neighbour.positions?.length ?? 1);
  const after = (input: Pick<AttributionInput, 'positions'>, row: number) =>
    Math.max(...Array.from({ length: axes }, (_, axis) => largest(input.positions?.[axis], row))) + 1;
  const shift = after(neighbour, to) - after(edit, from);
  const positions = Array.from({ length: axes }, (_, axis) =>
    Int32Array.from({ length: to + rest }, (_, row) =>
      row < to
        ? (neighbour.positions?.[axis]?.[row] ?? row)
        : (edit.positions?.[axis]?.[row - to + from] ?? row - to + from) + shift,
    ),
  );
  return {
    hidden,
    imageRows: neighbour.imageRows,
    lastPromptRow: to + rest - 1,
    positions,
  };
}

/** The largest position of the first `rows` rows. */
function largest(positions: Int32Array | undefined, rows: number): number {
  let most = -1;
  for (let row = 0; row < rows; row++) most = Math.max(most, positions?.[row] ?? row);
  return most;
}
