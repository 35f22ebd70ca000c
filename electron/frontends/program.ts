/** @file Application and engine together, as every front end starts and ends them. */
import { mkdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { type Application, createApplication } from '../api/application.ts';
import { forkEngine } from '../engine/forkEngine.ts';
import { type Engine, type EngineProcess, startEngine } from '../engine/supervisor.ts';
import type { Provider } from '../tensor/session.ts';
import {
  dataFolder,
  defaultLibrary,
  packedFolder,
  pictureCacheFolder,
  resourcesFolder,
  version,
} from './places.ts';

export interface ProgramOptions {
  /** library file; made where there is none. Default: the one in the person's data folder */
  readonly library?: string;
  /** how the engine process is started. Default: a Node child process */
  readonly launch?: () => EngineProcess;
  readonly startModel?: 'last' | 'none';
  /** when the engine process is started. Default: at once, so that it is ready when something is asked */
  readonly beginEngine?: 'at once' | 'with the first call';
  /** execution providers to try, in order, in place of those of the library's settings */
  readonly providers?: readonly Provider[];
}

export interface Program {
  readonly application: Application;
  readonly engine: Engine;
  /** Ends jobs, library and engine processes. */
  close(): Promise<void>;
}

/**
 * Starts the engine process and opens the library.
 * @throws EmendError when the library cannot be opened
 */
export async function startProgram(options: ProgramOptions = {}): Promise<Program> {
  const libraryPath = resolve(options.library ?? defaultLibrary());
  mkdirSync(dirname(libraryPath), { recursive: true });
  const launch = options.launch ?? (() => forkEngine());
  const engine = startEngine({ launch, begin: options.beginEngine });
  try {
    const application = createApplication({
      libraryPath,
      resources: resourcesFolder(),
      engine,
      startLongEngine: () => startEngine({ launch }),
      trainingFolder: join(dataFolder(), 'trainings'),
      adaptersFolder: join(dataFolder(), 'adapters'),
      benchmarkFolder: join(dataFolder(), 'benchmarks'),
      attributionFolder: join(dataFolder(), 'attributions'),
      version: version(),
      startModel: options.startModel,
      providers: options.providers,
      packedFolder: packedFolder(),
      pictureCacheFolder: pictureCacheFolder(),
      endpointFile: join(dataFolder(), 'endpoint.json'),
    });
    return {
      application,
      engine,
      close: async () => {
        await application.close();
        await engine.stop();
      },
    };
  } catch (error) {
    await engine.stop();
    throw error;
  }
}
