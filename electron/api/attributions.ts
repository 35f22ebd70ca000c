/**
 * @file Attributions over sets of inputs, kept when they end: a folder each, the last so many.
 */
import { mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { z } from 'zod';
import { EmendError } from '../errors.ts';
import { readJson } from '../files/json.ts';
import { replaceFile } from '../files/replaceFile.ts';
import { AttributionFound, type AttributionId, AttributionRun } from './contract.ts';
import type { Events } from './events.ts';
import { latestFirst, newRunId, recordedRuns } from './runFolders.ts';

/** So many are kept. */
const MOST = 20;

export class Attributions {
  readonly #folder: string;
  readonly #events: Events;

  constructor(folder: string, events: Events) {
    this.#folder = folder;
    this.#events = events;
  }

  /** Latest first; folders that hold no attribution are passed over. */
  async list(): Promise<AttributionRun[]> {
    return latestFirst(await recordedRuns(this.#folder), (id) => this.#describe(id));
  }

  /** @throws EmendError 'not-found', 'damaged' */
  async read(id: string): Promise<{ run: AttributionRun; found: AttributionFound }> {
    const path = join(this.#folder, id, 'found.json');
    return { run: await this.#describe(id), found: parsed(AttributionFound, await readJson(path), path) };
  }

  /** Keeps one that has ended, in place of the oldest where there are many. @throws EmendError where it cannot be written */
  async keep(about: Omit<AttributionRun, 'id' | 'kind' | 'created'>, found: AttributionFound): Promise<void> {
    const id = newRunId();
    const run: AttributionRun = { ...about, id, kind: found.kind, created: new Date().toISOString() };
    await mkdir(join(this.#folder, id), { recursive: true });
    // What describes it comes last: without it there is no attribution.
    await this.#write(id, 'found.json', found);
    await this.#write(id, 'attribution.json', run);
    for (const old of (await this.list()).slice(MOST)) await this.#delete(old.id);
    this.#changed(id);
  }

  async remove(id: string): Promise<void> {
    await this.#delete(id);
    this.#changed(id);
  }

  async #describe(id: string): Promise<AttributionRun> {
    const path = join(this.#folder, id, 'attribution.json');
    return { ...parsed(AttributionRun, await readJson(path), path), id };
  }

  async #write(id: string, name: string, value: unknown): Promise<void> {
    const text = `${JSON.stringify(value)}\n`;
    await replaceFile(join(this.#folder, id, name), (handle) => handle.writeFile(text));
  }

  #delete(id: string): Promise<void> {
    return rm(join(this.#folder, id), { recursive: true, force: true });
  }

  #changed(run: z.infer<typeof AttributionId>): void {
    this.#events.emit({ name: 'attribution.changed', payload: { run } });
  }
}

function parsed<T>(schema: z.ZodType<T>, value: unknown, path: string): T {
  const found = schema.safeParse(value);
  if (found.success) return found.data;
  throw new EmendError('damaged', `${path} does not hold what an attribution found. Remove the folder.`);
}
