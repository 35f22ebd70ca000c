/**
 * @file Answers by input and acting edit: of the same model to the same input under the same edit there is only one.
 */
import { prepared, type Store } from './database.ts';
import { answerState } from './scopes.ts';
import { readSettings } from './settings.ts';

/** An answer of the unedited model (`signal` '') or under an edit's signal, named by its state. */
export interface KnownAnswer {
  /** '' for no picture */
  readonly picture: string;
  readonly prompt: string;
  readonly signal: string;
  readonly text: string;
}

/** The answer, if it is known; `picture` '' for none, `signal` '' for the unedited model. */
export function readAnswer(store: Store, picture: string, prompt: string, signal: string): string | null {
  const state = answerState(store, readSettings(store).maxNewTokens);
  return (
    prepared<[string, string, string, string], { text: string }>(
      store,
      'SELECT text FROM answers WHERE state = ? AND picture = ? AND prompt = ? AND signal = ?',
    ).get(state, picture, prompt, signal)?.text ?? null
  );
}

/** Keeps answers of the model that is open; `maxNewTokens` as they were asked with. Called inside a `write`. */
export function rememberAnswers(store: Store, answers: readonly KnownAnswer[], maxNewTokens: number): void {
  const state = answerState(store, maxNewTokens);
  const insert = prepared(
    store,
    'INSERT OR REPLACE INTO answers (state, picture, prompt, signal, text) VALUES (?, ?, ?, ?, ?)',
  );
  for (const { picture, prompt, signal, text } of answers) insert.run(state, picture, prompt, signal, text);
}
