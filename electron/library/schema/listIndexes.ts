/**
 * @file The indexes that lists are read from, for the upgrade steps that made them anew. Their text is part of released steps: it stays
 * as it is to the letter.
 */

/**
 * An index for each order of a list. `filtered`: the columns that filters look at beside the one sorted by; they lie in every index.
 * `ofStatus`: those of the list by status.
 */
export const listIndexes = (filtered: string, ofStatus: string) => /* sql */ `
  CREATE INDEX edits_by_id ON edits (id, ${filtered});
  CREATE INDEX edits_by_updated ON edits (updated, id, ${filtered});
  CREATE INDEX edits_by_created ON edits (created, id, ${filtered});
  CREATE INDEX edits_by_committed ON edits (committed, id, ${filtered});
  CREATE INDEX edits_by_prompt ON edits (prompt COLLATE NOCASE, id, ${filtered});
  CREATE INDEX edits_by_target ON edits (target COLLATE NOCASE, id, ${filtered});
  CREATE INDEX edits_by_status ON edits (status, id, ${ofStatus});`;

export const dropListIndexes = ['id', 'updated', 'created', 'committed', 'prompt', 'target', 'status']
  .map((column) => `DROP INDEX edits_by_${column};`)
  .join('\n  ');
