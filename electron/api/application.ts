/**
 * @file The application without a face: library, engine and open model behind the contract. Every front end has one.
 */
import { dirname, join } from 'node:path';
import { forkEngine } from '../engine/forkEngine.ts';
import { type Engine, startEngine } from '../engine/supervisor.ts';
import { keepJob, keptJobs } from '../library/jobRecords.ts';
import { openLibrary } from '../library/library.ts';
import { countEdits } from '../library/lists.ts';
import { Endpoint } from '../openai/endpoint.ts';
import type { Provider } from '../tensor/session.ts';
import { Attributions } from './attributions.ts';
import { Benchmarks } from './benchmarks.ts';
import type { Backend, Status } from './contract.ts';
import type { EngineClient } from './engineClient.ts';
import { EnginePool } from './enginePool.ts';
import { EngineTurns } from './engineTurns.ts';
import { type AnyEvent, Events } from './events.ts';
import { answerHandlers } from './handlers/answers.ts';
import { appHandlers } from './handlers/app.ts';
import { attributionHandlers } from './handlers/attribution.ts';
import { benchmarkHandlers } from './handlers/benchmarks.ts';
import { checkHandlers } from './handlers/checks.ts';
import { editHandlers } from './handlers/edits.ts';
import { chatService, endpointHandlers } from './handlers/endpoint.ts';
import { listHandlers } from './handlers/lists.ts';
import { modelHandlers } from './handlers/models.ts';
import { pictureHandlers } from './handlers/pictures.ts';
import { probeHandlers } from './handlers/probes.ts';
import { settingsHandlers } from './handlers/settings.ts';
import { trainingHandlers } from './handlers/training.ts';
import { Jobs, MOST_KEPT } from './jobs.ts';
import { ModelSession } from './modelSession.ts';
import type { Parts } from './parts.ts';
import { seedStandingSet } from './resources.ts';
import { createRouter, type Dispatch, type Handlers } from './router.ts';
import { Trainings } from './trainings.ts';

export interface ApplicationOptions {
  readonly libraryPath: string;
  /** folder with the demo model, samples and standing probes; any of them may be missing */
  readonly resources: string;
  readonly engine: EngineClient;
  readonly version: string;
  /** what to open at start: the model used last (else the demo model), or nothing. Default `last`. */
  readonly startModel?: 'last' | 'none';
  /** execution providers to try, in order, in place of those of the library's settings */
  readonly providers?: readonly Provider[];
  /** folder of packed weights where the settings name none; `packed` beside the library when absent */
  readonly packedFolder?: string;
  /** where trainings keep what frozen models make of pictures; `picture-cache` beside the library when absent */
  readonly pictureCacheFolder?: string;
  /** starts an engine process beside that one, for what takes long; the application ends it. Default: a Node child process */
  readonly startLongEngine?: () => Engine;
  /** folder of trainings; `trainings` beside the library when absent */
  readonly trainingFolder?: string;
  /** folder of comparisons of editors; `benchmarks` beside the library when absent */
  readonly benchmarkFolder?: string;
  /** folder of attributions over sets; `attributions` beside the library when absent */
  readonly attributionFolder?: string;
  /** folder of the adapters that come of trainings; `adapters` beside the library when absent */
  readonly adaptersFolder?: string;
  /** where it is kept how the endpoint for other programs was set; `endpoint.json` beside the library when absent */
  readonly endpointFile?: string;
}

export interface Application extends Backend {
  /** `call` for what comes from outside: name and input unknown, and checked */
  readonly dispatch: Dispatch;
  /** Hears every event. Returns a function that stops it. */
  onAny(listener: (event: AnyEvent) => void): () => void;
  /** The endpoint for other programs; a front end that stays says when it is to be started. */
  readonly endpoint: Endpoint;
  /** Stops jobs and what was started for them, and closes the library. The engine that answers is its owner's to stop. */
  close(): Promise<void>;
}

/** How long closing waits for jobs to stop, in milliseconds. */
const PATIENCE = 3000;

/**
 * Opens the library and, in the background, the model.
 * @throws EmendError as `openLibrary`
 */
export function createApplication(options: ApplicationOptions): Application {
  const { version, resources } = options;
  const library = openLibrary(options.libraryPath);
  const events = new Events();
  const jobs = new Jobs({
    onChange: (job) => events.emit({ name: 'jobs.changed', payload: { job } }),
    keep: (job) => {
      try {
        keepJob(library, job, MOST_KEPT);
      } catch {
        // A library that cannot be written to tells whoever changes it; the job is known until the application ends.
      }
    },
    kept: keptJobs(library),
  });
  events.on('job.progress', ({ job, ...at }) => jobs.progress(job, at));
  const engine = new EngineTurns(
    options.engine,
    () => jobs.current,
    (turn) => jobs.engineTurn(turn),
  );
  const longEngines = new EnginePool({
    start: options.startLongEngine ?? (() => startEngine({ launch: () => forkEngine() })),
    job: () => jobs.current,
    onWaiting: (waiting) => jobs.waitForRoom(waiting),
  });
  let closed = false;

  const status = (): Status => {
    const edits = countEdits(library);
    return {
      version,
      library: { path: library.file, name: library.name, readOnly: library.readOnly },
      engine: session.engineState,
      model: session.model,
      counts: {
        draft: edits.draft + edits.failed + edits.stale,
        checked: edits.checked,
        committed: edits.committed,
        retired: edits.retired,
      },
      edits,
    };
  };
  const tellStatus = () => {
    if (!closed) events.emit({ name: 'app.status', payload: status() });
  };
  const actorsNow = () => JSON.stringify([library.actors, library.template]);
  let actors = actorsNow();
  const session = new ModelSession({
    engine,
    library,
    resources,
    providers: options.providers,
    packedFolder: options.packedFolder ?? join(dirname(library.file), 'packed'),
    onChange: () => {
      tellStatus();
      // How edits stand depends on the model and the adapter that act, and on the form of prompts.
      if (actorsNow() === actors) return;
      actors = actorsNow();
      if (!closed) events.emit({ name: 'library.changed', payload: { edits: [] } });
    },
  });

  library.onChange((edits) => {
    if (edits?.length !== 0) events.emit({ name: 'library.changed', payload: { edits: edits ?? [] } });
    tellStatus();
    session.bringInStep();
  });

  const seeded = seedStandingSet(resources, library);
  // Whoever needs the standing set is told; nobody else is stopped by it.
  seeded.catch(() => undefined);

  const adaptersFolder = options.adaptersFolder ?? join(dirname(library.file), 'adapters');
  const parts: Parts = {
    library,
    engine,
    longEngines,
    version,
    session,
    events,
    jobs,
    resources,
    status,
    seeded,
    adaptersFolder,
  };
  const endpointFile = options.endpointFile ?? join(dirname(library.file), 'endpoint.json');
  const endpoint = new Endpoint(endpointFile, chatService(parts));
  const trainings = new Trainings({
    ...{ engines: longEngines, session, events },
    folder: options.trainingFolder ?? join(dirname(library.file), 'trainings'),
    adapters: adaptersFolder,
    pictureCache: options.pictureCacheFolder ?? join(dirname(library.file), 'picture-cache'),
  });
  const benchmarks = new Benchmarks({
    ...{ engines: longEngines, session, events, library, resources, version },
    ...{ adaptersFolder, folder: options.benchmarkFolder ?? join(dirname(library.file), 'benchmarks') },
  });
  const attributions = new Attributions(
    options.attributionFolder ?? join(dirname(library.file), 'attributions'),
    events,
  );
  const handlers: Handlers = {
    ...appHandlers(parts),
    ...settingsHandlers(parts),
    ...modelHandlers(parts),
    ...pictureHandlers(parts),
    ...answerHandlers(parts),
    ...editHandlers(parts),
    ...listHandlers(parts),
    ...probeHandlers(parts),
    ...checkHandlers(parts),
    ...endpointHandlers(endpoint),
    ...attributionHandlers(parts, attributions),
    ...trainingHandlers(trainings),
    ...benchmarkHandlers(benchmarks),
  };
  const dispatch = createRouter(handlers, jobs);
  if (options.startModel !== 'none') session.openLast();

  return {
    dispatch,
    call: dispatch as Backend['call'],
    on: (name, listener) => events.on(name, listener),
    onAny: (listener) => events.onAny(listener),
    endpoint,
    close: async () => {
      if (closed) return;
      closed = true;
      await endpoint.close();
      session.close();
      await jobs.stop(PATIENCE);
      await longEngines.stop();
      await seeded.catch(() => undefined);
      library.close();
    },
  };
}
