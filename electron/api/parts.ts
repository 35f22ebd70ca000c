/**
 * @file What handlers work with.
 */
import type { EngineStream } from '../engine/protocol.ts';
import type { Library } from '../library/library.ts';
import type { Status } from './contract.ts';
import type { EngineClient } from './engineClient.ts';
import type { EnginePool } from './enginePool.ts';
import type { Events } from './events.ts';
import type { Jobs } from './jobs.ts';
import type { ModelSession } from './modelSession.ts';

export interface Parts {
  readonly library: Library;
  readonly engine: EngineClient;
  /** engines for what takes long, each in a process of its own */
  readonly longEngines: EnginePool;
  readonly version: string;
  readonly session: ModelSession;
  readonly events: Events;
  readonly jobs: Jobs;
  readonly resources: string;
  /** where adapters lie that were trained here */
  readonly adaptersFolder: string;
  readonly status: () => Status;
  /** settles when a new library has its standing probes */
  readonly seeded: Promise<void>;
}

/** Passes on what an engine operation streams, as events of a job. */
export function relay(events: Events, job: string): (message: EngineStream) => void {
  return (message) => {
    if (message.kind === 'progress') {
      const { stage, done, total, unit } = message;
      events.emit({ name: 'job.progress', payload: { job, stage, done, total, unit } });
    }
    if (message.kind === 'token') {
      const { side, token, text } = message;
      events.emit({ name: 'answer.token', payload: { job, side, token, text } });
    }
  };
}
