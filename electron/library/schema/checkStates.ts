/**
 * @file Upgrade step: what checks have in common (model, adapter, scope, form of prompts, policy, standing probes) is kept once, as a
 * numbered state. Whether it is the state of now is asked when edits are listed: no change of model or policy writes to an edit, and two
 * programs with different models on one library each see their own.
 */
import { dropListIndexes, listIndexes } from './listIndexes.ts';

/** Columns that filters look at beside the one sorted by: they lie in every index a list is read from. */
const filtered = 'status, check_state, check_commits, verdict, finding, reach, pair';

/** What of a fingerprint is not the edit's own; nothing for those of the first version, which were no JSON. */
const shared = `iif(json_valid(fingerprint), json_remove(fingerprint, '$.edit', '$.probes'), '{}')`;

export const checkStatesStep = /* sql */ `
  CREATE TABLE check_states (id INTEGER PRIMARY KEY, shared TEXT NOT NULL UNIQUE) STRICT;
  INSERT INTO check_states (shared) SELECT DISTINCT ${shared} FROM checks;
  ALTER TABLE checks ADD COLUMN state INTEGER NOT NULL DEFAULT 0;
  UPDATE checks SET state = (SELECT id FROM check_states WHERE check_states.shared = ${shared});

  -- from here on only what of the edit itself makes its check stale, and committed edits it was compared with
  UPDATE checks SET
    stale_because = (
      SELECT json_group_array(reason) FROM (
        SELECT value AS reason FROM json_each(stale_because) WHERE value IN ('edit', 'probes')
        UNION ALL SELECT 'committed-edits'
          WHERE overtaken = 1 OR EXISTS (SELECT 1 FROM watched WHERE watched.edit = checks.edit AND watched.stale_by IS NOT NULL))),
    stale_by = (
      SELECT json_group_array(DISTINCT watched.stale_by) FROM watched WHERE watched.edit = checks.edit AND watched.stale_by > 0)
  WHERE stale_because <> '[]';

  -- of the latest check: its state, and how often the committed set had changed when it was planned
  ALTER TABLE edits ADD COLUMN check_state INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE edits ADD COLUMN check_commits INTEGER NOT NULL DEFAULT 0;
  UPDATE edits SET (check_state, check_commits) = (SELECT state, commits FROM checks WHERE checks.id = last_check) WHERE last_check IS NOT NULL;
  CREATE TRIGGER edit_checked_in_state AFTER INSERT ON checks BEGIN
    UPDATE edits SET check_state = NEW.state, check_commits = NEW.commits WHERE id = NEW.edit;
  END;

  DROP TRIGGER edit_inserted;
  DROP TRIGGER status_changed;
  DROP TABLE edit_counts;
  CREATE TABLE edit_counts (
    status TEXT NOT NULL,
    state INTEGER NOT NULL,
    edits INTEGER NOT NULL,
    PRIMARY KEY (status, state)
  ) STRICT, WITHOUT ROWID;
  INSERT INTO edit_counts SELECT status, check_state, count(*) FROM edits GROUP BY status, check_state;
  CREATE TRIGGER edit_inserted AFTER INSERT ON edits BEGIN
    INSERT INTO edit_counts VALUES (NEW.status, NEW.check_state, 1) ON CONFLICT DO UPDATE SET edits = edits + 1;
    INSERT OR IGNORE INTO actor_pairs (model, adapter) VALUES (NEW.model, NEW.adapter);
    UPDATE edits SET pair = (SELECT id FROM actor_pairs WHERE model = NEW.model AND adapter = NEW.adapter) WHERE id = NEW.id;
  END;
  CREATE TRIGGER status_changed AFTER UPDATE OF status, check_state ON edits
  WHEN NEW.status <> OLD.status OR NEW.check_state <> OLD.check_state BEGIN
    UPDATE edit_counts SET edits = edits - 1 WHERE status = OLD.status AND state = OLD.check_state;
    INSERT INTO edit_counts VALUES (NEW.status, NEW.check_state, 1) ON CONFLICT DO UPDATE SET edits = edits + 1;
    INSERT INTO status_changes (edit) VALUES (NEW.id);
  END;

  DROP TABLE reviewed;
  DROP TRIGGER review_setting_added;
  DROP TRIGGER review_setting_changed;
  DROP TRIGGER review_probe_added;
  DROP TRIGGER review_probe_removed;
  CREATE TRIGGER review_probe_added AFTER INSERT ON probes WHEN NEW.edit IS NOT NULL
  BEGIN INSERT INTO unreviewed (what, edit) VALUES ('edit', NEW.edit); END;
  CREATE TRIGGER review_probe_removed AFTER DELETE ON probes WHEN OLD.edit IS NOT NULL
  BEGIN INSERT INTO unreviewed (what, edit) VALUES ('edit', OLD.edit); END;

  ${dropListIndexes}
  ${listIndexes(filtered, 'check_state, check_commits, verdict, finding, reach, pair')}
`;
