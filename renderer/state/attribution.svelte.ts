/**
 * @file What is looked into on the attribution screen: a picture with a question, an edit on it or none, or the library's edits; what was
 * found of it, and what is kept of sets.
 */
import type {
  AttributionFound,
  AttributionRun,
  CallInput,
  CallName,
  CallOutput,
  Edit,
  EditFilter,
  GateReport,
  LayerProposal,
  ModalityReport,
  ModuleReport,
  Picture,
  SamplePicture,
  VisualReport,
  WireError,
} from '../../electron/api/contract.ts';
import { type Connection, toWireError } from '../backend.ts';
import type { Condition } from './condition.svelte.ts';
import { DataSetChoice } from './dataSet.svelte.ts';
import type { Jobs } from './jobs.svelte.ts';
import type { Pictures } from './pictures.svelte.ts';

export const attributionViews = ['visual', 'modules', 'modality', 'gate', 'layer'] as const;
export type AttributionView = (typeof attributionViews)[number];

const callOf = {
  ...{ visual: 'visual', modules: 'modules', modality: 'modality', gate: 'gate', layer: 'propose' },
} as const satisfies Record<AttributionView, string>;
const viewOf = { modules: 'modules', modality: 'modality', gate: 'gate', propose: 'layer' } as const;

/** Every edit that is not retired. */
const usedEdits: EditFilter = { status: ['draft', 'checked', 'failed', 'stale', 'committed'] };

/** What was found of an input, or of several. */
interface Found {
  readonly visual?: VisualReport | null;
  readonly modules?: ModuleReport | null;
  readonly modality?: ModalityReport | null;
  readonly proposal?: LayerProposal | null;
}

export class Attribution {
  readonly #connection: Connection;
  readonly #jobs: Jobs;
  readonly #pictures: Pictures;
  readonly #condition: Condition;
  view = $state<AttributionView>('visual');
  picture = $state.raw<Picture | null>(null);
  prompt = $state('');
  /** the edit that is to act; its own picture and question to begin with */
  edit = $state.raw<Edit | null>(null);
  /** the mean over the library's edits in place of the one input */
  overLibrary = $state(false);
  /** key tokens typed; empty: the model's own, and none */
  token = $state('');
  control = $state('');
  variant = $state<'paper' | 'code'>('paper');
  rows = $state<'visual' | 'text'>('visual');
  /** of the one input, and of the library's edits: this stays whatever input is looked at meanwhile */
  #ofOne = $state.raw<Found>({});
  #ofSet = $state.raw<Found>({});
  /** what a gate compares, over a data set: of its first so many edits, at layers as “3,5,7”, all where nothing is typed */
  readonly gateSet: DataSetChoice;
  gateLimit = $state(100);
  gateLayers = $state('');
  gate = $state.raw<{ readonly report: GateReport; readonly seconds: number } | null>(null);
  error = $state.raw<WireError | null>(null);
  /** what is kept of sets, latest first; and of each view the one that it shows, if any */
  runs = $state.raw<readonly AttributionRun[]>([]);
  #shown = $state.raw<Partial<Record<AttributionView, string | null>>>({});
  #turn = 0;
  #setTurn = 0;
  #suggested = '';

  constructor(connection: Connection, jobs: Jobs, pictures: Pictures, condition: Condition) {
    this.#connection = connection;
    this.#jobs = jobs;
    this.#pictures = pictures;
    this.#condition = condition;
    this.gateSet = new DataSetChoice(connection, 'measuring');
    connection.on('attribution.changed', () => void this.readRuns());
  }

  readonly takesSet = $derived.by(() => this.view !== 'visual');
  /** whether the library's edits are looked into */
  readonly whole = $derived.by(() => this.overLibrary && this.takesSet);
  /** the attribution of what is in view, a set or one input, that runs, wherever it was begun; the one does not keep the other waiting */
  readonly job = $derived.by(() => {
    const kind = `attribution.${callOf[this.view]}`;
    const ofSet = this.whole || this.view === 'gate';
    return this.#jobs.running.find((job) => job.kind === kind && job.ownEngine === ofSet) ?? null;
  });
  readonly #found = $derived.by(() => (this.whole ? this.#ofSet : this.#ofOne));
  readonly visual = $derived.by(() => this.#found.visual ?? null);
  readonly modules = $derived.by(() => this.#found.modules ?? null);
  readonly modality = $derived.by(() => this.#found.modality ?? null);
  readonly proposal = $derived.by(() => this.#found.proposal ?? null);
  readonly runsInView = $derived.by(() => this.runs.filter(({ kind }) => kind === callOf[this.view]));
  /** the kept one that is in view; null where what is in view is not kept */
  readonly kept = $derived.by(() => {
    const ofSet = this.whole || this.view === 'gate';
    return (ofSet && this.runs.find(({ id }) => id === this.#shown[this.view])) || null;
  });
  /** what keeps the gate from being measured, in words; '' for nothing */
  readonly gateLacks = $derived.by(() => {
    if (this.gateSet.lacks) return this.gateSet.lacks;
    const last = (this.#condition.model?.layers ?? 2) - 2;
    const layers = listOf(this.gateLayers);
    if (layers?.every((layer) => layer <= last)) return '';
    return `Give layers from 0 to ${last}, such as ${Math.min(1, last)},${last}, or none for all.`;
  });
  readonly canRun = $derived.by(() => {
    if (!this.#condition.canAsk || this.job) return false;
    if (this.view === 'gate') return this.gateLacks === '';
    if (this.whole) return this.editsUsed > 0;
    return this.picture !== null && this.prompt.trim() !== '';
  });
  /** edits of the library a mean would be over */
  readonly editsUsed = $derived.by(() => {
    const counts = this.#condition.status?.counts;
    return counts ? counts.draft + counts.checked + counts.committed : 0;
  });
  /** whether an edit can act */
  readonly acts = $derived.by(() => this.edit !== null && this.#condition.canEdit);

  /** Takes an edit of the library, with its picture and question. */
  async takeEdit(id: number): Promise<void> {
    if (this.edit?.id === id) return;
    const turn = this.#change();
    try {
      const { edit } = await this.#connection.call('edits.show', { id });
      const { picture } = await this.#pictures.show(edit.picture);
      if (turn !== this.#turn) return;
      this.edit = edit;
      this.picture = picture;
      this.prompt = edit.prompt;
      this.overLibrary = false;
    } catch (thrown) {
      if (turn === this.#turn) this.error = toWireError(thrown);
    }
  }

  /** Looks at the input without its edit. */
  leaveEdit(): void {
    this.#change();
    this.edit = null;
  }

  async takeFile(file: Blob): Promise<void> {
    const turn = this.#change();
    try {
      const picture = await this.#pictures.add(file);
      if (turn === this.#turn) this.takePicture(picture);
    } catch (thrown) {
      if (turn === this.#turn) this.error = toWireError(thrown);
    }
  }

  /** Takes another picture; an edit that is there acts on it, as it does on its generality and locality samples. */
  takePicture(picture: Picture): void {
    this.#change();
    this.picture = picture;
  }

  /** Takes a demo picture, and its first prompt unless the person typed one. */
  takeSample(sample: SamplePicture): void {
    this.takePicture(sample.picture);
    if (this.edit || (this.prompt.trim() !== '' && this.prompt !== this.#suggested)) return;
    this.#suggested = sample.prompts[0] ?? '';
    this.prompt = this.#suggested;
  }

  /** What was found belongs to what it was asked of. */
  changed(): void {
    this.#change();
  }

  /** Proposes for an editor that changes other rows. */
  takeRows(rows: 'visual' | 'text'): void {
    this.#change();
    this.rows = rows;
    this.#setTurn++;
    this.#ofSet = { ...this.#ofSet, proposal: null };
    this.#show('layer', null);
  }

  async readRuns(): Promise<void> {
    try {
      this.runs = await this.#connection.call('attribution.runs', {});
    } catch (thrown) {
      this.error = toWireError(thrown);
    }
  }

  /** Shows one that is kept, in its own view. */
  async open({ id }: AttributionRun): Promise<void> {
    this.error = null;
    try {
      const { run, found } = await this.#connection.call('attribution.read', { run: id });
      this.#setTurn++;
      this.view = viewOf[found.kind];
      this.overLibrary = true;
      this.#takeKept(found, run.seconds);
      this.#show(this.view, id);
    } catch (thrown) {
      this.error = toWireError(thrown);
    }
  }

  #takeKept(found: AttributionFound, seconds: number): void {
    if (found.kind === 'gate') this.gate = { report: found.report, seconds };
    else if (found.kind === 'modules') this.#take(true, { modules: found.report });
    else if (found.kind === 'modality') this.#take(true, { modality: found.report });
    else {
      this.rows = found.report.rows;
      this.#take(true, { proposal: found.report });
    }
  }

  /** Removes one that is kept; what is in view of it goes too. */
  async remove(id: string): Promise<void> {
    const [view] = attributionViews.filter((one) => this.#shown[one] === id);
    try {
      await this.#connection.call('attribution.remove', { run: id });
      if (view === 'gate') this.gate = null;
      else if (view) this.#take(true, { [view === 'layer' ? 'proposal' : view]: null });
      if (view) this.#show(view, null);
    } catch (thrown) {
      this.error = toWireError(thrown);
    }
    await this.readRuns();
  }

  #show(view: AttributionView, id: string | null): void {
    this.#shown = { ...this.#shown, [view]: id };
  }

  /** A job over a set has ended and is in view: from now on as what is kept of it. */
  async #showKept(view: AttributionView, job: string): Promise<void> {
    await this.readRuns();
    this.#show(view, this.runs.find((run) => run.job === job)?.id ?? null);
  }

  async run(): Promise<void> {
    if (!this.canRun) return;
    this.error = null;
    const { view, edit, picture, variant, rows, whole } = this;
    if (view === 'gate') {
      await this.#measureGate();
      return;
    }
    const prompt = this.prompt.trim();
    const one = {
      ...(picture && { picture: picture.id }),
      ...(prompt && { prompt }),
      ...(this.acts && edit && { edit: edit.id }),
    };
    const of = whole ? { select: { filter: usedEdits } } : one;
    if (view === 'visual') {
      const visual = await this.#call('attribution.visual', { of: one, variant }, whole);
      this.#take(whole, visual && { visual });
    } else if (view === 'modules') {
      const [token, control] = whole ? ['', ''] : [this.token.trim(), this.control.trim()];
      const keys = { ...(token && { token }), ...(control && { control }) };
      const modules = await this.#call('attribution.modules', { of, ...keys }, whole);
      this.#take(whole, modules && { modules });
    } else if (view === 'modality') {
      const modality = await this.#call('attribution.modality', { of, noise: {} }, whole);
      this.#take(whole, modality && { modality });
    } else {
      const proposal = await this.#call('attribution.propose', { of, rows }, whole);
      this.#take(whole, proposal && { proposal });
    }
  }

  #take(whole: boolean, found: Found | null): void {
    if (!found) return;
    if (whole) this.#ofSet = { ...this.#ofSet, ...found };
    else this.#ofOne = { ...this.#ofOne, ...found };
  }

  /** It is of a set, whatever picture is looked at meanwhile. */
  async #measureGate(): Promise<void> {
    const { data, images } = this.gateSet;
    const layers = listOf(this.gateLayers) ?? [];
    this.gate = null;
    this.#show('gate', null);
    try {
      const asked = {
        ...{ data, ...(images.trim() && { images }), limit: this.gateLimit },
        ...(layers.length > 0 && { layers }),
      };
      const { id, result } = this.#jobs.start('attribution.gate', asked, { ownEngine: true });
      this.gate = await result;
      await this.#showKept('gate', id);
    } catch (thrown) {
      const error = toWireError(thrown);
      if (error.code !== 'cancelled') this.error = error;
    }
  }

  stop(): void {
    if (this.job) void this.#jobs.cancel(this.job.id);
  }

  /** Null where it failed, was stopped, or is no longer what is asked. */
  async #call<N extends CallName>(
    name: N,
    input: CallInput<N>,
    whole: boolean,
  ): Promise<CallOutput<N> | null> {
    const turn = whole ? this.#setTurn : this.#turn;
    const current = () => turn === (whole ? this.#setTurn : this.#turn);
    const { view } = this;
    try {
      const { id, result } = this.#jobs.start(name, input, { ownEngine: whole });
      const found = await result;
      if (whole && current()) await this.#showKept(view, id);
      return current() ? found : null;
    } catch (thrown) {
      const error = toWireError(thrown);
      if (current() && error.code !== 'cancelled') this.error = error;
      return null;
    }
  }

  #change(): number {
    this.#ofOne = {};
    this.error = null;
    return ++this.#turn;
  }
}

/** Layers typed as “3,5,7”, ascending, each once; none for nothing; null for what is no list. */
function listOf(text: string): number[] | null {
  if (text.trim() === '') return [];
  const parts = text.split(',').map((part) => part.trim());
  if (parts.some((part) => !/^\d{1,4}$/.test(part))) return null;
  return [...new Set(parts.map(Number))].toSorted((a, b) => a - b);
}
