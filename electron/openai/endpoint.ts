/** @file The endpoint as people switch it: on and off, its port, its key, and the folders whose pictures may be named. */
import { realpath, stat } from 'node:fs/promises';
import type { EndpointState } from '../api/contract.ts';
import { EmendError } from '../errors.ts';
import { type EndpointSettings, readEndpointFile, writeEndpointFile } from './endpointFile.ts';
import { makeKey } from './key.ts';
import { type ChatService, type RunningEndpoint, startEndpoint } from './server.ts';

export interface EndpointChanges {
  readonly enabled?: boolean | undefined;
  readonly port?: number | undefined;
  readonly folders?: readonly string[] | undefined;
}

export class Endpoint {
  readonly #file: string;
  readonly #service: ChatService;
  #running: RunningEndpoint | null = null;
  /** why it is not running although it is enabled */
  #problem: string | null = null;
  #work: Promise<unknown> = Promise.resolve();

  /** @param file where it is kept how the endpoint was set */
  constructor(file: string, service: ChatService) {
    this.#file = file;
    this.#service = service;
  }

  async state(): Promise<EndpointState> {
    return this.#stateOf(await readEndpointFile(this.#file));
  }

  /**
   * Changes how the endpoint is set, starts it, stops it, or starts it anew. `key`: the new one, where there was none before.
   * @throws EmendError 'invalid-input' for a folder that is none, 'conflict' when the port is taken; then nothing changed
   */
  set(changes: EndpointChanges): Promise<{ state: EndpointState; key: string | null }> {
    return this.#alone(async () => {
      const kept = await readEndpointFile(this.#file);
      const folders = changes.folders ? await Promise.all(changes.folders.map(demandFolder)) : kept.folders;
      const made = (changes.enabled ?? kept.enabled) && !kept.key ? makeKey() : null;
      const settings: EndpointSettings = {
        enabled: changes.enabled ?? kept.enabled,
        port: changes.port ?? kept.port,
        folders: [...new Set(folders)],
        key: made?.kept ?? kept.key,
      };
      await this.#restart(settings, kept);
      await writeEndpointFile(this.#file, settings);
      return { state: this.#stateOf(settings), key: made?.key ?? null };
    });
  }

  /** A new key; the old one is answered no more. */
  newKey(): Promise<{ state: EndpointState; key: string }> {
    return this.#alone(async () => {
      const kept = await readEndpointFile(this.#file);
      const made = makeKey();
      const settings = { ...kept, key: made.kept };
      await writeEndpointFile(this.#file, settings);
      await this.#restart({ ...settings, enabled: this.#running !== null }, kept);
      return { state: this.#stateOf(settings), key: made.key };
    });
  }

  /** Starts it where it was left switched on. What hinders it is told by its state. */
  startAsSet(): Promise<void> {
    return this.#alone(async () => {
      const settings = await readEndpointFile(this.#file);
      if (!settings.enabled || this.#running) return;
      await this.#restart(settings, settings).catch((error: Error) => {
        this.#problem = error.message;
      });
    });
  }

  /**
   * Serves once, however it is set: for a program that does nothing else. Waits for the model.
   * @param folders beside those that were set
   * @throws EmendError when no model is open, or the port or a folder cannot be had
   */
  serve(
    port: number | undefined,
    folders: readonly string[],
    { queue, newKey }: { readonly queue: number; readonly newKey: boolean },
  ): Promise<{ url: string; name: string; key: { made: string } | { hint: string } }> {
    return this.#alone(async () => {
      const kept = await readEndpointFile(this.#file);
      const named = await Promise.all(folders.map(demandFolder));
      const { name } = await this.#service.model();
      const made = newKey || !kept.key ? makeKey() : null;
      const key = made?.kept ?? kept.key!;
      await this.#running?.close();
      this.#running = await startEndpoint({
        ...{ service: this.#service, key, queue },
        port: port ?? kept.port,
        folders: [...kept.folders, ...named],
      });
      if (made) await writeEndpointFile(this.#file, { ...kept, key });
      return { url: this.#running.url, name, key: made ? { made: made.key } : { hint: key.hint } };
    });
  }

  async close(): Promise<void> {
    await this.#alone(async () => {
      await this.#running?.close();
      this.#running = null;
    });
  }

  /** Runs the endpoint as `settings` say; where that fails, as `before` did. */
  async #restart(settings: EndpointSettings, before: EndpointSettings): Promise<void> {
    const ran = this.#running;
    await ran?.close();
    this.#running = null;
    this.#problem = null;
    if (!settings.enabled || !settings.key) return;
    const start = ({ port, folders, key }: EndpointSettings) =>
      startEndpoint({ service: this.#service, port, folders, key: key! });
    try {
      this.#running = await start(settings);
    } catch (error) {
      if (ran && before.key) this.#running = await start(before).catch(() => null);
      throw error;
    }
  }

  #stateOf({ enabled, port, folders, key }: EndpointSettings): EndpointState {
    return {
      ...{ enabled, port, folders: [...folders] },
      key: key && { hint: key.hint, created: key.created },
      address: this.#running?.url ?? null,
      problem: this.#problem,
    };
  }

  #alone<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#work.then(work);
    this.#work = result.catch(() => undefined);
    return result;
  }
}

/** The real path of a folder. @throws EmendError 'not-found', 'invalid-input' for a file */
export async function demandFolder(path: string): Promise<string> {
  const real = await realpath(path).catch((cause: unknown) => {
    throw new EmendError('not-found', `There is no folder ${path}. Check the path.`, { cause });
  });
  if ((await stat(real)).isDirectory()) return real;
  throw new EmendError('invalid-input', `${path} is a file. Name the folder it is in.`);
}
