/**
 * @file Calls about the application itself and its jobs.
 */
import type { Parts } from '../parts.ts';
import type { HandlersOf } from '../router.ts';

export function appHandlers({ status, jobs }: Parts): HandlersOf<'app' | 'jobs'> {
  return {
    'app.status': () => status(),
    'jobs.list': () => jobs.list(),
    'jobs.cancel': ({ job }) => {
      jobs.cancel(job);
      return {};
    },
  };
}
