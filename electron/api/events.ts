/**
 * @file Events on their way from the application to whoever listens: windows, pages, the command line.
 */
import type { EventName, EventPayload } from './contract.ts';

/** An event with its payload, as front ends pass it on. */
export type AnyEvent = {
  [N in EventName]: { readonly name: N; readonly payload: EventPayload<N> };
}[EventName];

export class Events {
  readonly #listeners = new Set<(event: AnyEvent) => void>();

  /** Hears every event. Returns a function that stops it. */
  onAny(listener: (event: AnyEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Hears one kind of event. Returns a function that stops it. */
  on<N extends EventName>(name: N, listener: (payload: EventPayload<N>) => void): () => void {
    return this.onAny((event) => {
      if (event.name === name) listener(event.payload as EventPayload<N>);
    });
  }

  emit(event: AnyEvent): void {
    for (const listener of [...this.#listeners]) listener(event);
  }
}
