/**
 * @file Folders that record runs, a folder each: trainings, benchmarks, attributions over sets.
 */
import { randomBytes } from 'node:crypto';
import { readdir } from 'node:fs/promises';

/** A name for a new one, by which they sort as they were begun. */
export const newRunId = (): string =>
  `${new Date().toISOString().slice(0, 19).replaceAll(/[:T]/g, '-')}-${randomBytes(2).toString('hex')}`;

/** Names of the runs recorded in a folder; none where it is not there yet. */
export const recordedRuns = (folder: string): Promise<string[]> => readdir(folder).catch(() => []);

/** Those that can be read, latest first; what is no run is passed over. */
export async function latestFirst<T extends { readonly created: string }>(
  ids: Iterable<string>,
  read: (id: string) => Promise<T>,
): Promise<T[]> {
  const found = await Promise.all([...new Set(ids)].map((id) => read(id).catch(() => null)));
  return found.filter((one) => one !== null).toSorted((a, b) => b.created.localeCompare(a.created));
}
