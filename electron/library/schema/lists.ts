/**
 * @file Upgrade step: what lists, counts and search are answered from. All of it is kept by triggers, so that it holds
 * whatever writes to the tables, and reading never computes it.
 */
import { listIndexes } from './listIndexes.ts';

/** The status of an edit as SQL, from its stage and its latest check; `edits` is the row looked at. */
const statusOf = /* sql */ `
  CASE
    WHEN edits.stage <> 'draft' THEN edits.stage
    WHEN edits.last_check IS NULL THEN 'draft'
    ELSE (
      SELECT CASE WHEN stale_because <> '[]' THEN 'stale' WHEN verdict = 'passes' THEN 'checked' ELSE 'failed' END
      FROM checks WHERE id = edits.last_check
    )
  END`;

/** Columns that filters look at beside the one sorted by: they lie in every index a list is read from. */
const filtered = 'status, verdict, pair';

export const listsStep = /* sql */ `
  -- why the check no longer tells of the edit as it would act now, a JSON list; '[]': it does. Written when something changes.
  ALTER TABLE checks ADD COLUMN stale_because TEXT NOT NULL DEFAULT '[]';
  -- checks of earlier versions: whether they hold cannot be told from here
  UPDATE checks SET stale_because = '["plan"]';

  -- each model and adapter that edits were made for
  CREATE TABLE actor_pairs (
    id INTEGER PRIMARY KEY,
    model TEXT NOT NULL,
    adapter TEXT NOT NULL,
    UNIQUE (model, adapter)
  ) STRICT;

  ALTER TABLE edits ADD COLUMN status TEXT NOT NULL DEFAULT 'draft'
    CHECK (status IN ('draft', 'checked', 'failed', 'stale', 'committed', 'retired'));
  ALTER TABLE edits ADD COLUMN last_check INTEGER REFERENCES checks (id);
  -- of the latest check
  ALTER TABLE edits ADD COLUMN verdict TEXT NOT NULL DEFAULT 'none' CHECK (verdict IN ('passes', 'fails', 'none'));
  ALTER TABLE edits ADD COLUMN pair INTEGER REFERENCES actor_pairs (id);

  INSERT INTO actor_pairs (model, adapter) SELECT DISTINCT model, adapter FROM edits;
  UPDATE edits SET
    pair = (SELECT id FROM actor_pairs WHERE model = edits.model AND adapter = edits.adapter),
    last_check = (SELECT max(id) FROM checks WHERE edit = edits.id);
  UPDATE edits SET verdict = coalesce((SELECT verdict FROM checks WHERE id = last_check), 'none'), status = ${statusOf};

  CREATE TABLE edit_counts (status TEXT PRIMARY KEY, edits INTEGER NOT NULL) STRICT, WITHOUT ROWID;
  INSERT INTO edit_counts VALUES ('draft', 0), ('checked', 0), ('failed', 0), ('stale', 0), ('committed', 0), ('retired', 0);
  UPDATE edit_counts SET edits = (SELECT count(*) FROM edits WHERE edits.status = edit_counts.status);

  -- a change of status that comes without an entry in the history: whoever watches the library hears of it by this
  CREATE TABLE status_changes (id INTEGER PRIMARY KEY AUTOINCREMENT, edit INTEGER NOT NULL) STRICT;

  ${listIndexes(filtered, 'verdict, pair')}
  CREATE INDEX edits_by_input ON edits (picture, prompt);

  CREATE TRIGGER edit_inserted AFTER INSERT ON edits BEGIN
    UPDATE edit_counts SET edits = edits + 1 WHERE status = NEW.status;
    INSERT OR IGNORE INTO actor_pairs (model, adapter) VALUES (NEW.model, NEW.adapter);
    UPDATE edits SET pair = (SELECT id FROM actor_pairs WHERE model = NEW.model AND adapter = NEW.adapter) WHERE id = NEW.id;
  END;
  CREATE TRIGGER edit_moved AFTER UPDATE OF model, adapter ON edits BEGIN
    INSERT OR IGNORE INTO actor_pairs (model, adapter) VALUES (NEW.model, NEW.adapter);
    UPDATE edits SET pair = (SELECT id FROM actor_pairs WHERE model = NEW.model AND adapter = NEW.adapter) WHERE id = NEW.id;
  END;
  CREATE TRIGGER stage_changed AFTER UPDATE OF stage ON edits BEGIN
    UPDATE edits SET status = ${statusOf} WHERE id = NEW.id;
  END;
  CREATE TRIGGER edit_checked AFTER INSERT ON checks BEGIN
    UPDATE edits SET last_check = NEW.id, verdict = NEW.verdict WHERE id = NEW.edit;
    UPDATE edits SET status = ${statusOf} WHERE id = NEW.edit;
  END;
  CREATE TRIGGER check_changed AFTER UPDATE OF verdict, stale_because ON checks BEGIN
    UPDATE edits SET verdict = NEW.verdict WHERE id = NEW.edit AND last_check = NEW.id AND verdict <> NEW.verdict;
    UPDATE edits SET status = ${statusOf}
    WHERE id = NEW.edit AND last_check = NEW.id AND stage = 'draft' AND status <> ${statusOf};
  END;
  CREATE TRIGGER status_changed AFTER UPDATE OF status ON edits WHEN NEW.status <> OLD.status BEGIN
    UPDATE edit_counts SET edits = edits - 1 WHERE status = OLD.status;
    UPDATE edit_counts SET edits = edits + 1 WHERE status = NEW.status;
    INSERT INTO status_changes (edit) VALUES (NEW.id);
  END;

  -- words of an edit, for search; the texts themselves stay in edits
  CREATE VIRTUAL TABLE edit_words USING fts5 (
    prompt, target, "before", "after", note,
    content = 'edits', content_rowid = 'id', tokenize = 'unicode61 remove_diacritics 2', prefix = '1 2 3'
  );
  INSERT INTO edit_words (edit_words) VALUES ('rebuild');
  CREATE TRIGGER words_inserted AFTER INSERT ON edits BEGIN
    INSERT INTO edit_words (rowid, prompt, target, "before", "after", note)
    VALUES (NEW.id, NEW.prompt, NEW.target, NEW.before, NEW.after, NEW.note);
  END;
  CREATE TRIGGER words_changed AFTER UPDATE OF prompt, target, "before", "after", note ON edits BEGIN
    INSERT INTO edit_words (edit_words, rowid, prompt, target, "before", "after", note)
    VALUES ('delete', OLD.id, OLD.prompt, OLD.target, OLD.before, OLD.after, OLD.note);
    INSERT INTO edit_words (rowid, prompt, target, "before", "after", note)
    VALUES (NEW.id, NEW.prompt, NEW.target, NEW.before, NEW.after, NEW.note);
  END;

  -- tags, with how many edits have each
  CREATE TABLE tags (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, edits INTEGER NOT NULL DEFAULT 0) STRICT;
  CREATE TABLE edit_tags (
    edit INTEGER NOT NULL REFERENCES edits (id),
    tag INTEGER NOT NULL REFERENCES tags (id),
    PRIMARY KEY (edit, tag)
  ) STRICT, WITHOUT ROWID;
  CREATE UNIQUE INDEX edits_by_tag ON edit_tags (tag, edit);
  CREATE TRIGGER tagged AFTER INSERT ON edit_tags BEGIN
    UPDATE tags SET edits = edits + 1 WHERE id = NEW.tag;
  END;
  CREATE TRIGGER untagged AFTER DELETE ON edit_tags BEGIN
    UPDATE tags SET edits = edits - 1 WHERE id = OLD.tag;
  END;

  -- a filter and an order, as JSON, under a name
  CREATE TABLE views (name TEXT PRIMARY KEY, filter TEXT NOT NULL, sort TEXT NOT NULL) STRICT, WITHOUT ROWID;

  CREATE TABLE thumbnails (
    picture TEXT PRIMARY KEY REFERENCES pictures (id),
    mime TEXT NOT NULL,
    data BLOB NOT NULL
  ) STRICT;

  -- changes as they were made, with what is needed to take them back; never a replacement for the history
  CREATE TABLE operations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at TEXT NOT NULL,
    -- what was done, for people
    label TEXT NOT NULL,
    -- the operation this one took back
    undoes INTEGER REFERENCES operations (id)
  ) STRICT;
  CREATE INDEX operations_by_undone ON operations (undoes);
  -- what of an edit the operation changed, as JSON; before null: it made the edit
  CREATE TABLE operation_edits (
    operation INTEGER NOT NULL REFERENCES operations (id),
    edit INTEGER NOT NULL REFERENCES edits (id),
    before TEXT,
    after TEXT NOT NULL,
    PRIMARY KEY (operation, edit)
  ) STRICT, WITHOUT ROWID;

  -- the last finished jobs, each as JSON
  CREATE TABLE jobs (
    id TEXT PRIMARY KEY,
    ended TEXT NOT NULL,
    record TEXT NOT NULL
  ) STRICT;
  CREATE INDEX jobs_by_end ON jobs (ended);
`;
