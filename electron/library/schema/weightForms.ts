/** @file Upgrade step: in which form the weights of each model were opened last. */
export const weightFormsStep = /* sql */ `
  ALTER TABLE recent_models ADD COLUMN weights TEXT NOT NULL DEFAULT 'dense';
`;
