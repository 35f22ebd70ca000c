/**
 * @file Calls about models.
 */
import { recentModels } from '../../library/recentModels.ts';
import { findModels, hubCaches } from '../../models/hubCache.ts';
import { demandFolder } from '../modelSession.ts';
import { type Parts, relay } from '../parts.ts';
import type { HandlersOf } from '../router.ts';
import { typedPath } from '../typedPath.ts';

export function modelHandlers({ library, engine, session, events }: Parts): HandlersOf<'models'> {
  return {
    'models.recent': () => recentModels(library).map(({ path, name, opened }) => ({ path, name, opened })),
    'models.discover': async () => {
      const { caches, models, more } = await findModels(hubCaches());
      return { caches: [...caches], models: [...models], more };
    },
    'models.open': async ({ path, adapter }, { job, signal }) => {
      const summary = await session.open(typedPath(path), adapter && typedPath(adapter), {
        signal,
        onStream: relay(events, job),
      });
      session.bringInStep();
      return summary;
    },
    'models.inspect': async ({ path }, { job, signal }) => {
      const folder = await demandFolder(typedPath(path), 'model');
      const { summary, tensors } = await engine.call(
        'inspect',
        { path: folder },
        { signal, onStream: relay(events, job) },
      );
      return { summary, tensors: [...tensors] };
    },
  };
}
