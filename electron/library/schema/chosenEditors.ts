/** @file Upgrade step: editors chosen without an adapter, and what the fingerprints that edits were made with stand for. */
export const chosenEditorsStep = /* sql */ `
  -- the editor that a model was last opened with in place of its adapter, and the scope, as JSON; adapter_path stays
  ALTER TABLE recent_models ADD COLUMN editor TEXT;

  -- adapters and editors that this library was opened with
  CREATE TABLE known_editors (fingerprint TEXT PRIMARY KEY, name TEXT NOT NULL) STRICT;
`;
