/** @file A scope of random vectors, and libraries of edits for it: what decides is real, only what a model sees is drawn. */
import { createHash } from 'node:crypto';
import type { DisturbingPair } from '../../electron/api/contract.ts';
import { KeyBank, quantiseKey } from '../../electron/editors/scope/keyBank.ts';
import { MemoryBank } from '../../electron/editors/scope/memoryBank.ts';
import { decide, type Scope, type ScopeInput } from '../../electron/editors/scope/scope.ts';
import { CommittedInputs, type ComparisonRequest, compare } from '../../electron/engine/comparing.ts';
import { keepActing } from '../../electron/library/acting.ts';
import { rememberAnswers } from '../../electron/library/answers.ts';
import { type Check, type CheckPlan, planCheck, recordCheck } from '../../electron/library/checks.ts';
import { disturbancesIn, pairsOf, wantedOf } from '../../electron/library/disturbance.ts';
import { commitEdit, createEdit } from '../../electron/library/edits.ts';
import type { Library } from '../../electron/library/library.ts';
import {
  type DecidedCheck,
  decideCheck,
  resultOf,
  signalName,
  type WantedAnswer,
  wantedAnswers,
} from '../../electron/library/localCheck.ts';
import { inputDescription } from '../../electron/library/reader.ts';
import { actingRows, editRow, ownProbes } from '../../electron/library/rows.ts';
import {
  type DescribedInput,
  findInput,
  KEPT_PER_CANDIDATE,
  type KeptMatch,
  keepInputs,
  unsettledInputs,
  unsettleWithout,
} from '../../electron/library/scopeInputs.ts';
import { commitChanges, thresholdSteps } from '../../electron/library/scopes.ts';
import { readSettings } from '../../electron/library/settings.ts';
import { type Comparison, settleInputs } from '../../electron/library/watched.ts';

export const WIDTH = 16;

/** Numbers in −1..1, the same for the same text. */
function numbersOf(text: string, count: number): number[] {
  const bytes: number[] = [];
  for (let block = 0; bytes.length < 2 * count; block++) {
    bytes.push(...createHash('sha256').update(`${block} ${text}`).digest());
  }
  return Array.from({ length: count }, (_, i) => (bytes[2 * i]! * 256 + bytes[2 * i + 1]!) / 32767.5 - 1);
}

/** Prompts look like "topic 3, 17?": those of one topic are near each other. */
export function describeInput(picture: string, prompt: string): ScopeInput {
  const name = `${picture} ${prompt}`;
  const known = described.get(name) ?? draw(picture, prompt);
  described.set(name, known);
  return known;
}

const described = new Map<string, ScopeInput>();

function draw(picture: string, prompt: string): ScopeInput {
  const topic = /topic \d+/.exec(prompt)?.[0] ?? prompt;
  const [centre, own] = [numbersOf(topic, WIDTH), numbersOf(`${picture} ${prompt}`, WIDTH)];
  const vector = centre.map((value, i) => value + 0.55 * own[i]!);
  const nearby = (name: string) => {
    const noise = numbersOf(`${name} ${picture} ${prompt}`, WIDTH);
    return quantiseKey(vector.map((value, i) => value + 0.1 * noise[i]!));
  };
  return {
    key: quantiseKey(vector),
    editKeys: { picture: nearby('picture'), thing: nearby('thing') },
    detail: new Uint8Array(Float32Array.from(vector).buffer),
  };
}

function cosine(a: Float32Array, b: Float32Array): number {
  let [dot, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    dot += a[i]! * b[i]!;
    aa += a[i]! ** 2;
    bb += b[i]! ** 2;
  }
  return dot / Math.sqrt(aa * bb);
}

/** The score is not what the key says, so that order by key and by score differ; thresholds rise with the library. */
export function randomScope(brackets: readonly number[], candidates = 3): Scope {
  const vectorOf = (detail: Uint8Array) => new Float32Array(detail.slice().buffer);
  return {
    form: 'learned',
    fingerprint: `random ${brackets.join()} ${candidates}`,
    keyWidth: WIDTH,
    candidates,
    cuts: [],
    curve: [],
    describe: async () => null,
    score: async (input, edits) =>
      Float32Array.from(edits, ({ detail, reach }) => {
        const [one, other] = [vectorOf(input), vectorOf(detail)];
        const twist = one[0]! * other[1]! - one[1]! * other[0]!;
        return 4 * cosine(one, other) + 0.8 * Math.sin(9 * twist) + (reach === 'thing' ? 0.3 : 0);
      }),
    threshold: (committed, reach) =>
      2.2 + 0.15 * brackets.filter((size) => size <= committed).length + (reach === 'thing' ? 0.2 : 0),
    dispose: async () => {},
  };
}

/** What stands between a library and a model, without one: descriptions and answers are drawn from the texts. */
export class DrawnModel {
  readonly library: Library;
  readonly scope: Scope;
  readonly #inputs: CommittedInputs;

  constructor(library: Library, scope: Scope) {
    this.library = library;
    this.scope = scope;
    keepActing(library, { model: 'm', adapter: 'a' }, 'plain', {
      fingerprint: scope.fingerprint,
      candidates: scope.candidates,
      thresholds: thresholdSteps(scope),
    });
    this.#inputs = new CommittedInputs(library, scope.keyWidth);
  }

  /** The committed edits in memory, with the given one among them or not, and without the one it replaces. */
  bank(withEdit: number | null = null, without: number | null = null): MemoryBank {
    const bank = new MemoryBank(WIDTH);
    const acting = actingRows(this.library)
      .map(({ id }) => id)
      .filter((id) => id !== without);
    const ids = [...acting, ...(withEdit === null ? [] : [withEdit])];
    for (const id of ids) {
      const { picture, prompt, reach } = editRow(this.library, id);
      bank.add(id, reach, describeInput(picture, prompt));
    }
    return bank;
  }

  /** Which edit acts on an input, by asking every committed edit. */
  async actor(picture: string, prompt: string, bank: MemoryBank): Promise<number | null> {
    return (await decide(this.scope, describeInput(picture, prompt), bank)).acting?.edit ?? null;
  }

  /** Answers say the acting edit's target, now and then what another edit's is too. */
  answer(prompt: string, edit: number | null): string {
    return edit === null ? `nothing about ${prompt}` : editRow(this.library, edit).target;
  }

  async #matches(key: Int8Array, detail: Uint8Array): Promise<KeptMatch[]> {
    const keys = new KeyBank(WIDTH);
    const rows = new Map(actingRows(this.library).map((row) => [row.id, row]));
    for (const { id, reach, picture, prompt } of rows.values()) {
      keys.add(id, describeInput(picture, prompt).editKeys[reach]);
    }
    const near = keys.nearest(key, KEPT_PER_CANDIDATE * this.scope.candidates);
    const entries = near.map(({ id }) => {
      const { reach, picture, prompt } = rows.get(id)!;
      return { reach, detail: describeInput(picture, prompt).detail };
    });
    const scores = await this.scope.score(detail, entries);
    return near.map(({ id, product }, i) => ({
      edit: id,
      reach: entries[i]!.reach,
      product,
      score: scores[i]!,
    }));
  }

  /** Keeps what the scope would say of inputs. */
  async look(inputs: ReadonlyArray<{ picture: string | null; prompt: string }>): Promise<void> {
    const made: DescribedInput[] = [];
    for (const { picture, prompt } of inputs) {
      if (picture === null || findInput(this.library, picture, prompt)) continue;
      const described = describeInput(picture, prompt);
      made.push({
        picture,
        prompt,
        described,
        matches: await this.#matches(described.key, described.detail),
      });
    }
    this.library.write(() => keepInputs(this.library, made, commitChanges(this.library)));
  }

  /** Finds matches anew where too many were retired. */
  async settle(): Promise<void> {
    const { library } = this;
    const inputs = unsettledInputs(library, 100_000);
    const matches: KeptMatch[][] = [];
    for (const input of inputs) {
      const { key, detail } = inputDescription(library, input, WIDTH);
      matches.push(await this.#matches(key, detail));
    }
    library.write(() => settleInputs(library, inputs, matches, commitChanges(library)));
  }

  compare(request: ComparisonRequest): Promise<Comparison> {
    return compare(this.library, this.scope, this.#inputs, request, async () => {});
  }

  /** A check as the application runs it. */
  async decide(
    id: number,
    supersede: number | null = null,
  ): Promise<{ plan: CheckPlan; decided: DecidedCheck }> {
    const { library } = this;
    if (supersede !== null) library.write(() => unsettleWithout(library, supersede));
    await this.settle();
    const plan = planCheck(library, id, supersede);
    await this.look(plan.probes.map(({ probe }) => probe));
    const inputs = plan.probes.flatMap(({ probe: { picture, prompt } }) =>
      picture === null ? [] : findInput(library, picture, prompt)!.id,
    );
    const comparison = await this.compare({ edits: [id], with: 'probes', inputs: [...new Set(inputs)] });
    return { plan, decided: decideCheck(library, plan, comparison) };
  }

  async check(id: number, supersede: number | null = null): Promise<Check> {
    const { library } = this;
    const { plan, decided } = await this.decide(id, supersede);
    this.#remember(wantedAnswers(library, decided.probes), plan.maxNewTokens);
    const results = decided.probes.map((probe) => resultOf(library, probe));
    const { unchanged, watched } = decided;
    return recordCheck(library, plan, {
      ...{ results, unchanged, watched, everywhere: false, seconds: 0, editor: 'VisEdit' },
    });
  }

  /** Which of some checked drafts disturb each other, as the application finds it. */
  async disturbing(edits: readonly number[]): Promise<DisturbingPair[]> {
    const { library } = this;
    const found = disturbancesIn(library, await this.compare({ edits, with: 'each other', inputs: [] }));
    this.#remember(wantedOf(library, found), readSettings(library).maxNewTokens);
    return pairsOf(library, found);
  }

  #remember(wanted: readonly WantedAnswer[], maxNewTokens: number): void {
    const { library } = this;
    const answers = wanted.map(({ picture, prompt, edits }) => ({
      picture: picture ?? '',
      prompt,
      signal: signalName(library, edits),
      text: this.answer(prompt, edits[0] ?? null),
    }));
    library.write(() => rememberAnswers(library, answers, maxNewTokens));
  }

  /** Commits an edit as the application does; its own probes are known by then. */
  async commit(id: number, supersede?: number): Promise<void> {
    const { library } = this;
    await this.settle();
    await this.look(ownProbes(library, editRow(library, id)));
    const comparison = await this.compare({ edits: [id], with: 'all', inputs: [] });
    commitEdit(library, id, { reason: 'drawn', comparison, supersede });
  }

  /** A draft about a topic, with a probe that must change and one that must stay. */
  draft(picture: string, topic: number, number: number, reach: 'picture' | 'thing' = 'picture'): number {
    const { id } = createEdit(this.library, {
      ...{ picture, prompt: `topic ${topic}, ${number}?`, target: `target ${number % 7}`, reach },
      probes: [
        { kind: 'text-generality', picture: null, prompt: `topic ${topic}, ${number} again?` },
        { kind: 'same-picture', picture: null, prompt: `topic ${topic}, something else ${number}?` },
      ],
    });
    return id;
  }
}
