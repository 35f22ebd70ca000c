/** @file Upgrade step: checks of edits that act everywhere, together with all that are committed. */
export const actingTogetherStep = /* sql */ `
  ALTER TABLE checks ADD COLUMN everywhere INTEGER NOT NULL DEFAULT 0;
`;
