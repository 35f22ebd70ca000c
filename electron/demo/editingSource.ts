/**
 * @file Training edits of the demo world, composed and rendered as they are needed: `emend train --data` takes this file.
 * The same step and seed give the same edits; none of them is among the test edits.
 */
import { Worker } from 'node:worker_threads';
import type { EditSource, TrainingEdit } from '../editors/training/edits.ts';
import type { EditingRequest } from './editingWorker.ts';

/** `extended`: beside the papers' probes, questions that VisEdit leaks into by construction are trained to stay. */
export function openEditSource(options: { seed: number; extended: boolean }): EditSource {
  const worker = new Worker(new URL('./editingWorker.ts', import.meta.url));
  const waiting = new Map<
    number,
    { resolve: (edits: TrainingEdit[]) => void; reject: (error: Error) => void }
  >();
  const asked = new Map<number, Promise<TrainingEdit[]>>();
  worker.on('message', ({ step, edits }: { step: number; edits: TrainingEdit[] }) => {
    waiting.get(step)?.resolve(edits);
    waiting.delete(step);
  });
  worker.on('error', (error: Error) => {
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  });
  const ask = (step: number, count: number): Promise<TrainingEdit[]> => {
    const known = asked.get(step);
    if (known) return known;
    const promise = new Promise<TrainingEdit[]>((resolve, reject) => waiting.set(step, { resolve, reject }));
    worker.postMessage({ step, count, ...options } satisfies EditingRequest);
    asked.set(step, promise);
    return promise;
  };
  return {
    name: `demo world, seed ${options.seed}${options.extended ? ', extended locality' : ''}`,
    batch(step, count) {
      const wanted = ask(step, count);
      asked.delete(step);
      // Composed ahead, while the step runs.
      void ask(step + 1, count);
      return wanted;
    },
    async close() {
      await worker.terminate();
    },
  };
}
