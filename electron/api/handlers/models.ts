/**
 * @file Calls about models.
 */
import { recentModels } from '../../library/recentModels.ts';
import { demandFolder } from '../modelSession.ts';
import { type Parts, relay } from '../parts.ts';
import type { HandlersOf } from '../router.ts';

export function modelHandlers({ library, engine, session, events }: Parts): HandlersOf<'models'> {
  return {
    'models.recent': () => recentModels(library).map(({ path, name, opened }) => ({ path, name, opened })),
    'models.open': async ({ path, adapter }, { job, signal }) => {
      const summary = await session.open(path, adapter, { signal, onStream: relay(events, job) });
      session.bringInStep();
      return summary;
    },
    'models.inspect': async ({ path }, { job, signal }) => {
      const folder = await demandFolder(path, 'model');
      const { summary, tensors } = await engine.call(
        'inspect',
        { path: folder },
        { signal, onStream: relay(events, job) },
      );
      return { summary, tensors: [...tensors] };
    },
  };
}
