/** @file Who is answered when: one after the other, in the order they came, and not too many waiting. */
import { EmendError } from '../errors.ts';
import { OpenAiError } from './openAiError.ts';

export class RequestQueue {
  readonly #most: number;
  readonly #waiting: Array<() => void> = [];
  #busy = false;

  /** @param most requests that may wait while one is answered */
  constructor(most: number) {
    this.#most = most;
  }

  /**
   * Waits for its turn; returns what ends it.
   * @throws OpenAiError 429 when too many wait, EmendError 'cancelled' when the signal is aborted before
   */
  async enter(signal: AbortSignal): Promise<() => void> {
    if (this.#busy) {
      if (this.#waiting.length >= this.#most) {
        throw new OpenAiError(
          429,
          `One request is answered at a time and ${this.#most} wait already. Try again in a moment.`,
          'queue_full',
        );
      }
      await new Promise<void>((resolve, reject) => {
        const leave = () => {
          this.#waiting.splice(this.#waiting.indexOf(turn), 1);
          reject(new EmendError('cancelled', 'The client left.'));
        };
        const turn = () => {
          signal.removeEventListener('abort', leave);
          resolve();
        };
        this.#waiting.push(turn);
        signal.addEventListener('abort', leave, { once: true });
      });
    }
    this.#busy = true;
    let ended = false;
    return () => {
      if (ended) return;
      ended = true;
      const next = this.#waiting.shift();
      // Stays busy where the turn is handed on.
      if (next) next();
      else this.#busy = false;
    };
  }
}
