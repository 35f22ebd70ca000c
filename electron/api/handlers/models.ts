/**
 * @file Calls about models.
 */
import { editorKinds } from '../../editors/registry.ts';
import { settingFields } from '../../editors/settings.ts';
import { type EditorTraining, USUAL_RATE } from '../../editors/training/editorTraining.ts';
import { EmendError } from '../../errors.ts';
import { readPicture } from '../../library/pictures.ts';
import { recentModels } from '../../library/recentModels.ts';
import { findModels, hubCaches } from '../../models/hubCache.ts';
import { listPacked, removePacked } from '../../models/packed/cache.ts';
import { adaptersOf } from '../adapters.ts';
import type { EditorSummary, SettingValue } from '../contract.ts';
import { demandFolder } from '../modelSession.ts';
import { type Parts, relay } from '../parts.ts';
import type { HandlersOf } from '../router.ts';
import { typedPath } from '../typedPath.ts';

function trainingSummary({ settings, proposed, rate }: EditorTraining): EditorSummary['training'] {
  return {
    settings: settingFields(settings),
    proposed: { ...(proposed?.settings as Record<string, SettingValue> | undefined) },
    rate: proposed?.rate ?? rate ?? USUAL_RATE,
  };
}

export function modelHandlers({
  library,
  engine,
  session,
  events,
  resources,
  adaptersFolder,
}: Parts): HandlersOf<'models'> {
  return {
    'models.recent': () => recentModels(library).map(({ path, name, opened }) => ({ path, name, opened })),
    'models.discover': async () => {
      const { caches, models, more } = await findModels(hubCaches());
      return { caches: [...caches], models: [...models], more };
    },
    'models.adapters': async () => {
      const model = session.model;
      if (!model) throw new EmendError('conflict', 'No model is open. Open one first.');
      return adaptersOf(model, { library, resources, adaptersFolder });
    },
    'models.editors': () =>
      editorKinds.map(({ name, acts, untrained, training, trainedScope = 'routed' }) => ({
        ...{ name, acts, trains: untrained === undefined, scope: untrained?.scope ?? trainedScope },
        settings: untrained ? settingFields(untrained.settings) : [],
        training: training ? trainingSummary(training) : null,
      })),
    'models.rows': async ({ picture }) => {
      const { width, height } = readPicture(library, picture).picture;
      await session.demandModel();
      return engine.call('rows', { width, height });
    },
    'models.open': async ({ path, adapter, editor, scope, weights }, { job, signal }) => {
      const way = {
        ...{ path: typedPath(path), weights },
        ...(adapter !== undefined && { adapter: adapter && typedPath(adapter) }),
        ...(editor && { editor }),
        ...(scope && {
          scope: { ...scope, ...(scope.folder !== undefined && { folder: typedPath(scope.folder) }) },
        }),
      };
      const summary = await session.open(way, { signal, onStream: relay(events, job) });
      session.bringInStep();
      return summary;
    },
    'models.ways': async ({ path }) => {
      const folder = await demandFolder(typedPath(path), 'model');
      const { providers, packedCache: packed } = session;
      const { ways, proposed, available } = await engine.call('ways', { path: folder, providers, packed });
      return {
        ways: ways.map(({ form, provider, fits, made, reason, need }) => {
          return { form, provider, fits, made, reason, needsBytes: need.total, fileBytes: need.file };
        }),
        proposed,
        availableBytes: available,
      };
    },
    'models.packed': async () => {
      const { folder, limitBytes } = session.packedCache;
      return { folder, limitBytes, packed: await listPacked(folder) };
    },
    'models.removePacked': async ({ name }) => {
      await removePacked(session.packedCache.folder, name);
      return {};
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
