/**
 * @file The tables of a library, as numbered upgrade steps. A step, once released, is never changed: add another.
 */
import type { Database } from 'better-sqlite3';
import { actingTogetherStep } from './schema/actingTogether.ts';
import { checkStatesStep } from './schema/checkStates.ts';
import { chosenEditorsStep } from './schema/chosenEditors.ts';
import { findingsStep } from './schema/findings.ts';
import { listsStep } from './schema/lists.ts';
import { scopeInputsStep } from './schema/scopeInputs.ts';
import { weightFormsStep } from './schema/weightForms.ts';

/** Marks a SQLite file as a library of Emend ("EMND"). */
export const APPLICATION_ID = 0x454d4e44;

/** Step i brings a library from version i to version i + 1. */
export const upgradeSteps: readonly string[] = [
  /* sql */ `
  -- content-addressed: id is the sha256 of data
  CREATE TABLE pictures (
    id TEXT PRIMARY KEY CHECK (length(id) = 64),
    mime TEXT NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    bytes INTEGER NOT NULL CHECK (bytes = length(data)),
    added TEXT NOT NULL,
    data BLOB NOT NULL
  ) STRICT;

  -- checked, failed and stale are no stages: they follow from the latest check and are never stored
  CREATE TABLE edits (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    picture TEXT NOT NULL REFERENCES pictures (id),
    prompt TEXT NOT NULL,
    target TEXT NOT NULL,
    before TEXT,
    after TEXT,
    note TEXT NOT NULL,
    stage TEXT NOT NULL CHECK (stage IN ('draft', 'committed', 'retired')),
    model TEXT NOT NULL,
    adapter TEXT NOT NULL,
    created TEXT NOT NULL,
    updated TEXT NOT NULL,
    committed TEXT,
    override_reason TEXT,
    -- how often it came back from retirement: each time it needs a new check
    restored INTEGER NOT NULL DEFAULT 0,
    CHECK (stage <> 'committed' OR committed IS NOT NULL)
  ) STRICT;
  CREATE UNIQUE INDEX one_committed_edit_per_prompt ON edits (picture, prompt, model, adapter) WHERE stage = 'committed';

  CREATE TABLE edit_signals (
    edit INTEGER NOT NULL REFERENCES edits (id),
    -- what the signal was computed from: model, adapter, template and the edit's content
    state TEXT NOT NULL,
    signal BLOB NOT NULL,
    influence TEXT,
    PRIMARY KEY (edit, state)
  ) STRICT;

  -- edit null: the standing set, which belongs to every edit
  CREATE TABLE probes (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    edit INTEGER REFERENCES edits (id),
    kind TEXT NOT NULL,
    picture TEXT REFERENCES pictures (id),
    prompt TEXT NOT NULL
  ) STRICT;
  CREATE INDEX probes_by_edit ON probes (edit);

  CREATE TABLE checks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    edit INTEGER NOT NULL REFERENCES edits (id),
    finished TEXT NOT NULL,
    seconds REAL NOT NULL,
    verdict TEXT NOT NULL CHECK (verdict IN ('passes', 'fails')),
    -- the one state the check belongs to
    fingerprint TEXT NOT NULL,
    groups TEXT NOT NULL
  ) STRICT;
  CREATE INDEX checks_by_edit ON checks (edit, id);

  -- probes as they were asked: the check stays readable when they are gone
  CREATE TABLE check_results (
    "check" INTEGER NOT NULL REFERENCES checks (id),
    position INTEGER NOT NULL,
    probe INTEGER NOT NULL,
    probe_edit INTEGER,
    kind TEXT NOT NULL,
    picture TEXT REFERENCES pictures (id),
    prompt TEXT NOT NULL,
    expected TEXT,
    owner INTEGER REFERENCES edits (id),
    before TEXT NOT NULL,
    after TEXT NOT NULL,
    passes INTEGER NOT NULL,
    routing TEXT,
    PRIMARY KEY ("check", position)
  ) STRICT, WITHOUT ROWID;

  CREATE TRIGGER commit_needs_a_check BEFORE UPDATE OF stage ON edits
  WHEN NEW.stage = 'committed' AND OLD.stage <> 'committed' AND NEW.override_reason IS NULL
    AND coalesce((SELECT verdict FROM checks WHERE edit = NEW.id ORDER BY id DESC LIMIT 1), 'none') <> 'passes'
  BEGIN SELECT RAISE (ABORT, 'an edit is committed with a passing check or a reason'); END;
  CREATE TRIGGER edits_begin_as_drafts BEFORE INSERT ON edits WHEN NEW.stage <> 'draft'
  BEGIN SELECT RAISE (ABORT, 'an edit begins as a draft'); END;
  CREATE TRIGGER edits_stay BEFORE DELETE ON edits
  BEGIN SELECT RAISE (ABORT, 'edits are retired, never deleted'); END;

  CREATE TABLE history (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    edit INTEGER NOT NULL REFERENCES edits (id),
    at TEXT NOT NULL,
    what TEXT NOT NULL,
    detail TEXT NOT NULL
  ) STRICT;
  CREATE INDEX history_by_edit ON history (edit, id);
  CREATE TRIGGER history_is_not_rewritten BEFORE UPDATE ON history
  BEGIN SELECT RAISE (ABORT, 'history is append only'); END;
  CREATE TRIGGER history_is_not_removed BEFORE DELETE ON history
  BEGIN SELECT RAISE (ABORT, 'history is append only'); END;

  -- value is JSON
  CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;

  CREATE TABLE recent_models (
    path TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    adapter_path TEXT,
    model TEXT NOT NULL,
    adapter TEXT NOT NULL,
    opened TEXT NOT NULL
  ) STRICT;
`,
  /* sql */ `
  -- the two answers of each edit's last preview, as JSON, and what they were computed from
  CREATE TABLE previews (
    edit INTEGER PRIMARY KEY REFERENCES edits (id),
    state TEXT NOT NULL,
    answers TEXT NOT NULL
  ) STRICT;
`,
  /* sql */ `
  -- signals are kept with what the scope compares, decisions with scores and matches: those of before are made anew
  DELETE FROM edit_signals;
  UPDATE check_results SET routing = NULL;
  DELETE FROM previews;
`,
  listsStep,
  scopeInputsStep,
  weightFormsStep,
  findingsStep,
  chosenEditorsStep,
  checkStatesStep,
  actingTogetherStep,
];

/** The version {@link upgrade} brings a library to. */
export const LIBRARY_VERSION = upgradeSteps.length;

/** Runs the steps a library has not seen yet, all or none. Two processes may try at once: the second finds the work done. */
export function upgrade(database: Database, steps: readonly string[] = upgradeSteps): void {
  const version = () => database.pragma('user_version', { simple: true }) as number;
  if (version() >= steps.length) return;
  database
    .transaction(() => {
      for (const step of steps.slice(version())) database.exec(step);
      database.pragma(`application_id = ${APPLICATION_ID}`);
      database.pragma(`user_version = ${steps.length}`);
    })
    .immediate();
}
