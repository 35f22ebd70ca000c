/**
 * @file Calls about many edits: lists of them, what is done to several at once, tags, saved views, and taking changes back.
 */
import { setImmediate } from 'node:timers/promises';
import { type BulkResult, restoreMany, retireMany, tagMany } from '../../library/bulk.ts';
import { exportEdits } from '../../library/exportEdits.ts';
import { importEdits } from '../../library/importEdits.ts';
import type { Parts as LongWork } from '../../library/inParts.ts';
import type { Library } from '../../library/library.ts';
import {
  editNumbers,
  findEdits,
  listActors,
  listRows,
  neighbours,
  selectedEdits,
} from '../../library/lists.ts';
import { countedEdits, type Moved, redoing, undoableOperation, undoing } from '../../library/operations.ts';
import { listTags } from '../../library/tags.ts';
import { storedThumbnails } from '../../library/thumbnails.ts';
import { listViews, removeView, saveView } from '../../library/views.ts';
import type { EditRow, Thumbnail } from '../contract.ts';
import type { Parts } from '../parts.ts';
import type { CallContext, Handlers, HandlersOf } from '../router.ts';

/** The calls about edits that are served here. */
export type ListCalls =
  | 'edits.find'
  | 'edits.rows'
  | 'edits.numbers'
  | 'edits.neighbours'
  | 'edits.actors'
  | 'edits.tagMany'
  | 'edits.retireMany'
  | 'edits.restoreMany'
  | 'edits.import'
  | 'edits.exportMany';

export function listHandlers({
  library,
}: Parts): Pick<Handlers, ListCalls> & HandlersOf<'tags' | 'views' | 'history'> {
  return {
    'edits.find': ({ thumbnails, influence, ...page }) => {
      const found = findEdits(library, page, { influence });
      return { ...found, thumbnails: thumbnails ? thumbnailsOf(library, found.rows) : [] };
    },
    'edits.rows': ({ edits, thumbnails, influence }) => {
      const rows = listRows(library, edits, { influence });
      return { rows, thumbnails: thumbnails ? thumbnailsOf(library, rows) : [] };
    },
    'edits.numbers': (page) => editNumbers(library, page),
    'edits.neighbours': (place) => neighbours(library, place),
    'edits.actors': () => listActors(library),
    'edits.tagMany': async ({ select, add, remove }, context) =>
      told(await inTurns(tagMany(library, select, add, remove), context), 'Tagged', context),
    'edits.retireMany': async ({ select, reason }, context) =>
      told(await inTurns(retireMany(library, select, reason), context), 'Retired', context),
    'edits.restoreMany': async ({ select }, context) =>
      told(await inTurns(restoreMany(library, select), context), 'Restored', context),
    'edits.import': async ({ file, ...options }, { signal, report }) => {
      const found = await importEdits(library, file, {
        ...options,
        signal,
        onProgress: (done, total) => report.progress('Importing', done, total, 'rows'),
      });
      for (const { row, reason } of found.problems) report.log(`row ${row}: ${reason}`);
      const parts = [
        `${options.dryRun ? 'Could add' : 'Added'} ${countedEdits(found.added)}`,
        ...(found.known > 0 ? [`${found.known.toLocaleString('en')} were there already`] : []),
        ...(found.wrong > 0 ? [`${found.wrong.toLocaleString('en')} rows cannot be used`] : []),
        ...(found.stopped ? ['stopped before the end'] : []),
      ];
      report.outcome(`${parts.join('; ')}.`);
      return found;
    },
    'edits.exportMany': async ({ select, ...options }, { signal, report }) => {
      const found = await exportEdits(library, selectedEdits(library, select), {
        ...options,
        signal,
        onProgress: (done, total) => report.progress('Exporting', done, total, 'edits'),
      });
      for (const { edit, reason } of found.refused) report.log(`edit ${edit}: ${reason}`);
      const left = found.refusals > 0 ? `; ${countedEdits(found.refusals)} left out` : '';
      report.outcome(`Wrote ${countedEdits(found.edits)} to ${found.file}${left}.`);
      return found;
    },
    'tags.list': () => listTags(library),
    'views.list': () => listViews(library),
    'views.save': (view) => saveView(library, view),
    'views.remove': ({ name }) => removeView(library, name),
    'history.undoable': () => undoableOperation(library),
    'history.undo': async ({ operation }, context) =>
      moved(await inTurns(undoing(library, operation), context)),
    'history.redo': async (_, context) => moved(await inTurns(redoing(library), context)),
  };
}

/** Does long work part by part; what else is to be served comes in between. */
async function inTurns<T>(work: LongWork<T>, { signal, report }: CallContext): Promise<T> {
  for (let step = work.next(true); ; step = work.next(!signal.aborted)) {
    if (step.done) return step.value;
    const { stage, done, total } = step.value;
    report.progress(stage, done, total, 'edits');
    await setImmediate();
  }
}

const moved = ({ operation, stopped }: Moved) => ({ ...operation, stopped });

/** Says in the job's record what came of a change of many edits. */
function told(found: BulkResult, verb: string, { report }: CallContext): BulkResult {
  for (const { edit, reason } of found.refused) report.log(`edit ${edit}: ${reason}`);
  const left = found.refusals > 0 ? `; ${countedEdits(found.refusals)} could not be` : '';
  report.outcome(
    `${verb} ${countedEdits(found.changed)}${left}${found.stopped ? '; stopped before the end' : ''}.`,
  );
  return found;
}

const thumbnailsOf = (library: Library, rows: readonly EditRow[]): Thumbnail[] =>
  storedThumbnails(library, [...new Set(rows.map((row) => row.picture))]);
