/**
 * @file What acts: the open model, its adapter and scope, and the committed edits made for them.
 */
import type { Actors, Store } from './database.ts';
import { commitChanges, keepScope, type ScopeFacts } from './scopes.ts';

/** Names what acts now: it changes when the model, its adapter, the form of prompts or the committed edits do. */
export function actingKey(store: Store): string {
  const { actors, template } = store;
  return JSON.stringify([actors, template, commitChanges(store)]);
}

/** A model was opened: from now on it acts, with what is committed for it. */
export function keepActing(
  store: Store,
  actors: Actors,
  template: Store['template'],
  scope: ScopeFacts | null,
): void {
  store.keep(() => {
    if (scope !== null) keepScope(store, actors, scope);
    store.actors = actors;
    store.template = template;
  });
}
