/**
 * @file What a gate compares, measured over an editing set, in an engine process or under the command line: the model is opened for it alone.
 */
import { setPriority } from 'node:os';
import { basename } from 'node:path';
import { EmendError } from '../errors.ts';
import { type EditingSet, readEditingSet } from '../evaluation/editingSet.ts';
import { type GateReport, gateReport } from '../evaluation/gateReport.ts';
import { gateSimilarities } from '../evaluation/gateSimilarity.ts';
import type { SetFormatName } from '../evaluation/sets/registry.ts';
import { fingerprint } from '../models/checkpoint.ts';
import { nameOfModel } from '../models/hubCache.ts';
import { openCheckpoint } from '../models/open.ts';
import type { PackedCache } from '../models/packed/cache.ts';
import type { WeightForm } from '../models/packed/form.ts';
import { VisionLanguageModel } from '../models/visionLanguageModel.ts';
import type { Provider } from '../tensor/session.ts';
import type { OperationContext, OperationTable } from './protocol.ts';

/** All that repeats it. */
export interface GateRequest {
  /** checkpoint folder */
  readonly model: string;
  readonly weights: WeightForm;
  readonly pictureRows?: number | undefined;
  readonly providers: readonly Provider[];
  readonly data: string;
  readonly format?: SetFormatName | undefined;
  readonly images?: string | undefined;
  /** layers whose outputs are compared, ascending; null: all there are */
  readonly layers: readonly number[] | null;
  /** edits taken, from the first */
  readonly limit: number;
  readonly suffix: string;
  readonly textSuffix: string;
}

export interface GateOptions {
  /** of this program */
  readonly emend: string;
  readonly packed: PackedCache;
  /** the command that measures it again */
  readonly command: string;
  /** is told of the set before the model is opened */
  readonly onSet?: (set: EditingSet) => void;
}

/**
 * Measures what a request asks for.
 * @throws EmendError 'cancelled', or what is wrong with the layers, the set or the model, before anything long begins
 */
export async function measureGate(
  request: GateRequest,
  { emend, packed, command, onSet }: GateOptions,
  { signal, send }: OperationContext,
): Promise<GateReport> {
  const { model: folder, data, format, images, limit, suffix, textSuffix, weights, pictureRows } = request;
  const layers = layersOf(request.layers, (await openCheckpoint(folder)).backbone.decoder.layers);
  const set = await readEditingSet(data, { format, images, limit });
  onSet?.(set);
  const tell = (stage: string, done: number, total: number, unit: string) =>
    send({ kind: 'progress', stage, done, total, unit });
  tell('Loading the model', 0, 1, '');
  const model = await VisionLanguageModel.open(folder, {
    ...{ providers: request.providers, weights, packed, cuts: layers, pictureRows, signal },
  });
  try {
    const found = await gateSimilarities(model, set, {
      ...{ suffix, textSuffix, signal },
      onProgress: (done, total) => tell('Comparing', done, total, 'edits'),
    });
    return gateReport(found, {
      ...{ emend, command },
      model: { name: nameOfModel(folder), fingerprint: await fingerprint(model.checkpoint) },
      data: { name: basename(data), sha256: set.sha256, edits: set.records.length },
    });
  } finally {
    await model.dispose();
  }
}

/** @throws EmendError 'invalid-input' for layers that a decoder of `count` cannot be cut after */
function layersOf(layers: readonly number[] | null, count: number): number[] {
  const chosen = layers ?? Array.from({ length: count - 1 }, (_, layer) => layer);
  const beyond = chosen.find((layer) => layer > count - 2);
  if (beyond === undefined) return [...chosen];
  throw new EmendError(
    'invalid-input',
    `Layer ${beyond} cannot be compared at: this model takes layers 0 to ${count - 2}.`,
  );
}

/** Nice value of a process that measures: anything a person waits for goes first. */
const BEHIND_OTHERS = 10;

export const gateOperations: Pick<OperationTable, 'measureGate'> = {
  measureGate({ request, ...options }, context) {
    setPriority(BEHIND_OTHERS);
    return measureGate(request, options, context);
  },
};
