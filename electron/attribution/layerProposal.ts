/**
 * @file Which layer to edit: proposed from what each layer takes from the picture and from the prompt towards the key token
 * (VisEdit sections 3 and 4: "before the high-contribution layers"). A starting point; which layer edits best is found by editing.
 */
import { EmendError } from '../errors.ts';

/** Rows that an editor of hidden states changes: those of the picture, or those of the question behind it. */
export type EditedRows = 'visual' | 'text';

/** What was measured of each layer, means over inputs. Each array [layers]. */
export interface LayerMeasures {
  /** contribution of the attention output to the key token (eq. 3), of the MLP's, signed */
  readonly attention: ArrayLike<number>;
  readonly mlp: ArrayLike<number>;
  /** visual contribution (eq. 7) of a visual row to the layer's attention output, mean over rows */
  readonly visual: ArrayLike<number>;
  /** share of the last prompt token's attention that rows of the question get, 0..1 */
  readonly text: ArrayLike<number>;
}

export interface LayerProposal {
  readonly rows: EditedRows;
  /** the layer whose output to change, from 0 */
  readonly layer: number;
  /**
   * for a change at the output of each layer, the share of what the model reads of these rows towards the key token that is read
   * above it, 0..1 [layers]
   */
  readonly readAbove: readonly number[];
  /** layers whose attention and MLP contribute at least half of what the strongest layer's do, ascending */
  readonly highContributionLayers: readonly number[];
}

/** Why the layer is proposed, in a sentence or two for people. `inputs`: how many the measures are means of. */
export function explainProposal({ rows, layer, readAbove }: LayerProposal, inputs: number): string {
  const percent = (share: number) => `${(100 * share).toFixed(0)} %`;
  const what = rows === 'visual' ? 'the picture' : 'the question';
  const next = readAbove[layer + 1];
  const first =
    `Of what the layers read of ${what} towards the key token, ${percent(readAbove[layer]!)} is read above layer ${layer}` +
    (next === undefined ? '.' : `, and ${percent(next)} above layer ${layer + 1}.`);
  const reason =
    readAbove[layer]! < readingKept
      ? `No layer has ${percent(readingKept)} above it, so the lowest is taken.`
      : 'A change at its output is seen by all of that, and has no more layers to get lost in than it must.';
  return (
    `${first} ${reason} ` +
    `Measured on ${inputs} input${inputs === 1 ? '' : 's'}; which layer edits best only editing shows.`
  );
}

/** So much of the reading must lie above an edit layer. */
export const readingKept = 0.9;

/**
 * Proposes the last layer above which at least `readingKept` of the reading lies: what a layer reads of the rows is its attention's
 * contribution to the key token, where positive, times how much of that attention's output the rows make. A change further up is not
 * seen by much of what reads the rows; one further down has more layers to get lost in (VisEdit section 5.3).
 * @throws EmendError 'invalid-input' where nothing is read of the rows, or no layer contributes
 */
export function proposeLayer(measures: LayerMeasures, rows: EditedRows): LayerProposal {
  const attention = Array.from(measures.attention);
  const taken = Array.from(measures[rows]);
  const read = attention.map((value, layer) => Math.max(0, value) * taken[layer]!);
  const total = read.reduce((sum, value) => sum + value, 0);
  if (read.length < 2 || !(total > 0)) {
    const what = rows === 'visual' ? 'the picture' : 'the question';
    throw new EmendError(
      'invalid-input',
      `No layer takes anything from ${what} towards the key tokens: take other prompts.`,
    );
  }
  const readAbove = read.map(
    (_, layer) => read.slice(layer + 1).reduce((sum, value) => sum + value, 0) / total,
  );
  const both = attention.map((value, layer) => value + measures.mlp[layer]!);
  const strongest = Math.max(...both);
  return {
    rows,
    layer: Math.max(
      0,
      readAbove.findLastIndex((share) => share >= readingKept),
    ),
    readAbove,
    highContributionLayers: both.flatMap((value, layer) => (value >= strongest / 2 ? [layer] : [])),
  };
}
