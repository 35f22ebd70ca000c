/**
 * @file Short messages about what was just done, with a way to take it back.
 */

export interface Toast {
  readonly key: number;
  readonly message: string;
  readonly tone: 'plain' | 'error';
  readonly action: { readonly label: string; run(): void } | null;
}

export class Toasts {
  shown = $state.raw<readonly Toast[]>([]);
  #last = 0;

  /** Says what was done; with an action, how to take it back. */
  tell(message: string, action: Toast['action'] = null): void {
    this.#show({ key: ++this.#last, message, tone: 'plain', action });
  }

  /** Says what could not be done, where no better place for it is in view. */
  complain(message: string): void {
    this.#show({ key: ++this.#last, message, tone: 'error', action: null });
  }

  dismiss(toast: Toast): void {
    this.shown = this.shown.filter((other) => other.key !== toast.key);
  }

  #show(toast: Toast): void {
    this.shown = [...this.shown.slice(-2), toast];
  }
}
