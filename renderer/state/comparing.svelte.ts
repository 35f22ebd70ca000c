/**
 * @file A conversation with the model as it is and as it is corrected: the same questions to both, each going on from its own answers.
 */
import type { AnswerToken, ChatAnswer, ChatTurn, Picture, WireError } from '../../electron/api/contract.ts';
import { toWireError } from '../backend.ts';
import type { Condition } from './condition.svelte.ts';
import type { Jobs } from './jobs.svelte.ts';
import type { Pictures } from './pictures.svelte.ts';

/** Whose answer it is: without any edit, or with all committed ones. */
export type Side = 'original' | 'corrected';
export const sides: readonly Side[] = ['original', 'corrected'];

export interface Reply {
  readonly job: string | null;
  readonly state: 'running' | 'done' | 'stopped' | 'failed';
  readonly text: string;
  readonly tokens: readonly AnswerToken[];
  /** null until it is whole */
  readonly answer: ChatAnswer | null;
  readonly error: WireError | null;
}

export interface ComparedTurn {
  readonly key: number;
  readonly text: string;
  readonly pictures: readonly Picture[];
  readonly original: Reply;
  readonly corrected: Reply;
}

const nothingYet: Reply = { job: null, state: 'running', text: '', tokens: [], answer: null, error: null };
/** Pictures one question may bring. */
const mostPictures = 4;

export class Comparing {
  readonly #jobs: Jobs;
  readonly #pictures: Pictures;
  readonly #condition: Condition;
  turns = $state.raw<readonly ComparedTurn[]>([]);
  /** what is being written */
  text = $state('');
  attached = $state.raw<readonly Picture[]>([]);
  /** whether earlier turns go with a question, where the model takes them */
  remembers = $state(true);
  error = $state.raw<WireError | null>(null);
  #lastKey = 0;

  constructor(jobs: Jobs, pictures: Pictures, condition: Condition) {
    this.#jobs = jobs;
    this.#pictures = pictures;
    this.#condition = condition;
  }

  readonly running = $derived.by(() =>
    this.turns.some((turn) => sides.some((side) => turn[side].state === 'running')),
  );
  readonly takesTurns = $derived.by(() => this.#condition.model?.takes.turns ?? false);
  readonly takesPictures = $derived.by(() => this.#condition.model?.takes.pictures ?? false);
  /** the pictures a question without any goes with: those of the latest turn that brought some */
  readonly carried = $derived.by(
    () => this.turns.findLast((turn) => turn.pictures.length > 0)?.pictures ?? [],
  );
  readonly canAsk = $derived.by(() => !this.running && this.text.trim() !== '' && this.#condition.canAsk);

  async attach(file: Blob): Promise<void> {
    this.error = null;
    try {
      this.attachPicture(await this.#pictures.add(file));
    } catch (thrown) {
      this.error = toWireError(thrown);
    }
  }

  /** Puts a picture to the next question; a model that takes one has it in place of the one before. */
  attachPicture(picture: Picture): void {
    const others = this.attached.filter(({ id }) => id !== picture.id);
    this.attached = this.takesPictures ? [...others, picture].slice(-mostPictures) : [picture];
  }

  detach(picture: Picture): void {
    this.attached = this.attached.filter(({ id }) => id !== picture.id);
  }

  /** Asks both; each goes on from its own answers. */
  async ask(): Promise<void> {
    if (!this.canAsk) return;
    this.error = null;
    const key = ++this.#lastKey;
    const turn: ComparedTurn = {
      ...{ key, text: this.text.trim(), pictures: this.attached },
      ...{ original: nothingYet, corrected: nothingYet },
    };
    const asked = {
      original: this.#conversation('original', turn),
      corrected: this.#conversation('corrected', turn),
    };
    this.turns = [...this.turns, turn];
    this.text = '';
    this.attached = [];
    const share = JSON.stringify(asked.original) === JSON.stringify(asked.corrected);
    await Promise.all(sides.map((side) => this.#ask(key, side, asked[side], share)));
  }

  /** What is sent to one side: the turns that go with the question, and the question. */
  #conversation(side: Side, turn: ComparedTurn): ChatTurn[] {
    const own = { role: 'user' as const, text: turn.text };
    const pictures = (of: ComparedTurn) => of.pictures.map(({ id }) => id);
    const whole = this.takesTurns && this.remembers;
    if (!whole) {
      const shown = turn.pictures.length > 0 ? turn.pictures : this.carried;
      return [{ ...own, pictures: shown.map(({ id }) => id) }];
    }
    const answered = this.turns.filter(({ [side]: reply }) => reply.text !== '' && reply.state !== 'failed');
    // A model that takes one picture begins anew with each.
    const all = [...answered, turn];
    const from = this.takesPictures
      ? 0
      : Math.max(
          0,
          all.findLastIndex((one) => one.pictures.length > 0),
        );
    const earlier = answered.slice(from).flatMap((one): ChatTurn[] => [
      { role: 'user', text: one.text, pictures: pictures(one) },
      { role: 'assistant', text: one[side].text, pictures: [] },
    ]);
    return [...earlier, { ...own, pictures: pictures(turn) }];
  }

  /** `share`: both sides are asked the same. */
  async #ask(key: number, side: Side, turns: ChatTurn[], share: boolean): Promise<void> {
    const edits = side === 'original' ? 'none' : 'committed';
    const { id, result } = this.#jobs.start(
      'answers.chat',
      { turns, edits, share },
      {
        token: (_side, token, text) =>
          this.#change(key, side, (reply) => ({
            text: reply.text + text,
            tokens: [...reply.tokens, token],
          })),
      },
    );
    this.#change(key, side, () => ({ job: id }));
    try {
      const answer = await result;
      this.#change(key, side, () => ({ state: 'done', answer, text: answer.text, tokens: answer.tokens }));
    } catch (thrown) {
      const error = toWireError(thrown);
      const stopped = error.code === 'cancelled';
      this.#change(key, side, () => ({
        state: stopped ? 'stopped' : 'failed',
        error: stopped ? null : error,
      }));
    }
  }

  #change(key: number, side: Side, change: (reply: Reply) => Partial<Reply>): void {
    this.turns = this.turns.map((turn) =>
      turn.key === key ? { ...turn, [side]: { ...turn[side], ...change(turn[side]) } } : turn,
    );
  }

  stop(): void {
    for (const turn of this.turns) {
      for (const side of sides) {
        const { state, job } = turn[side];
        if (state === 'running' && job) void this.#jobs.cancel(job);
      }
    }
  }

  /** Begins anew; what is given back puts everything back. */
  clear(): () => void {
    this.stop();
    const { turns, text, attached } = this;
    this.turns = [];
    this.attached = [];
    this.error = null;
    return () => {
      this.turns = turns.map((turn) => ({
        ...turn,
        original: settled(turn.original),
        corrected: settled(turn.corrected),
      }));
      this.text = text;
      this.attached = attached;
    };
  }

  /** What was asked, to be asked again or changed. */
  takeUp(turn: ComparedTurn): void {
    this.text = turn.text;
    this.attached = turn.pictures;
  }
}

/** A reply whose job nobody follows any more. */
function settled(reply: Reply): Reply {
  return reply.state === 'running' ? { ...reply, state: 'stopped' } : reply;
}
