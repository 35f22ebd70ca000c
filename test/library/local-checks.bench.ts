/**
 * @file What a check and a commit take in a library of 10,000 committed edits, against an empty one: the demo model, the whole application,
 * each alternately, after a first check that is told apart: it reads what is kept of all inputs; and whether the check of a draft about another picture outlives the commits. The committed edits are drawn: keys at random, so that they are near to inputs as unrelated edits are.
 * `EMEND_BENCH_EDITS`: another size.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createApplication } from '../../electron/api/application.ts';
import type { EngineClient } from '../../electron/api/engineClient.ts';
import { KeyBank, keyFromBytes } from '../../electron/editors/scope/keyBank.ts';
import { operations, release } from '../../electron/engine/operations.ts';
import { signalState } from '../../electron/library/freshness.ts';
import { openLibrary } from '../../electron/library/library.ts';
import { editRow } from '../../electron/library/rows.ts';
import { KEPT_PER_CANDIDATE, settleInput } from '../../electron/library/scopeInputs.ts';
import { inputState } from '../../electron/library/scopes.ts';
import { normalNumbers } from '../support/checkpointFixtures.ts';

const EDITS = Number(process.env['EMEND_BENCH_EDITS'] ?? 10_000);
const ROUNDS = 5;
const resources = join(import.meta.dirname, '../../resources');

/** The engine's operations in this process: what crosses to it is not what is measured. */
const engine: EngineClient = {
  state: { state: 'ready', message: '', provider: null, refusals: [], memoryBytes: null },
  call: (name, input, options) => {
    const signal = options?.signal ?? new AbortController().signal;
    // The table's type ties name, input and output together.
    const run = operations[name] as (input: unknown, context: unknown) => Promise<never>;
    return run(input, { signal, send: () => {} });
  },
  onState: () => () => {},
  onRestart: () => () => {},
};

const folder = mkdtempSync(join(tmpdir(), 'emend-local-checks-'));
try {
  const empty = await measuredLibrary('empty', 0);
  const full = await measuredLibrary('full', EDITS);
  const [bystanderOfEmpty, bystanderOfFull] = [await bystander(empty), await bystander(full)];
  const seconds = { empty: [] as number[], full: [] as number[] };
  const firsts = { empty: [] as number[], full: [] as number[] };
  const processor = { empty: [] as number[], full: [] as number[] };
  const commits = { empty: [] as number[], full: [] as number[] };
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, path] of [['empty', empty] as const, ['full', full] as const]) {
      const took = await checkIn(path, `What is this, round ${round}?`);
      seconds[name].push(took.check);
      processor[name].push(took.processor);
      firsts[name].push(took.first);
      commits[name].push(took.commit);
    }
  }
  const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;
  const [without, withThem] = [median(seconds.empty), median(seconds.full)];
  console.log(
    `  a check: ${without.toFixed(2)} s in an empty library, ${withThem.toFixed(2)} s with ${EDITS} committed edits: ×${(withThem / without).toFixed(2)} (at most 1.3)`,
  );
  console.log(
    `  a commit: ${median(commits.empty).toFixed(2)} s in an empty library, ${median(commits.full).toFixed(2)} s with ${EDITS} committed edits`,
  );
  const fresh = (await isFresh(empty, bystanderOfEmpty)) && (await isFresh(full, bystanderOfFull));
  console.log(
    `  the check of a draft about another picture is ${fresh ? 'fresh' : 'STALE'} after all commits`,
  );
  console.log(
    `  the first check after opening: ${median(firsts.empty).toFixed(2)} s and ${median(firsts.full).toFixed(2)} s`,
  );
  const ratio = median(processor.full) / median(processor.empty);
  console.log(
    `  processor time of a check: ${median(processor.empty).toFixed(2)} s and ${median(processor.full).toFixed(2)} s: ×${ratio.toFixed(2)}`,
  );
  if (Math.min(ratio, withThem / without) > 1.3 || !fresh) process.exitCode = 1;
} finally {
  await release();
  rmSync(folder, { recursive: true, force: true });
}

function application(path: string) {
  return createApplication({ libraryPath: path, resources, engine, version: '0', startModel: 'none' });
}

async function opened(path: string) {
  const app = application(path);
  await app.call('models.open', { path: join(resources, 'demo-model') });
  // The first answer takes up what is committed.
  await app.call('answers.ask', { picture: null, prompt: 'Hello?', edits: 'committed', maxNewTokens: 1 });
  return app;
}

/** A checked draft about a picture that no other is about. */
async function bystander(path: string): Promise<number> {
  const app = await opened(path);
  const [, sample] = await app.call('pictures.samples', {});
  const draft = { picture: sample!.picture.id, prompt: 'What is that?', target: 'a test' };
  const { id } = await app.call('edits.create', draft);
  await app.call('checks.run', { edit: id });
  await app.close();
  return id;
}

async function isFresh(path: string, edit: number): Promise<boolean> {
  const app = await opened(path);
  const { check } = await app.call('edits.show', { id: edit });
  await app.close();
  return check!.fresh;
}

/** Seconds of a check of a new draft, and of its commit, the model open and the committed edits taken up. */
async function checkIn(
  path: string,
  prompt: string,
): Promise<{ check: number; first: number; processor: number; commit: number }> {
  const app = await opened(path);
  const [sample] = await app.call('pictures.samples', {});
  const make = (asked: string) =>
    app.call('edits.create', { picture: sample!.picture.id, prompt: asked, target: 'a test' });
  const begun = performance.now();
  await app.call('checks.run', { edit: (await make(`${prompt} First.`)).id });
  const first = (performance.now() - begun) / 1000;
  const { id } = await make(prompt);
  const [started, used] = [performance.now(), process.cpuUsage()];
  await app.call('checks.run', { edit: id });
  const checked = performance.now();
  const { user, system } = process.cpuUsage(used);
  const processor = (user + system) / 1e6;
  await app.call('edits.commit', { id, reason: 'measured' });
  const committed = performance.now();
  await app.close();
  return { check: (checked - started) / 1000, first, processor, commit: (committed - checked) / 1000 };
}

/** A library in which one check was run, and so many drawn edits are committed. */
async function measuredLibrary(name: string, edits: number): Promise<string> {
  const path = join(folder, `${name}.emend`);
  await checkIn(path, 'What is in the picture?');
  if (edits === 0) return path;
  const library = openLibrary(path);
  library.template = 'plain';
  library.write(() => commitDrawn(edits));
  library.close();
  return path;

  function commitDrawn(count: number): void {
    const { database } = library;
    const state = inputState(library);
    const model = database
      .prepare<[string | null], { id: number; picture: string; key: Buffer; detail: Buffer }>(
        `SELECT id, picture, "key" AS key, detail FROM scope_inputs JOIN scope_details ON input = id WHERE state = ? LIMIT 1`,
      )
      .get(state)!;
    const width = model.key.length;
    const normal = normalNumbers(11);
    const drawKey = () => {
      const vector = Float32Array.from({ length: width }, () => normal());
      const scale = 127 / Math.hypot(...vector);
      return Int8Array.from(vector, (value) => Math.round(value * scale));
    };
    const { model: modelPrint, adapter } = library.actors;
    const addEdit = database.prepare(
      `INSERT INTO edits (picture, prompt, target, note, stage, model, adapter, created, updated, committed, override_reason)
       VALUES (?, ?, 'drawn', '', 'draft', ?, ?, '', '', NULL, NULL)`,
    );
    const commit = database.prepare(
      `UPDATE edits SET stage = 'committed', committed = 'now', override_reason = 'drawn' WHERE id = ?`,
    );
    const addProbe = database.prepare('INSERT INTO probes (edit, kind, picture, prompt) VALUES (?, ?, ?, ?)');
    const addInput = database.prepare(
      `INSERT INTO scope_inputs (state, picture, prompt, "key", picture_key, thing_key, settled, owned, changed) VALUES (?, ?, ?, ?, ?, ?, 0, 1, ?)`,
    );
    const addDetail = database.prepare('INSERT INTO scope_details (input, detail) VALUES (?, ?)');
    const addSignal = database.prepare('INSERT INTO edit_signals (edit, state, signal) VALUES (?, ?, ?)');
    const bank = new KeyBank(width);
    const inputs: Array<{ id: number; key: Int8Array }> = [];
    for (let i = 0; i < count; i++) {
      const edit = Number(addEdit.run(model.picture, `drawn ${i}?`, modelPrint, adapter).lastInsertRowid);
      for (const [kind, prompt] of [
        ['reliability', `drawn ${i}?`],
        ['text-generality', `drawn ${i} again?`],
        ['same-picture', `drawn ${i} otherwise?`],
      ] as const) {
        addProbe.run(
          edit,
          kind,
          kind === 'reliability' ? null : model.picture,
          kind === 'reliability' ? '' : prompt,
        );
        const key = drawKey();
        const bytes = new Uint8Array(key.buffer);
        const id = Number(
          addInput.run(state, model.picture, prompt, bytes, bytes, bytes, 1_000_000 + inputs.length)
            .lastInsertRowid,
        );
        addDetail.run(id, model.detail);
        inputs.push({ id, key });
        if (kind === 'reliability') bank.add(edit, key);
      }
      commit.run(edit);
      // Never read: a drawn edit does not act.
      addSignal.run(edit, signalStateOf(edit), new Uint8Array(1));
    }
    const rest = database
      .prepare<[string | null], { id: number; key: Buffer }>(
        'SELECT id, "key" AS key FROM scope_inputs WHERE state = ? AND settled = 1',
      )
      .all(state)
      .map(({ id, key }) => ({ id, key: keyFromBytes(key, width) }));
    for (const { id, key } of [...inputs, ...rest]) {
      const near = bank.nearest(key, KEPT_PER_CANDIDATE * 8);
      const matches = near.map((one) => ({
        edit: one.id,
        reach: 'picture' as const,
        product: one.product,
        score: -100,
      }));
      settleInput(library, id, matches);
    }
    database.exec('DELETE FROM unreviewed');
  }

  function signalStateOf(edit: number): string {
    return signalState(library, editRow(library, edit));
  }
}
