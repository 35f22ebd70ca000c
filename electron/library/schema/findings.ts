/**
 * @file Upgrade step: what the latest check found, beside what else lists are filtered by; checks of edits that replace another; and what
 * checks have in common, so that it is seen when it changes.
 */
import { dropListIndexes, listIndexes } from './listIndexes.ts';

/** Columns that filters look at beside the one sorted by: they lie in every index a list is read from. */
const filtered = 'status, verdict, finding, reach, pair';

/** Checks of versions before did not name what they found. */
const found = (check: string) =>
  `coalesce(${check}.finding, CASE ${check}.verdict WHEN 'passes' THEN 'holds' ELSE 'fails' END)`;

export const findingsStep = /* sql */ `
  -- of the latest check; null before there is one
  ALTER TABLE edits ADD COLUMN finding TEXT;
  UPDATE edits SET finding = (SELECT ${found('checks')} FROM checks WHERE id = edits.last_check);
  CREATE TRIGGER edit_found AFTER INSERT ON checks BEGIN
    UPDATE edits SET finding = ${found('NEW')} WHERE id = NEW.edit;
  END;

  -- the committed edit that was to be retired with the commit, so that it did not count
  ALTER TABLE checks ADD COLUMN supersede INTEGER REFERENCES edits (id);

  -- what every check's state had in common when all of them were last reviewed
  CREATE TABLE reviewed (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), shared TEXT NOT NULL) STRICT;
  INSERT INTO reviewed VALUES (1, '');

  ${dropListIndexes}
  ${listIndexes(filtered, 'verdict, finding, reach, pair')}
`;
