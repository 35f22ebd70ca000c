/**
 * @file Long calls as records: what runs, how far it is, what it waits for, what came of it. They belong to the application,
 * not to whoever called: every page sees them, and any can stop them.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { basename } from 'node:path';
import { EmendError } from '../errors.ts';
import type { JobRecord } from './contract.ts';
import type { EngineTurn } from './engineTurns.ts';

/**
 * What `work` gives, or the signal's reason as soon as it is aborted. For waiting on what others need too: the work goes on.
 */
export function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}

/** What a job tells of itself while it runs. */
export interface JobReport {
  /** says what it works on, where its input alone does not */
  subject(words: string): void;
  /** `done` of `total` `unit`s of a stage; total null when unknown */
  progress(stage: string, done: number, total: number | null, unit: string): void;
  /** adds a line to its log */
  log(line: string): void;
  /** says in one sentence what came of it; the last one counts */
  outcome(sentence: string): void;
}

/** The report of what is no job: told to nobody. */
export const noReport: JobReport = {
  ...{ subject: () => {}, progress: () => {}, log: () => {}, outcome: () => {} },
};

/** What a job is about, known before it begins. */
export interface JobSubject {
  /** name of the call */
  readonly kind: string;
  readonly subject: string;
  readonly edit: number | null;
  /** `shared`: it takes turns with others at the engine that answers; `own`: it has one of its own as soon as there is room; null: it needs none */
  readonly engine: 'shared' | 'own' | null;
  /** as a rule over at once: told of and kept only where it takes long */
  readonly quick: boolean;
}

/** Whether what is worked on is a set of inputs: edits of the library, or of a file. */
export const isSet = (of: object): boolean => 'select' in of || 'file' in of;

/** A job's subject, from the fields of its input that say what a call works on. */
export function subjectOf(
  kind: string,
  input: unknown,
  job: true | 'long' | 'long over sets' | 'library' | 'bulk',
): JobSubject {
  const outer = input as Record<string, unknown>;
  const fields = { ...outer, ...(outer['of'] as Record<string, unknown> | undefined) };
  const number = [fields['edit'], fields['id']].find((value) => typeof value === 'number') ?? null;
  const path = [fields['file'], fields['folder'], fields['path']].find((value) => typeof value === 'string');
  const last = (fields['turns'] as ReadonlyArray<{ text: string }> | undefined)?.at(-1);
  const asked = typeof fields['prompt'] === 'string' ? fields['prompt'] : last?.text;
  const select = fields['select'] as { edits?: readonly number[] } | undefined;
  const several = select?.edits ? `${select.edits.length} edits` : 'the edits of a filter';
  let subject = '';
  if (number !== null) subject = `edit ${number}`;
  else if (path !== undefined) subject = basename(path);
  else if (typeof fields['name'] === 'string') subject = `“${shortened(fields['name'])}”`;
  else if (asked !== undefined) subject = `“${shortened(asked)}”`;
  else if (select) subject = several;
  else if (typeof fields['data'] === 'string') subject = basename(fields['data']);
  const long = job === 'long' || (job === 'long over sets' && isSet(fields));
  const engine = long ? 'own' : job === true || job === 'long over sets' ? 'shared' : null;
  return { kind, subject, edit: number, engine, quick: job === 'bulk' };
}

const shortened = (text: string): string => (text.length > 80 ? `${text.slice(0, 79)}…` : text);

/** How a job is called where another waits for it. */
const titles: Readonly<Record<string, string>> = {
  'answers.ask': 'the answer to',
  'answers.chat': 'the answer to',
  'edits.preview': 'the preview of',
  'checks.run': 'the check of',
  'attribution.modules': 'the attribution of',
  'attribution.visual': 'the attribution of',
  'attribution.modality': 'the attribution of',
  'attribution.gate': 'the gate on',
  'attribution.propose': 'the layer proposal from',
  'models.open': 'the opening of',
  'models.inspect': 'a look at',
  'training.start': 'the training of',
  'training.resume': 'the training of',
  'training.keep': 'the adapter of',
  'benchmarks.start': 'the benchmark on',
  'benchmarks.resume': 'the benchmark on',
};

/** What the engine does for nobody's job. */
const ownWork: Partial<Record<EngineTurn['name'], string>> = {
  open: 'the model to open',
  activate: 'the committed edits to be taken up',
};

interface RunningJob {
  readonly about: JobSubject;
  readonly controller: AbortController;
  /** as it was last told, but for what is worked out when it is told */
  record: JobRecord;
  /** milliseconds; when its stage began */
  stageBegan: number;
  /** how much was done then: what goes on from before does not begin at nothing */
  stageFrom: number;
  /** when it first told its share of the whole, and which; null while it has not */
  sharing: { readonly began: number; readonly from: number } | null;
  /** when it was last told of; a timer while it is to be told again */
  told: number;
  later: NodeJS.Timeout | null;
  /** whether it was told of at all */
  announced: boolean;
  /** settles when it has ended and was told of */
  done: Promise<unknown>;
}

export interface JobsOptions {
  /** hears of a job that began, went on or ended */
  readonly onChange?: (job: JobRecord) => void;
  /** keeps a job that ended beyond the life of the application */
  readonly keep?: (job: JobRecord) => void;
  /** jobs kept before, latest first */
  readonly kept?: readonly JobRecord[];
}

/** A job is told of so often at most, in milliseconds. */
const TOLD_EVERY = 250;
/** Of jobs of the engine that answers, or that are over at once as a rule, those that took this long are worth keeping, in milliseconds. */
const WORTH_KEEPING = 2000;
/** So many jobs that ended are kept. */
export const MOST_KEPT = 50;
const MOST_LINES = 200;

export class Jobs {
  readonly #running = new Map<string, RunningJob>();
  readonly #options: JobsOptions;
  readonly #context = new AsyncLocalStorage<string>();
  /** latest first */
  #ended: JobRecord[];
  /** at the engine that answers */
  #turn: EngineTurn | null = null;
  /** jobs that wait for an engine of their own, each with whose calls must end first */
  #before: ReadonlyMap<string | null, readonly EngineTurn[]> = new Map();

  constructor(options: JobsOptions = {}) {
    this.#options = options;
    this.#ended = [...(options.kept ?? [])];
  }

  /** The job whose work the calling code is a part of; null where it is of none. */
  get current(): string | null {
    return this.#context.getStore() ?? null;
  }

  /** Those that run, oldest first, then those that ended, latest first. */
  list(): JobRecord[] {
    return [...[...this.#running.values()].map((job) => this.#recordOf(job)), ...this.#ended];
  }

  /**
   * Runs `work` under an id, with a signal that `cancel` aborts.
   * @throws EmendError 'conflict' while another job has that id; 'cancelled' when it was cancelled and did not finish
   */
  async run<T>(
    id: string,
    about: JobSubject,
    work: (signal: AbortSignal, report: JobReport) => Promise<T>,
  ): Promise<T> {
    if (this.#running.has(id)) {
      throw new EmendError(
        'conflict',
        `A job with the id "${id}" is running already. Wait for it, or take another id.`,
      );
    }
    const controller = new AbortController();
    const job: RunningJob = {
      about,
      controller,
      record: newRecord(id, about),
      stageBegan: performance.now(),
      stageFrom: 0,
      sharing: null,
      told: 0,
      later: null,
      announced: false,
      done: Promise.resolve(),
    };
    this.#running.set(id, job);
    if (about.quick) {
      job.told = performance.now();
      this.#tellSoon(job);
    } else this.#tell(job);
    const result = this.#context.run(id, () => this.#work(job, work));
    job.done = result.catch(() => undefined);
    return result;
  }

  async #work<T>(job: RunningJob, work: (signal: AbortSignal, report: JobReport) => Promise<T>): Promise<T> {
    const { signal } = job.controller;
    const began = performance.now();
    try {
      // Begun in a later turn, so that the job is known before it can end.
      await Promise.resolve();
      const result = await work(signal, this.#reportOf(job));
      this.#end(job, began, signal.aborted ? 'cancelled' : 'done', job.record.outcome ?? 'Done.');
      return result;
    } catch (error) {
      if (signal.aborted) {
        this.#end(job, began, 'cancelled', job.record.outcome ?? 'Stopped.');
        throw new EmendError('cancelled', 'Stopped. The library is as it was.', { cause: error });
      }
      const said = error instanceof Error ? error.message.split('\n')[0]! : String(error);
      this.#end(job, began, 'failed', said);
      throw error;
    }
  }

  #reportOf(job: RunningJob): JobReport {
    return {
      subject: (words) => {
        job.record = { ...job.record, subject: words };
        this.#tellSoon(job);
      },
      progress: (stage, done, total, unit) => this.progress(job.record.id, { stage, done, total, unit }),
      log: (line) => {
        if (job.record.log.length < MOST_LINES)
          job.record = { ...job.record, log: [...job.record.log, line] };
        this.#tellSoon(job);
      },
      outcome: (sentence) => {
        job.record = { ...job.record, outcome: sentence };
      },
    };
  }

  /** How far a job is. */
  progress(id: string, at: Pick<JobRecord, 'stage' | 'done' | 'total' | 'unit' | 'share'>): void {
    const job = this.#running.get(id);
    if (!job) return;
    if (at.stage !== job.record.stage) {
      job.stageBegan = performance.now();
      job.stageFrom = at.done;
    }
    if (at.share !== undefined) job.sharing ??= { began: performance.now(), from: at.share };
    job.record = { ...job.record, ...at };
    this.#tellSoon(job);
  }

  /** Tells whose turn it is at the engine that answers: the others that need it wait. */
  engineTurn(turn: EngineTurn | null): void {
    this.#turn = turn;
    for (const job of this.#running.values()) if (job.about.engine === 'shared') this.#tellSoon(job);
  }

  /** Tells which calls wait for an engine of their own, each with those of which one must end first. */
  waitForRoom(waiting: ReadonlyMap<EngineTurn, readonly EngineTurn[]>): void {
    this.#before = new Map([...waiting].map(([turn, before]) => [turn.job, before]));
    for (const job of this.#running.values()) if (job.about.engine === 'own') this.#tellSoon(job);
  }

  /** Asks a job to stop. One that has just ended is none of anybody's concern: nothing happens. */
  cancel(id: string): void {
    this.#running.get(id)?.controller.abort();
  }

  /** Stops all jobs and waits for them, `patience` milliseconds at most. */
  async stop(patience: number): Promise<void> {
    const jobs = [...this.#running.values()];
    for (const job of jobs) job.controller.abort();
    const timeout = new Promise<void>((resolve) => setTimeout(resolve, patience).unref());
    await Promise.race([Promise.allSettled(jobs.map((job) => job.done)), timeout]);
  }

  #recordOf({ record, about, stageBegan, stageFrom, sharing }: RunningJob): JobRecord {
    const waitsFor = this.#waitsFor(record.id, about);
    const whole = sharing && { ...sharing, done: record.share!, total: 1 };
    const stage = { began: stageBegan, from: stageFrom, done: record.done, total: record.total };
    const { began, from, done, total } = whole ?? stage;
    const elapsed = (performance.now() - began) / 1000;
    return {
      ...record,
      outcome: null,
      state: waitsFor === null ? 'running' : 'waiting',
      waitsFor,
      secondsLeft: total !== null && elapsed >= 1 ? secondsLeft(elapsed, from, done, total) : null,
    };
  }

  /** Whom a job waits for, in words; null while it waits for none. */
  #waitsFor(id: string, { engine }: JobSubject): string | null {
    if (engine === 'shared') return this.#turn && this.#turn.job !== id ? this.#wordsOf(this.#turn) : null;
    const before = engine === 'own' ? this.#before.get(id) : undefined;
    if (!before) return null;
    return [...new Set(before.map((turn) => this.#wordsOf(turn)))].join(' or ') || 'another process to end';
  }

  #wordsOf(turn: EngineTurn): string {
    const job = turn.job === null ? undefined : this.#running.get(turn.job);
    if (!job) return ownWork[turn.name] ?? 'the engine';
    return `${titles[job.about.kind] ?? job.about.kind} ${job.record.subject}`.trim();
  }

  #tellSoon(job: RunningJob): void {
    if (job.later) return;
    const wait = job.told + TOLD_EVERY - performance.now();
    if (wait <= 0) this.#tell(job);
    else job.later = setTimeout(() => this.#tell(job), wait).unref();
  }

  #tell(job: RunningJob): void {
    if (job.later) clearTimeout(job.later);
    job.later = null;
    job.told = performance.now();
    job.announced = true;
    this.#options.onChange?.(this.#recordOf(job));
  }

  #end(job: RunningJob, began: number, state: JobRecord['state'], outcome: string): void {
    if (job.later) clearTimeout(job.later);
    this.#running.delete(job.record.id);
    const ended: JobRecord = { ...job.record, state, outcome, ended: new Date().toISOString() };
    const { engine, quick } = job.about;
    if ((engine !== 'shared' && !quick) || performance.now() - began >= WORTH_KEEPING) {
      this.#ended = [ended, ...this.#ended].slice(0, MOST_KEPT);
      this.#options.keep?.(ended);
    }
    if (job.announced) this.#options.onChange?.(ended);
  }
}

/** How long the rest takes if it goes on as it did from `from` on; null where that says nothing yet, and at the end. */
export function secondsLeft(elapsed: number, from: number, done: number, total: number): number | null {
  return done > from && done < total ? Math.ceil((elapsed / (done - from)) * (total - done)) : null;
}

function newRecord(id: string, { kind, subject, edit, engine }: JobSubject): JobRecord {
  return {
    ...{ id, kind, subject, edit, ownEngine: engine === 'own', state: 'running', waitsFor: null },
    ...{ stage: '', done: 0, total: null, unit: '', secondsLeft: null },
    ...{ started: new Date().toISOString(), ended: null, outcome: null, log: [] },
  };
}
