/** @file The text of an answer as it grows: trimmed, and ended before a stop text. */

/** What was written so far, and how much of it is certain. */
export class AnswerText {
  readonly #stops: readonly string[];
  #raw = '';
  /** characters of the trimmed text that were told */
  #told = 0;
  #stopped = false;

  /** @param stops texts before which the answer ends */
  constructor(stops: readonly string[]) {
    this.#stops = stops.filter((stop) => stop !== '');
  }

  /** Whether a stop text was written. */
  get stopped(): boolean {
    return this.#stopped;
  }

  /** The answer: what comes before the stop text, trimmed. */
  get text(): string {
    return this.#raw.trim();
  }

  /** Takes what was written next; returns what is certain now and was not told before. */
  add(piece: string): string {
    if (this.#stopped || piece === '') return '';
    const searched = this.#raw.length;
    this.#raw += piece;
    const ends = this.#stops
      .map((stop) => this.#raw.indexOf(stop, Math.max(0, searched - stop.length + 1)))
      .filter((at) => at >= 0);
    if (ends.length > 0) {
      this.#stopped = true;
      this.#raw = this.#raw.slice(0, Math.min(...ends));
    }
    const certain = this.#stopped ? this.#raw : this.#raw.slice(0, this.#raw.length - this.#beginningStop());
    // Space at the end is told when something follows it.
    const text = certain.trimStart().trimEnd();
    const news = text.slice(this.#told);
    this.#told = Math.max(this.#told, text.length);
    return news;
  }

  /** How many characters at the end may be the beginning of a stop text. */
  #beginningStop(): number {
    const longest = Math.max(0, ...this.#stops.map((stop) => stop.length - 1));
    for (let length = Math.min(longest, this.#raw.length); length > 0; length--) {
      const end = this.#raw.slice(-length);
      if (this.#stops.some((stop) => stop.startsWith(end))) return length;
    }
    return 0;
  }
}
