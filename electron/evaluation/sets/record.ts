/**
 * @file What a data set's rows become, whatever its format: an edit with the probes that judge it. Pictures are still names of files.
 */
import type { EditingSetFormat } from '../../api/contract.ts';
import type { ListedRecord } from '../../files/jsonRecords.ts';

export const recordProbeKinds = [
  'text-generality',
  'image-generality',
  'text-locality',
  'image-locality',
  /** another question about the edit's picture */
  'same-picture',
  /** the edit's question about an unrelated picture */
  'same-question',
  /** what an edit teaches, asked without its picture and of it (MMKE-Bench's T-Rel and I-Rel) */
  'text-reliability',
  'image-reliability',
  /** what follows from an edit together with what the model knows (VLKEB) */
  'portability',
  /** the edit's question as people also type it, and in wordings that no training shows */
  'typed',
  'held-out',
  'new-core',
  /** the edit's picture with a look-alike in the thing's place; the thing itself in quite another picture */
  'swapped',
  'elsewhere',
] as const;
export type RecordProbeKind = (typeof recordProbeKinds)[number];

export interface RecordProbe {
  readonly kind: RecordProbeKind;
  /** name of a picture file; null: asked without a picture */
  readonly picture: string | null;
  readonly prompt: string;
  /** what the set says it is answered with; null: with the target where it must change, else as the unedited model does */
  readonly answer: string | null;
}

/** A row as its format tells it. */
export interface RecordContent {
  /** name of a picture file */
  readonly picture: string;
  readonly prompt: string;
  readonly target: string;
  /** what the edit's own model answered before, where the set comes from a library */
  readonly before?: string | undefined;
  /** the set's own grouping of its edits */
  readonly kind?: string | undefined;
  /** what the edit is about; edits of the same kind about the same thing want the same */
  readonly object?: string | undefined;
  readonly note: string;
  readonly tags: readonly string[];
  readonly probes: readonly RecordProbe[];
}

export interface EditingRecord extends RecordContent {
  /** place in the file, from 1 */
  readonly row: number;
}

/** A row of a file, or what is wrong with it. */
export type ReadRow =
  | { readonly row: number; readonly record: EditingRecord }
  | { readonly row: number; readonly problem: string };

/** Told of every piece of a file as it is read. */
export type Heard = (bytes: Buffer) => void;

export interface SetFormat {
  readonly name: EditingSetFormat;
  /** as its authors call it */
  readonly title: string;
  /** The rows of a file, one after the other. @throws EmendError for a file that is no list of rows */
  readonly read: (path: string, heard?: Heard) => AsyncGenerator<ListedRecord>;
  /** Whether a row of a JSON list can only be of this format. */
  readonly recognises: (row: Readonly<Record<string, unknown>>) => boolean;
  /** The edit of a row. @throws Error whose message says what is wrong with it */
  readonly record: (row: unknown) => RecordContent;
}

/** The first probe of a kind. */
export function probeOf({ probes }: RecordContent, kind: RecordProbeKind): RecordProbe | undefined {
  return probes.find((probe) => probe.kind === kind);
}

/** Names of the pictures a record needs, each once. */
export function picturesOf({ picture, probes }: RecordContent): string[] {
  return [...new Set([picture, ...probes.flatMap((probe) => probe.picture ?? [])])];
}
