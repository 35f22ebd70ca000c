/** @file Upgrade step: what the scope compares is kept for every probe, so that checks are local. */
export const scopeInputsStep = /* sql */ `
  -- the scope that goes with a model and adapter; thresholds is JSON: from how many committed edits on which hold
  CREATE TABLE scopes (
    model TEXT NOT NULL,
    adapter TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    candidates INTEGER NOT NULL,
    thresholds TEXT NOT NULL,
    PRIMARY KEY (model, adapter)
  ) STRICT;

  -- an input (picture and prompt) as the scope describes it in one state: model, adapter, scope and form of prompts
  CREATE TABLE scope_inputs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    state TEXT NOT NULL,
    picture TEXT NOT NULL REFERENCES pictures (id),
    prompt TEXT NOT NULL,
    "key" BLOB NOT NULL,
    picture_key BLOB NOT NULL,
    thing_key BLOB NOT NULL,
    -- the last in order of scope_matches (product of keys, edit): every committed edit before it is among them; null: every one is
    floor INTEGER,
    floor_edit INTEGER,
    -- whether scope_matches holds the best of those that are committed now
    settled INTEGER NOT NULL,
    -- whether it is a probe of a committed edit
    owned INTEGER NOT NULL,
    -- best score of each reach among the best few
    picture_score REAL,
    thing_score REAL,
    -- counts up with every change of floor and owned
    changed INTEGER NOT NULL
  ) STRICT;
  CREATE UNIQUE INDEX scope_input_by_content ON scope_inputs (state, picture, prompt);
  CREATE INDEX scope_inputs_by_change ON scope_inputs (changed);
  CREATE INDEX scope_inputs_settled ON scope_inputs (state) WHERE settled = 1;
  CREATE INDEX scope_inputs_unsettled ON scope_inputs (state) WHERE settled = 0;
  CREATE INDEX scope_inputs_by_picture_score ON scope_inputs (picture_score) WHERE picture_score IS NOT NULL;
  CREATE INDEX scope_inputs_by_thing_score ON scope_inputs (thing_score) WHERE thing_score IS NOT NULL;
  CREATE TABLE scope_details (
    input INTEGER PRIMARY KEY REFERENCES scope_inputs (id) ON DELETE CASCADE,
    detail BLOB NOT NULL
  ) STRICT;

  -- the committed edits most similar to an input; score null: not scored yet
  CREATE TABLE scope_matches (
    input INTEGER NOT NULL REFERENCES scope_inputs (id) ON DELETE CASCADE,
    edit INTEGER NOT NULL REFERENCES edits (id),
    reach TEXT NOT NULL,
    product INTEGER NOT NULL,
    score REAL,
    PRIMARY KEY (input, edit)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX scope_matches_by_edit ON scope_matches (edit);
  CREATE INDEX scope_matches_unscored ON scope_matches (input) WHERE score IS NULL;

  -- inputs on which an edit's latest check rests
  CREATE TABLE watched (
    edit INTEGER NOT NULL REFERENCES edits (id),
    input INTEGER NOT NULL REFERENCES scope_inputs (id) ON DELETE CASCADE,
    -- a probe of the check; otherwise an input of a committed edit that the edit came near and did not change
    asked INTEGER NOT NULL,
    -- of the edit with the input; score null: not scored
    product INTEGER,
    score REAL,
    -- the edits that acted when it was checked: in the library, and with the edit
    acted_before INTEGER,
    acted_after INTEGER,
    -- the edit by which it would be answered otherwise now; 0 when it is not known by which
    stale_by INTEGER,
    PRIMARY KEY (edit, input)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX watched_by_input ON watched (input);
  CREATE INDEX watched_stale ON watched (edit) WHERE stale_by IS NOT NULL;

  -- answers by input and acting edit's signal ('' for the unedited model); state: model, form of prompts and length of answers
  CREATE TABLE answers (
    state TEXT NOT NULL,
    picture TEXT NOT NULL,
    prompt TEXT NOT NULL,
    signal TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (state, picture, prompt, signal)
  ) STRICT, WITHOUT ROWID;

  -- committed edits that nothing was compared with yet, and how often the committed set had changed then
  CREATE TABLE unplaced (edit INTEGER PRIMARY KEY REFERENCES edits (id), commits INTEGER NOT NULL) STRICT;

  -- how often the set of committed edits changed
  CREATE TABLE commit_count (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), changes INTEGER NOT NULL) STRICT;
  INSERT INTO commit_count VALUES (1, 0);
  CREATE TRIGGER commits_are_counted AFTER UPDATE OF stage ON edits
  WHEN (OLD.stage = 'committed') <> (NEW.stage = 'committed')
  BEGIN UPDATE commit_count SET changes = changes + 1; END;

  CREATE INDEX edits_that_act ON edits (model, adapter, id) WHERE stage = 'committed';
  -- how far an edit goes
  ALTER TABLE edits ADD COLUMN reach TEXT NOT NULL DEFAULT 'picture' CHECK (reach IN ('picture', 'thing'));
  -- JSON list of the edits whose commit or retirement made the latest check stale
  ALTER TABLE checks ADD COLUMN stale_by TEXT NOT NULL DEFAULT '[]';

  -- what changed since freshness was last written, in the order it did; emptied in the transaction that fills it
  CREATE TABLE unreviewed (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    what TEXT NOT NULL CHECK (what IN ('committed', 'left', 'edit', 'all')),
    edit INTEGER
  ) STRICT;
  CREATE TRIGGER review_stage AFTER UPDATE OF stage ON edits WHEN (OLD.stage = 'committed') <> (NEW.stage = 'committed')
  BEGIN INSERT INTO unreviewed (what, edit) VALUES (CASE NEW.stage WHEN 'committed' THEN 'committed' ELSE 'left' END, NEW.id); END;
  CREATE TRIGGER review_edit AFTER UPDATE OF picture, prompt, target, reach, restored, stage ON edits
  BEGIN INSERT INTO unreviewed (what, edit) VALUES ('edit', NEW.id); END;
  CREATE TRIGGER review_check AFTER INSERT ON checks
  BEGIN INSERT INTO unreviewed (what, edit) VALUES ('edit', NEW.edit); END;
  CREATE TRIGGER review_probe_added AFTER INSERT ON probes
  BEGIN INSERT INTO unreviewed (what, edit) VALUES (iif(NEW.edit IS NULL, 'all', 'edit'), NEW.edit); END;
  CREATE TRIGGER review_probe_removed AFTER DELETE ON probes
  BEGIN INSERT INTO unreviewed (what, edit) VALUES (iif(OLD.edit IS NULL, 'all', 'edit'), OLD.edit); END;
  CREATE TRIGGER review_setting_added AFTER INSERT ON settings
  BEGIN INSERT INTO unreviewed (what) VALUES ('all'); END;
  CREATE TRIGGER review_setting_changed AFTER UPDATE ON settings WHEN OLD.value <> NEW.value
  BEGIN INSERT INTO unreviewed (what) VALUES ('all'); END;

  CREATE INDEX probes_by_input ON probes (picture, prompt);

  -- how often the committed set had changed when it was planned; whether it changed while the check ran
  ALTER TABLE checks ADD COLUMN commits INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE checks ADD COLUMN overtaken INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE checks ADD COLUMN finding TEXT;
  ALTER TABLE checks ADD COLUMN finding_edit INTEGER;
  -- probes of committed edits that this edit cannot change: counted, not asked
  ALTER TABLE checks ADD COLUMN unchanged INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE check_results ADD COLUMN unedited TEXT;
  ALTER TABLE check_results ADD COLUMN acted_before INTEGER;
  ALTER TABLE check_results ADD COLUMN acted_after INTEGER;

  -- committed edits checked again, against the model and adapter open then
  CREATE TABLE health (
    edit INTEGER NOT NULL REFERENCES edits (id),
    model TEXT NOT NULL,
    adapter TEXT NOT NULL,
    finished TEXT NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('holds', 'not-needed', 'needs-work')),
    unedited TEXT NOT NULL,
    answer TEXT NOT NULL,
    passed INTEGER NOT NULL,
    total INTEGER NOT NULL,
    PRIMARY KEY (edit, model, adapter)
  ) STRICT;
  CREATE INDEX health_by_outcome ON health (model, adapter, outcome, edit);
`;
