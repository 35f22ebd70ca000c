/**
 * @file Calls about edits. What follows from a change (the engine, the lists) listens to the library.
 */
import {
  commitEdit,
  createEdit,
  editState,
  noteEdit,
  recordPreview,
  restoreEdit,
  retireEdit,
  showEdit,
  updateEdit,
} from '../../library/edits.ts';
import { readSettings } from '../../library/settings.ts';
import { unlessAborted } from '../jobs.ts';
import { type Parts, relay } from '../parts.ts';
import type { HandlersOf } from '../router.ts';
import type { ListCalls } from './lists.ts';

export function editHandlers({
  library,
  engine,
  session,
  events,
}: Parts): Omit<HandlersOf<'edits'>, ListCalls> {
  return {
    'edits.create': (edit) => createEdit(library, edit),
    'edits.update': (changes) => updateEdit(library, changes),
    'edits.note': ({ id, note }) => noteEdit(library, id, note),
    'edits.show': ({ id }) => showEdit(library, id),
    'edits.commit': ({ id, reason }) => commitEdit(library, id, reason),
    'edits.retire': ({ id, reason }) => retireEdit(library, id, reason),
    'edits.restore': ({ id }) => restoreEdit(library, id),

    'edits.preview': async ({ id }, { job, signal }) => {
      editState(library, id); // an unknown edit is told before anything is waited for
      await unlessAborted(session.demandAdapter(), signal);
      const state = editState(library, id);
      const found = await engine.call(
        'preview',
        {
          edit: session.engineEdit(state, session.pictureReader()),
          maxNewTokens: readSettings(library).maxNewTokens,
        },
        { signal, onStream: relay(events, job) },
      );
      signal.throwIfAborted();
      const { before, after, influence, signal: editSignal } = found;
      const edit = recordPreview(library, state, {
        answers: { before, after },
        influence,
        signal: editSignal,
      });
      return { edit, before, after, influence };
    },
  };
}
