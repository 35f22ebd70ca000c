/**
 * @file The workbench: one picture, one prompt, the answer, its correction, and the edit that comes of it.
 */

import { untrack } from 'svelte';
import type {
  Answer,
  AnswerToken,
  CallOutput,
  Check,
  Edit,
  HistoryEntry,
  InfluenceMap,
  JobRecord,
  Picture,
  Probe,
  ProbeResult,
  Reach,
  SamplePicture,
  WireError,
} from '../../electron/api/contract.ts';
import { type Connection, toWireError } from '../backend.ts';
import type { OwnProbeKind } from '../workbench/probeKinds.ts';
import type { Changes } from './changes.ts';
import type { Condition } from './condition.svelte.ts';
import type { JobListeners, Jobs } from './jobs.svelte.ts';
import type { Pictures } from './pictures.svelte.ts';
import type { Preferences } from './preferences.svelte.ts';
import type { Toasts } from './toasts.svelte.ts';
import { type TypedFields, UnsavedFields } from './unsaved.ts';

/** Where on the workbench something went wrong. */
export type Place = 'picture' | 'ask' | 'edit' | 'probes' | 'check';
/** The long work the workbench may be at; one at a time. */
export type Work = 'ask' | 'preview' | 'check';
type Side = 'before' | 'after' | 'answer';

/** the jobs that are work of the workbench, by the call that began them */
const works: Readonly<Record<string, Work>> = {
  'answers.ask': 'ask',
  'edits.preview': 'preview',
  'checks.run': 'check',
};
const nothingStreamed: Readonly<Record<Side, readonly AnswerToken[]>> = { answer: [], before: [], after: [] };
/** Edits in these states take changes; a change to any other edit makes a new one. */
const changeable: readonly Edit['status'][] = ['draft', 'checked', 'failed', 'stale'];

export class Workbench {
  readonly #connection: Connection;
  readonly #jobs: Jobs;
  readonly #pictures: Pictures;
  readonly #condition: Condition;
  readonly #toasts: Toasts;
  readonly #changes: Changes;
  readonly #unsaved: UnsavedFields;
  readonly #preferences: Preferences;

  picture = $state.raw<Picture | null>(null);
  prompt = $state('');
  target = $state('');
  /** how far the edit goes, where that was chosen; else as the edit or the settings say */
  #reach = $state<Reach | null>(null);
  /** ask with all committed edits, or the unedited model */
  asksWith = $state<'committed' | 'none'>('committed');
  answer = $state.raw<Answer | null>(null);
  /** what the answer answers, and by which model */
  answered = $state.raw<{ readonly prompt: string; readonly model: string } | null>(null);
  /** tokens of the running work, as they come */
  streamed = $state.raw(nothingStreamed);

  edit = $state.raw<Edit | null>(null);
  /** the full answers of the last preview; null when only their text is known */
  before = $state.raw<Answer | null>(null);
  after = $state.raw<Answer | null>(null);
  influence = $state.raw<InfluenceMap | null>(null);
  probes = $state.raw<readonly Probe[]>([]);
  /** probes that belong to every edit */
  standing = $state.raw<readonly Probe[]>([]);
  check = $state.raw<Check | null>(null);
  /** results of the running check, as they come */
  checking = $state.raw<readonly ProbeResult[]>([]);
  history = $state.raw<readonly HistoryEntry[]>([]);
  /** a committed edit that already answers this one's question otherwise, as the last preview found */
  conflict = $state.raw<CallOutput<'edits.preview'>['conflict']>(null);
  /** whether that edit is to be retired when this one is committed */
  supersedes = $state(false);

  /** whether the answer to the last question is in view, or the edit's before and after */
  view = $state<'answer' | 'comparison'>('answer');
  /** the whole picture, or the influence map on it */
  layer = $state<'picture' | 'influence'>('picture');
  /** id of the job that answers the question asked here */
  #asking = $state<string | null>(null);
  opening = $state(false);
  errors = $state<Partial<Record<Place, WireError>>>({});

  /** grows when the workbench turns to something else: what was begun before then is no longer shown */
  #turn = 0;
  /** the prompt a demo picture filled in, which the next one may replace */
  #suggested = '';
  /** whether the fields are those of the next new edit, and no longer what an edit left when it was closed */
  #newIsOpen = false;

  constructor(
    connection: Connection,
    jobs: Jobs,
    pictures: Pictures,
    condition: Condition,
    toasts: Toasts,
    changes: Changes,
    preferences: Preferences,
  ) {
    this.#preferences = preferences;
    this.#unsaved = new UnsavedFields(localStorage);
    this.#changes = changes;
    this.#connection = connection;
    this.#jobs = jobs;
    this.#pictures = pictures;
    this.#condition = condition;
    this.#toasts = toasts;
    // How an edit stands depends on others, on settings and on the model: any change may be news of it.
    connection.on('library.changed', () => void this.readAgain());
    $effect.root(() => {
      $effect(() => this.#keepTyped());
      // what ran on the open edit has ended, wherever it was begun: its outcome is in the library
      let ran = false;
      $effect(() => {
        const runs = this.job !== null;
        if (ran && !runs) untrack(() => void this.readAgain());
        ran = runs;
      });
    });
  }

  /** what runs here: the answer to a question asked here, or work on the open edit, wherever that was begun */
  readonly job = $derived.by(() => {
    const asking = this.#jobs.running.find(({ id }) => id === this.#asking);
    const onEdit = ({ kind, edit }: JobRecord) => kind in works && edit !== null && edit === this.edit?.id;
    return asking ?? this.#jobs.running.find(onEdit) ?? null;
  });
  readonly work = $derived.by((): Work | null => (this.job ? (works[this.job.kind] ?? null) : null));
  readonly stopping = $derived.by(() => this.job !== null && this.#jobs.stopping.has(this.job.id));

  readonly canAsk = $derived.by(
    () => this.work === null && this.prompt.trim() !== '' && this.picture !== null && this.#condition.canAsk,
  );
  readonly canPreview = $derived.by(
    () => this.canAsk && this.#condition.canEdit && this.target.trim() !== '',
  );
  /** whether the open edit still takes changes, probes and checks: it is neither committed nor retired */
  readonly changeable = $derived.by(() => this.edit !== null && changeable.includes(this.edit.status));
  /** how far the edit goes */
  readonly reach = $derived.by(
    (): Reach => this.#reach ?? this.edit?.reach ?? this.#preferences.settings?.reach ?? 'picture',
  );
  /** whether prompt, correction or reach differ from the edit's */
  readonly changed = $derived.by(
    () =>
      this.edit !== null &&
      (this.prompt.trim() !== this.edit.prompt ||
        this.target.trim() !== this.edit.target ||
        this.reach !== this.edit.reach),
  );
  /** Check and commit take the edit as it was previewed, so they wait until that is what the fields say. */
  readonly canCommit = $derived.by(
    () => this.changeable && this.work === null && !this.changed && this.#condition.locked === '',
  );
  readonly canCheck = $derived.by(() => this.canCommit && this.#condition.canEdit);
  /** whether the next preview makes a new edit because the open one no longer changes */
  readonly becomesNew = $derived.by(() => this.changed && !this.changeable);
  /** whether the edit, as its fields say it, was previewed: its answer with the edit is known */
  readonly previewed = $derived.by(() => this.edit !== null && this.edit.after !== null && !this.changed);
  /** the committed edit that is retired when this one is committed: as chosen after the preview, else as it was checked */
  readonly replaced = $derived.by((): number | null => {
    if (this.conflict) return this.supersedes ? this.conflict.edit : null;
    return this.check?.supersede ?? null;
  });
  /** whether the latest check is of this edit as it is to be committed, in the place of another or beside all of them */
  readonly checked = $derived.by(() => this.check !== null && this.check.supersede === this.replaced);
  /** whether the edit can be committed as it stands */
  readonly verified = $derived.by(
    () => this.checked && this.check?.fresh === true && this.check.verdict === 'passes',
  );
  /** What moves the edit on: a preview, then a check, then the commit. After a failed check that is for a person to say. */
  readonly nextStep = $derived.by((): 'preview' | 'check' | 'commit' | null => {
    if (!this.edit || !this.changeable) return this.changed ? 'preview' : null;
    if (!this.previewed) return 'preview';
    if (!this.checked || !this.check?.fresh) return 'check';
    return this.verified ? 'commit' : null;
  });
  readonly isEmpty = $derived.by(
    () => this.picture === null && this.prompt === '' && this.target === '' && this.edit === null,
  );

  /** Clears the workbench for a new edit. Work under way is stopped; what was typed for a new edit can be called back. */
  startAnew(): void {
    this.#offerBack();
    this.#clear();
    this.#newIsOpen = true;
  }

  /** Turns to the new edit that was begun before, if any. What was typed for the edit that was open is kept. */
  async openNew(): Promise<void> {
    if (this.edit || this.opening) this.#clear();
    if (!this.isEmpty || this.#newIsOpen) return;
    const turn = this.#turn;
    const typed = this.#unsaved.read(await this.#library(), null);
    if (turn !== this.#turn || !this.isEmpty) return;
    if (typed) await this.#putBack(typed);
    if (turn === this.#turn) this.#newIsOpen = true;
  }

  /** Puts an edit of the library on the workbench, with what was typed for it and not saved. */
  async open(id: number): Promise<void> {
    if (this.edit?.id === id) return;
    this.#clear();
    this.opening = true;
    const turn = this.#turn;
    const library = await this.#library();
    const shown = await this.#readEdit(id);
    if (turn === this.#turn) this.opening = false;
    if (!shown || turn !== this.#turn) return;
    const { prompt, target, reach } = this.#unsaved.read(library, id) ?? shown;
    this.prompt = prompt;
    this.target = target;
    this.#reach = reach === shown.reach ? null : reach;
    this.view = 'comparison';
    if (this.influence) this.layer = 'influence';
    try {
      const { picture } = await this.#pictures.show(shown.picture);
      if (turn === this.#turn) this.picture = picture;
    } catch (thrown) {
      this.#complain('picture', thrown, turn);
    }
  }

  /** Puts prompt and correction back to what the edit says. */
  revert(): void {
    if (!this.edit) return;
    this.prompt = this.edit.prompt;
    this.target = this.edit.target;
    this.#reach = null;
  }

  chooseReach(reach: Reach): void {
    this.#reach = reach;
  }

  /** Reads the open edit again; at the end of running work that is done anyway. */
  async readAgain(): Promise<void> {
    if (this.edit && this.work === null) await this.#readEdit(this.edit.id);
  }

  /** Takes a picture file the person dropped, pasted or chose. */
  async takeFile(file: Blob): Promise<void> {
    delete this.errors.picture;
    const turn = this.#turn;
    try {
      const picture = await this.#pictures.add(file);
      if (turn === this.#turn) this.#takePicture(picture);
    } catch (thrown) {
      this.#complain('picture', thrown, turn);
    }
  }

  /** Takes a demo picture, and its first prompt unless the person typed one. */
  takeSample(sample: SamplePicture): void {
    this.#takePicture(sample.picture);
    const suggestion = sample.prompts[0] ?? '';
    if (this.prompt.trim() === '' || this.prompt === this.#suggested) {
      this.prompt = suggestion;
      this.#suggested = suggestion;
    }
  }

  /** Asks the model the prompt about the picture. */
  async ask(): Promise<void> {
    const picture = this.picture;
    if (!this.canAsk || !picture) return;
    const turn = this.#turn;
    const { answer: lastAnswer, view: lastView, prompt } = this;
    const model = this.#condition.model?.fingerprint ?? '';
    this.answer = null;
    this.view = 'answer';
    const answer = await this.#run('ask', (listeners) =>
      this.#jobs.start('answers.ask', { picture: picture.id, prompt, edits: this.asksWith }, listeners),
    );
    if (turn !== this.#turn) return;
    // what changed meanwhile was not read then
    if (this.edit) void this.#readEdit(this.edit.id);
    if (!answer) {
      this.answer = lastAnswer;
      this.view = lastView;
      return;
    }
    this.answer = answer;
    this.answered = { prompt: prompt.trim(), model };
    this.#condition.lastResult = `Answered in ${seconds(answer.times.total)}`;
  }

  /** Makes the correction an edit (or changes the one that is open) and answers before and after it. */
  async preview(): Promise<void> {
    const picture = this.picture;
    if (!this.canPreview || !picture) return;
    delete this.errors.edit;
    const turn = this.#turn;
    let edit: Edit;
    try {
      edit = await this.#settledEdit(picture);
    } catch (thrown) {
      this.#complain('edit', thrown, turn);
      return;
    }
    if (turn !== this.#turn) return;
    this.edit = edit;
    this.#reach = null;
    this.before = null;
    this.after = null;
    this.view = 'comparison';
    const shown = await this.#run('edit', (listeners) =>
      this.#jobs.start('edits.preview', { id: edit.id }, listeners),
    );
    if (shown) {
      this.edit = shown.edit;
      this.before = shown.before;
      this.after = shown.after;
      this.influence = shown.influence;
      this.conflict = shown.conflict;
      this.supersedes = shown.conflict !== null && shown.conflict.edit === this.check?.supersede;
      this.layer = 'influence';
      this.#condition.lastResult = `Previewed in ${seconds(shown.before.times.total + shown.after.times.total)}`;
    }
    if (this.edit?.id === edit.id) await this.#readEdit(edit.id);
  }

  /** Runs the check of the open edit. */
  async runCheck(): Promise<void> {
    const edit = this.edit;
    if (!this.canCheck || !edit) return;
    this.checking = [];
    const supersede = this.replaced ?? undefined;
    const check = await this.#run('check', (listeners) =>
      this.#jobs.start('checks.run', { edit: edit.id, ...(supersede && { supersede }) }, listeners),
    );
    this.checking = [];
    if (check) {
      this.check = check;
      this.#condition.lastResult = `Check finished in ${check.seconds.toFixed(1)} s`;
    }
    if (this.edit?.id === edit.id) await this.#readEdit(edit.id);
  }

  /** Stops the running work. */
  cancel(): void {
    if (this.job) void this.#jobs.cancel(this.job.id);
  }

  /** Commits the open edit; without a fresh passing check that takes a reason. Says whether it was committed. */
  async commit(reason?: string): Promise<boolean> {
    const edit = this.edit;
    if (!edit) return false;
    const supersede = this.replaced;
    return this.#change(
      () =>
        this.#connection.call('edits.commit', {
          id: edit.id,
          ...(reason && { reason }),
          ...(supersede !== null && { supersede }),
        }),
      supersede === null
        ? `Edit ${edit.id} committed`
        : `Edit ${edit.id} committed in place of edit ${supersede}`,
    );
  }

  /** Takes an edit out of the edited model. Says whether that was done. */
  async retire(id: number): Promise<boolean> {
    return this.#change(() => this.#connection.call('edits.retire', { id }), `Edit ${id} retired`);
  }

  /** Makes a retired edit a draft again. */
  async restore(id: number): Promise<boolean> {
    return this.#change(() => this.#connection.call('edits.restore', { id }), `Edit ${id} is a draft again`);
  }

  /** Adds a probe to the open edit. Says whether it was taken. */
  async addProbe(probe: { kind: OwnProbeKind; picture: string | null; prompt: string }): Promise<boolean> {
    const edit = this.edit;
    if (!edit) return false;
    return this.#changeProbes(edit, () => this.#connection.call('probes.add', { edit: edit.id, ...probe }));
  }

  /** Removes a probe, with a way back. */
  async removeProbe(probe: Probe): Promise<void> {
    const edit = this.edit;
    if (!edit) return;
    const removed = await this.#changeProbes(edit, () =>
      this.#connection.call('probes.remove', { id: probe.id }),
    );
    if (removed) void this.#changes.tell('Probe removed');
  }

  dismiss(place: Place): void {
    delete this.errors[place];
  }

  /** The edit as its fields now say: created, changed, or the one already open. */
  async #settledEdit(picture: Picture): Promise<Edit> {
    const prompt = this.prompt.trim();
    const target = this.target.trim();
    if (this.edit && !this.changed) return this.edit;
    if (this.edit && !this.becomesNew) {
      return this.#connection.call('edits.update', { id: this.edit.id, prompt, target, reach: this.reach });
    }
    // the answer in view is the unedited model's to this prompt only if both are still the same and no edit acted on it
    const asked =
      this.answered?.prompt === prompt && this.answered.model === this.#condition.model?.fingerprint;
    const before =
      asked && this.answer && !this.answer.routing?.edit && !this.edit ? this.answer.text : undefined;
    const edit = await this.#connection.call('edits.create', {
      picture: picture.id,
      prompt,
      target,
      reach: this.reach,
      ...(before && { before }),
    });
    const library = await this.#library();
    this.#unsaved.forget(library, this.edit?.id ?? null);
    this.#forgetEdit();
    return edit;
  }

  /** Runs one long call; null when it failed, was stopped, or the workbench has turned to something else. */
  async #run<T>(
    place: Place,
    start: (listeners: JobListeners) => { id: string; result: Promise<T> },
  ): Promise<T | null> {
    const turn = this.#turn;
    const edit = this.edit?.id;
    delete this.errors[place];
    this.streamed = nothingStreamed;
    const { id, result } = start({
      token: (side, token) => {
        if (turn === this.#turn)
          this.streamed = { ...this.streamed, [side]: [...this.streamed[side], token] };
      },
      result: (probe) => {
        if (turn === this.#turn) this.checking = [...this.checking, probe];
      },
    });
    if (place === 'ask') this.#asking = id;
    try {
      const output = await result;
      return turn === this.#turn ? output : null;
    } catch (thrown) {
      if (turn === this.#turn) this.#complain(place, thrown, turn);
      else if (edit !== undefined && toWireError(thrown).code !== 'cancelled')
        this.#toasts.complain(`Edit ${edit}: ${toWireError(thrown).message}`);
      return null;
    } finally {
      if (turn === this.#turn) this.streamed = nothingStreamed;
    }
  }

  /** Changes an edit of the library, and says so with a way back. */
  async #change(call: () => Promise<Edit>, done: string): Promise<boolean> {
    const turn = this.#turn;
    delete this.errors.edit;
    try {
      const edit = await call();
      void this.#changes.tell(done);
      if (this.edit?.id === edit.id) {
        this.edit = edit;
        await this.#readEdit(edit.id);
      }
      return true;
    } catch (thrown) {
      if (this.edit) {
        await this.#readEdit(this.edit.id); // it may stand otherwise than is shown
        this.#complain('edit', thrown, turn);
      } else this.#toasts.complain(toWireError(thrown).message);
      return false;
    }
  }

  async #changeProbes(edit: Edit, call: () => Promise<unknown>): Promise<boolean> {
    const turn = this.#turn;
    delete this.errors.probes;
    try {
      await call();
      await this.#readEdit(edit.id);
      return true;
    } catch (thrown) {
      this.#complain('probes', thrown, turn);
      return false;
    }
  }

  /** Reads the open edit again, with all that belongs to it. */
  async #readEdit(id: number): Promise<Edit | null> {
    const turn = this.#turn;
    try {
      const [shown, standing] = await Promise.all([
        this.#connection.call('edits.show', { id }),
        this.#connection.call('probes.standing', {}),
      ]);
      if (turn !== this.#turn) return null;
      this.edit = shown.edit;
      this.probes = shown.probes.filter((probe) => probe.edit !== null);
      this.standing = standing;
      this.check = shown.check;
      this.history = shown.history;
      this.influence = shown.influence;
      this.before = shown.answers?.before ?? null;
      this.after = shown.answers?.after ?? null;
      return shown.edit;
    } catch (thrown) {
      this.#complain('edit', thrown, turn);
      return null;
    }
  }

  #takePicture(picture: Picture): void {
    if (picture.id === this.picture?.id) return;
    this.#turnAway();
    if (this.edit) {
      this.#forgetEdit();
      this.target = '';
    }
    this.#forgetAnswer();
    this.layer = 'picture';
    this.picture = picture;
  }

  /** Says what of a new edit is cleared without having been saved, with a way back. What was typed for an edit is kept. */
  #offerBack(): void {
    const { picture, prompt, target, reach, answer, answered, edit } = this;
    const typed = target.trim() !== '' || (prompt.trim() !== '' && prompt !== this.#suggested);
    if (edit || (!typed && answer === null)) return;
    this.#toasts.tell('Cleared', {
      label: 'Undo',
      run: () => {
        this.startAnew();
        this.picture = picture;
        this.answer = answer;
        this.answered = answered;
        this.prompt = prompt;
        this.target = target;
        this.#reach = reach;
      },
    });
  }

  /** Keeps what is typed and not saved. Nothing is kept of an edit whose fields say what the library says. */
  #keepTyped(): void {
    const library = this.#condition.status?.library.path;
    const { edit, picture, prompt, target, reach, changed, isEmpty } = this;
    if (library === undefined || this.opening) return;
    if (edit) {
      if (changed) this.#unsaved.keep(library, edit.id, { picture: null, prompt, target, reach });
      else this.#unsaved.forget(library, edit.id);
    } else if (!isEmpty) {
      this.#newIsOpen = true;
      this.#unsaved.keep(library, null, { picture: picture?.id ?? null, prompt, target, reach });
    } else if (this.#newIsOpen) this.#unsaved.forget(library, null);
  }

  /** Fills the empty workbench with what was typed for a new edit. */
  async #putBack(typed: TypedFields): Promise<void> {
    const turn = this.#turn;
    try {
      const read = typed.picture === null ? null : await this.#pictures.show(typed.picture);
      if (turn === this.#turn) this.picture = read?.picture ?? null;
    } catch {
      // The library no longer has it: what was typed is worth keeping all the same.
    }
    if (turn !== this.#turn) return;
    this.prompt = typed.prompt;
    this.target = typed.target;
    this.#reach = typed.reach;
  }

  /** Where the open library lies. */
  async #library(): Promise<string> {
    if (!this.#condition.status) await this.#condition.read();
    return this.#condition.status?.library.path ?? '';
  }

  #clear(): void {
    this.#turnAway();
    this.#newIsOpen = false;
    this.picture = null;
    this.prompt = '';
    this.target = '';
    this.#reach = null;
    this.#suggested = '';
    this.layer = 'picture';
    this.#forgetAnswer();
    this.#forgetEdit();
  }

  #forgetAnswer(): void {
    this.answer = null;
    this.answered = null;
    this.view = 'answer';
  }

  #forgetEdit(): void {
    this.edit = null;
    this.before = null;
    this.after = null;
    this.influence = null;
    this.probes = [];
    this.check = null;
    this.checking = [];
    this.history = [];
    this.conflict = null;
    this.supersedes = false;
  }

  /** Turns to something else. A question nobody waits for any more is stopped; work on an edit goes on. */
  #turnAway(): void {
    if (this.work === 'ask') this.cancel();
    this.#turn++;
    this.#asking = null;
    this.opening = false;
    this.streamed = nothingStreamed;
    this.errors = {};
  }

  #complain(place: Place, thrown: unknown, turn: number): void {
    const error = toWireError(thrown);
    if (turn === this.#turn && error.code !== 'cancelled') this.errors[place] = error;
  }
}

function seconds(milliseconds: number): string {
  return `${(milliseconds / 1000).toFixed(2)} s`;
}
