/**
 * @file Calls about edits. What follows from a change (the engine, the lists) listens to the library.
 */
import {
  type CommittedSet,
  commitEdit,
  commitEdits,
  conflictWith,
  createEdit,
  editState,
  noteEdit,
  recordPreview,
  restoreEdit,
  retireEdit,
  showEdit,
  updateEdit,
} from '../../library/edits.ts';
import { selectedEdits } from '../../library/lists.ts';
import { readSettings } from '../../library/settings.ts';
import { unlessAborted } from '../jobs.ts';
import { describedInputs } from '../modelSession.ts';
import { type Parts, relay } from '../parts.ts';
import type { HandlersOf } from '../router.ts';
import { typedPath } from '../typedPath.ts';
import type { ListCalls } from './lists.ts';

/** Edits that are compared, and then committed in one transaction. */
const COMMITTED_AT_ONCE = 32;

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
    'edits.commit': async ({ id, reason, supersede }) => {
      const comparison = await session.compareForCommit([id]);
      return commitEdit(library, id, { reason, supersede, comparison });
    },
    'edits.commitSet': async ({ select, reason }, { signal, report }) => {
      let left = library.read(() => selectedEdits(library, select));
      const total = left.length;
      const committed: number[] = [];
      const refused: CommittedSet['refused'] = [];
      while (left.length > 0) {
        report.progress('Committing', total - left.length, total, 'edits');
        signal.throwIfAborted();
        const part = left.slice(0, COMMITTED_AT_ONCE);
        const comparison = await session.compareForCommit(part, signal);
        const done = commitEdits(library, part, { reason, comparison });
        committed.push(...done.committed);
        refused.push(...done.refused);
        left = [...done.left, ...left.slice(part.length)];
      }
      report.outcome(`Committed ${committed.length} of ${total} edits.`);
      return { committed, refused };
    },
    'edits.retire': ({ id, reason }) => retireEdit(library, id, reason),
    'edits.restore': ({ id }) => restoreEdit(library, id),

    'edits.exportWeights': async ({ path, form }, { job, signal, report }) => {
      await unlessAborted(session.demandActing(), signal);
      await session.demandAdapter();
      const to = typedPath(path);
      const done = await engine.call(
        'exportWeights',
        { path: to, form },
        { signal, onStream: relay(events, job) },
      );
      report.outcome(`${done.edits} edits written into ${to}.`);
      return { edits: done.edits, path: to, written: [...done.written], linked: [...done.linked] };
    },
    'edits.preview': async ({ id }, { job, signal }) => {
      editState(library, id); // an unknown edit is told before anything is waited for
      await unlessAborted(session.demandActing(), signal);
      await session.demandAdapter();
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
      const { before, after, influence } = found;
      const edit = recordPreview(library, state, {
        answers: { before, after },
        influence,
        signal: found.signal,
        input: describedInputs([state.edit], [found.input])[0],
        changes: found.changes,
      });
      return { edit, before, after, influence, conflict: conflictWith(library, edit, found.acting) };
    },
  };
}
