/** @file Applications on throw-away libraries, and engines without a model: one that is down, one that keeps a log. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterEach } from 'vitest';
import { type Application, createApplication } from '../../electron/api/application.ts';
import type { EngineState, ModelSummary } from '../../electron/api/contract.ts';
import type { EngineClient } from '../../electron/api/engineClient.ts';
import type { EngineOperations, OperationName } from '../../electron/engine/protocol.ts';
import { EmendError } from '../../electron/errors.ts';
import { committedIds, isPrepared, openReader } from '../../electron/library/reader.ts';
import type { ScopeFacts } from '../../electron/library/scopes.ts';

const applications: Application[] = [];
const folders: string[] = [];

afterEach(async () => {
  for (const application of applications.splice(0)) await application.close();
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true });
});

/** A folder that is gone after the test. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'emend-api-'));
  folders.push(folder);
  return folder;
}

/** A folder that looks enough like a checkpoint to be chosen. */
export function modelFolder(parent: string, name: string): string {
  const folder = join(parent, name);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'config.json'), '{}');
  return folder;
}

export function makeApplication(
  engine: EngineClient,
  resources = temporaryFolder(),
  libraryPath?: string,
): Application {
  const path = libraryPath ?? join(temporaryFolder(), 'api.emend');
  const application = createApplication({ libraryPath: path, resources, engine, version: '0.0.1' });
  applications.push(application);
  return application;
}

export const pngBase64 = async (shade: number): Promise<string> =>
  (
    await sharp({ create: { width: 8, height: 6, channels: 3, background: { r: shade, g: 0, b: 0 } } })
      .png()
      .toBuffer()
  ).toString('base64');

const idle: EngineState = { state: 'ready', message: '', provider: null, refusals: [], memoryBytes: null };

/** The engine of a machine on which it does not start. */
export const deadEngine: EngineClient = {
  call: () => Promise.reject(new EmendError('engine', 'The engine ended with exit code 1.')),
  state: { ...idle, state: 'failed', message: 'The engine ended with exit code 1.' },
  onState: () => () => undefined,
  onRestart: () => () => undefined,
};

/** An engine that is busy for ever: a call ends when it is cancelled. */
export const busyEngine: EngineClient = {
  ...deadEngine,
  state: { ...idle, state: 'busy' },
  call: (_name, _input, options) =>
    new Promise((_resolve, reject) => {
      const stop = () => reject(new EmendError('cancelled', 'Stopped.'));
      if (options?.signal?.aborted) stop();
      options?.signal?.addEventListener('abort', stop);
    }),
};

function summaryOf({ path, adapter }: EngineOperations['open']['input']): ModelSummary {
  const shape = {
    layers: 2,
    hidden: 4,
    parameters: 100,
    visualTokens: 4,
    pictureRows: { least: 4, most: 4, limit: null },
    checkpoint: `model of ${path}`,
    takes: { turns: true, pictures: false },
    dtype: 'F32',
    weights: 'dense' as const,
    architecture: 'llava',
  };
  return {
    ...{ path, name: path.split('/').at(-1)!, fingerprint: `model of ${path}` },
    ...shape,
    adapter: adapter === null ? null : adapterOf(adapter),
  };
}

const adapterOf = (path: string) => {
  return {
    name: 'adapter',
    path,
    fingerprint: `adapter of ${path}`,
    editor: 'VisEdit',
    where: 'layer 1',
    ...{ acts: 'visual rows', settings: null, facts: [], map: false, weights: 'dense' as const },
    scope: { form: 'cosine' as const, fingerprint: `scope of ${path}`, curve: [] },
  };
};

const scopeFacts: ScopeFacts = {
  fingerprint: 'scope',
  candidates: 2,
  thresholds: [{ from: 0, picture: 1, thing: 1 }],
};

const key = new Int8Array([127, 0]);
const description = { key, editKeys: { picture: key, thing: key }, detail: new Uint8Array(1) };

/** An engine that holds no model: it opens whatever it is told to, takes up committed edits, keeps a log, and can be restarted. */
export function loggingEngine() {
  const log: Array<{ name: OperationName; input: unknown }> = [];
  const restarts = new Set<() => void>();
  const states = new Set<(state: EngineState) => void>();
  let state = idle;
  /** the committed edits that act, and the count of changes they are of */
  let held: { ids: readonly number[]; changes: number } = { ids: [], changes: -1 };
  /** settled while there is an engine: calls wait for it */
  let up = Promise.withResolvers<void>();
  up.resolve();
  /** settled unless a call takes as long as the test says */
  const awaited = new Map<OperationName, Promise<void>>();
  const hold = (name: OperationName) => {
    const { promise, resolve } = Promise.withResolvers<void>();
    awaited.set(name, promise);
    return resolve;
  };
  const answers: {
    [N in OperationName]?: (input: EngineOperations[N]['input']) => EngineOperations[N]['output'];
  } = {
    open: (input) => ({
      summary: summaryOf(input),
      scope: input.adapter === null ? null : scopeFacts,
      provider: 'cpu',
      refusals: [{ provider: 'cuda', reason: 'none here' }],
    }),
    // As the real one, it reads the library itself.
    activate: ({ library, actors, template }) => {
      const store = openReader(library, { actors, template });
      const { ids, changes } = committedIds(store);
      const missing = ids.filter((id) => !isPrepared(store, id, 2));
      store.close();
      if (missing.length === 0) held = { ids, changes };
      return { missing, changes: held.changes };
    },
    sign: ({ edits }) => ({
      signals: edits.map(({ id }) => ({ id, signal: new Uint8Array([id]), influence: null })),
    }),
    describe: ({ inputs }) => ({
      results: inputs.map(() => ({ described: description, matches: [], unedited: null })),
      changes: held.changes,
    }),
    settle: ({ inputs }) => ({ matches: inputs.map(() => []), changes: held.changes }),
    compare: ({ edits }) => ({ commits: held.changes, inputs: -1, edits, pairs: [], drafts: [] }),
  };
  const client: EngineClient = {
    async call(name, input, options) {
      log.push({ name, input });
      // What would need a model takes for ever: it ends when it is cancelled.
      if (name === 'preview' || name === 'answer') return busyEngine.call(name, input, options);
      const answer = answers[name];
      if (!answer) throw new EmendError('engine', 'No model here.');
      await up.promise;
      await awaited.get(name);
      if (options?.signal?.aborted) throw new EmendError('cancelled', 'Stopped.');
      return answer(input);
    },
    get state() {
      return state;
    },
    onState: (listener) => {
      states.add(listener);
      return () => void states.delete(listener);
    },
    onRestart: (listener) => {
      restarts.add(listener);
      return () => void restarts.delete(listener);
    },
  };
  const setState = (next: EngineState) => {
    state = next;
    for (const listener of states) listener(next);
  };
  return {
    client,
    log,
    acting: () => held.ids,
    /** from now on a model takes to open, or edits to be taken up, until the returned function is called */
    holdOpenings: () => hold('open'),
    holdActivations: () => hold('activate'),
    /** from now on no adapter fits any model */
    refuseAdapters: () => {
      const open = answers.open!;
      answers.open = (input) => {
        if (input.adapter === null) return open(input);
        throw new EmendError('invalid-input', 'The adapter was trained for another model.');
      };
    },
    /** from now on it ends whenever it is to open a model */
    endWhenOpening: () => {
      answers.open = () => {
        throw new EmendError('engine', 'The engine ran out of memory.');
      };
    },
    die: () => {
      held = { ids: [], changes: -1 };
      up = Promise.withResolvers();
      setState({ ...idle, state: 'restarting', message: 'The engine was killed. Starting it again.' });
    },
    comeBack: () => {
      up.resolve();
      setState(idle);
      for (const listener of restarts) listener();
    },
  };
}
