/**
 * @file The last jobs that ended, kept for whoever asks what came of them.
 */
import { JobRecord } from '../api/contract.ts';
import type { Store } from './database.ts';

/** Keeps a job that ended; of the others the last `most - 1` stay. */
export function keepJob(store: Store, job: JobRecord, most: number): void {
  store.write(() => {
    store.database
      .prepare(
        'INSERT INTO jobs (id, ended, record) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET ended = excluded.ended, record = excluded.record',
      )
      .run(job.id, job.ended, JSON.stringify(job));
    store.database
      .prepare(
        'DELETE FROM jobs WHERE id NOT IN (SELECT id FROM jobs ORDER BY ended DESC, rowid DESC LIMIT ?)',
      )
      .run(most);
  });
}

/** The jobs kept, latest first. One that this version cannot read is left out. */
export function keptJobs(store: Store): JobRecord[] {
  return store.database
    .prepare<[], string>('SELECT record FROM jobs ORDER BY ended DESC, rowid DESC')
    .pluck()
    .all()
    .flatMap((record) => {
      try {
        const job = JobRecord.safeParse(JSON.parse(record));
        return job.success ? [job.data] : [];
      } catch {
        return [];
      }
    });
}
