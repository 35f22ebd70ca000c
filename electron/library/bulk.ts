/**
 * @file What is done to many edits at once, part by part: one operation, one entry in the history of each.
 */
import type { EditSelection } from '../api/contract.ts';
import { EmendError } from '../errors.ts';
import { now, prepared, type Store } from './database.ts';
import { restoreOne, retireOne } from './edits.ts';
import { remember } from './history.ts';
import { GROUP, inGroups, type Parts, untilTimeIsUp } from './inParts.ts';
import { selectedEdits } from './lists.ts';
import { countedEdits, type OpenOperation, recordOperation } from './operations.ts';
import { editRow, tagsOf } from './rows.ts';
import { setTags } from './tags.ts';

/** What came of it. */
export interface BulkResult {
  readonly changed: number;
  /** the first of the edits it could not be done to */
  readonly refused: Array<{ edit: number; reason: string }>;
  readonly refusals: number;
  /** it was stopped before the last of them; what was done stays, and can be taken back as one */
  readonly stopped: boolean;
}

/** So many refusals are told one by one. */
const MOST_REFUSED = 100;

/** Does `change` to each edit of a selection it can be done to; it returns whether it changed anything. */
function* changeMany(
  store: Store,
  select: EditSelection,
  words: { verb: string; stage: string },
  change: (id: number) => boolean,
): Parts<BulkResult> {
  const ids = store.read(() => selectedEdits(store, select));
  let changed = 0;
  let refusals = 0;
  const refused: BulkResult['refused'] = [];
  const operation: OpenOperation = { id: null, edits: 0 };
  const changeFew = (few: readonly number[]) =>
    recordOperation(
      store,
      (edits) => `${words.verb} ${countedEdits(edits)}`,
      few,
      () => {
        for (const id of few) {
          try {
            if (change(id)) changed += 1;
          } catch (error) {
            if (!(error instanceof EmendError)) throw error;
            refusals += 1;
            if (refused.length < MOST_REFUSED) refused.push({ edit: id, reason: error.message });
          }
        }
      },
      operation,
    );
  const groups = inGroups(ids);
  let at = 0;
  while (at < groups.length) {
    store.write(() => {
      at = untilTimeIsUp(groups, at, changeFew);
    });
    const done = Math.min(ids.length, at * GROUP);
    if (!(yield { stage: words.stage, done, total: ids.length }) && done < ids.length)
      return { changed, refused, refusals, stopped: true };
  }
  return { changed, refused, refusals, stopped: false };
}

/** Retires every edit of a selection that is not retired. */
export function retireMany(store: Store, select: EditSelection, reason?: string): Parts<BulkResult> {
  return changeMany(store, select, { verb: 'Retired', stage: 'Retiring' }, (id) => {
    retireOne(store, id, reason);
    return true;
  });
}

/** Makes the retired edits of a selection drafts again. */
export function restoreMany(store: Store, select: EditSelection): Parts<BulkResult> {
  return changeMany(store, select, { verb: 'Restored', stage: 'Restoring' }, (id) => {
    restoreOne(store, id);
    return true;
  });
}

/** Adds tags to every edit of a selection and takes others from it. */
export function tagMany(
  store: Store,
  select: EditSelection,
  add: readonly string[],
  remove: readonly string[],
): Parts<BulkResult> {
  return changeMany(store, select, { verb: 'Tagged', stage: 'Tagging' }, (id) => {
    editRow(store, id);
    const wanted = [...tagsOf(store, id), ...add].filter((tag) => !remove.includes(tag));
    const { added, removed } = setTags(store, id, wanted);
    if (added.length + removed.length === 0) return false;
    const named = (tags: string[]) => tags.map((tag) => `“${tag}”`).join(', ');
    const told = [
      ...(added.length > 0 ? [`Tagged ${named(added)}`] : []),
      ...(removed.length > 0 ? [`${added.length > 0 ? 'n' : 'N'}o longer tagged ${named(removed)}`] : []),
    ];
    remember(store, id, 'tagged', `${told.join('; ')}.`);
    prepared(store, 'UPDATE edits SET updated = ? WHERE id = ?').run(now(), id);
    return true;
  });
}
