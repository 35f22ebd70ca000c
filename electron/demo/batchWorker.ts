/**
 * @file A worker thread that composes training batches ahead of the step that needs them.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { llavaBackbone } from '../models/families/llava/llava.ts';
import { plainPrompts } from '../models/prompt.ts';
import { loadTokenizer } from '../models/tokenizer.ts';
import { denseBatch, languageBatch, type TextSize, type TextSource } from './batches.ts';
import { type Looking, parsedDemoConfig } from './recipe.ts';
import { facts } from './world/facts.ts';
import { seededRandom } from './world/random.ts';
import { loadSprites } from './world/sprites.ts';

export interface WorkerTask {
  readonly folder: string;
  readonly vocabulary: number;
  readonly imageTokenId: number;
  readonly padTokenId: number;
  readonly seed: number;
}

/** Batch `step` of a stage; the same step always gives the same batch. */
export type BatchRequest =
  | {
      readonly stage: 'dense';
      readonly series: string;
      readonly step: number;
      readonly pictures: number;
      readonly looking: Looking;
    }
  | ({
      readonly stage: 'language';
      readonly series: string;
      readonly step: number;
      readonly pictures: number;
      readonly rows: number;
      readonly looking: Looking;
      readonly columns: number;
    } & TextSize);

const task = workerData as WorkerTask;
const config = parsedDemoConfig(task.vocabulary, task.imageTokenId, task.padTokenId);
await loadSprites();
const tokenizer = await loadTokenizer(task.folder, config);
const source: TextSource = {
  writer: plainPrompts(tokenizer, llavaBackbone(config).prompts),
  facts: facts(),
  endToken: config.text.eosTokenIds[0]!,
  wordId: (word) => {
    const ids = tokenizer.encodeUserText(word);
    return ids.length === 1 ? ids[0] : undefined;
  },
};
const random = seededRandom(task.seed);

parentPort!.on('message', (request: BatchRequest) => {
  const stream = random.split(`${request.series} ${request.step}`);
  const batch =
    request.stage === 'dense'
      ? denseBatch(stream, request.pictures, request.looking)
      : languageBatch(stream, source, request);
  const buffers = Object.values(batch).map((array) => (array as Float32Array<ArrayBuffer>).buffer);
  parentPort!.postMessage({ step: request.step, batch }, buffers);
});
