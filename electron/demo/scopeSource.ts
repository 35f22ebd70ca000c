/**
 * @file Examples for a scope, composed and rendered as they are needed: `emend train scope --data` takes this file.
 * The same seed gives the same examples; they share no scene with editing sets.
 */
import { Worker } from 'node:worker_threads';
import type { ScopeFamily, ScopeSource } from '../editors/scope/learned/examples.ts';
import type { Pixels } from '../models/picture.ts';
import type { ScopeRequest } from './scopeWorker.ts';

type Made = { readonly family: ScopeFamily; readonly pixels: readonly Pixels[] };

/** `withheld`: every so many things of the world are left out of all pictures, to measure what the scope does on things it never saw; 0: none. */
export function openScopeSource(options: { seed: number; families: number; withheld?: number }): ScopeSource {
  const { seed, families, withheld = 0 } = options;
  const worker = new Worker(new URL('./scopeWorker.ts', import.meta.url));
  const waiting = new Map<number, { resolve: (made: Made) => void; reject: (error: Error) => void }>();
  const asked = new Map<number, Promise<Made>>();
  worker.on('message', ({ index, ...made }: Made & { index: number }) => {
    waiting.get(index)?.resolve(made);
    waiting.delete(index);
  });
  worker.on('error', (error: Error) => {
    for (const { reject } of waiting.values()) reject(error);
    waiting.clear();
  });
  const ask = (index: number): Promise<Made> => {
    const known = asked.get(index);
    if (known) return known;
    const promise = new Promise<Made>((resolve, reject) => waiting.set(index, { resolve, reject }));
    // Whoever asks for it hears of a failure.
    promise.catch(() => {});
    worker.postMessage({ index, seed, withheld } satisfies ScopeRequest);
    asked.set(index, promise);
    return promise;
  };
  return {
    name: `demo world scenes, half disguised, more of things never shown, seed ${seed}${withheld ? `, every ${withheld}th thing withheld` : ''}`,
    families,
    family(index) {
      const wanted = ask(index);
      asked.delete(index);
      // Composed ahead, while the model runs.
      for (let ahead = 1; ahead <= 4; ahead++) if (index + ahead < families) void ask(index + ahead);
      return wanted;
    },
    async close() {
      await worker.terminate();
    },
  };
}
