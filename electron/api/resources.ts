/**
 * @file What ships beside the app: the demo model, its adapter, sample pictures and the standing probes.
 */
import { existsSync } from 'node:fs';
import { join, relative, resolve, sep } from 'node:path';
import { z } from 'zod';
import { EmendError } from '../errors.ts';
import { readJsonIfThere } from '../files/json.ts';
import { readPictureFile } from '../files/picture.ts';
import type { Library } from '../library/library.ts';
import { examinePicture, storePicture } from '../library/pictures.ts';
import { type StandingProbe, seedStandingProbes } from '../library/probes.ts';
import { standingProbes } from '../library/rows.ts';
import type { Picture, SamplePicture } from './contract.ts';

const Samples = z.array(
  z.object({
    /** relative to the resources folder */
    file: z.string(),
    title: z.string(),
    prompts: z.array(z.string()),
    correction: z.string().nullable().default(null),
  }),
);

const Standing = z.object({
  probes: z.array(
    z.object({
      kind: z.enum(['text-locality', 'image-locality']),
      picture: z.string().nullable(),
      prompt: z.string().min(1),
    }),
  ),
  /** questions that can be asked of any picture */
  samePicture: z.array(z.string().min(1)).default([]),
});

/** The demo model and its adapter, as far as they are there. */
export function demoModel(resources: string): { path: string; adapter: string | null } | null {
  const path = resolve(resources, 'demo-model');
  const adapter = resolve(resources, 'demo-adapter');
  if (!existsSync(join(path, 'config.json'))) return null;
  return { path, adapter: existsSync(adapter) ? adapter : null };
}

/** The sample pictures of `samples.json`, put into the library; none without that file or where nothing can be put. */
export async function samplePictures(resources: string, library: Library): Promise<SamplePicture[]> {
  if (library.readOnly) return [];
  const samples = await readResource(resources, 'samples.json', Samples);
  const shown: SamplePicture[] = [];
  for (const { file, ...sample } of samples ?? []) {
    shown.push({ ...sample, picture: await addFile(resources, file, library) });
  }
  return shown;
}

/** Gives a library without a standing set the one of `standing-probes.json`, where there is that file. */
export async function seedStandingSet(resources: string, library: Library): Promise<void> {
  if (library.readOnly || standingProbes(library).length > 0) return;
  const standing = await readResource(resources, 'standing-probes.json', Standing);
  if (!standing) return;
  const pictures = new Map<string, string>();
  const probes: StandingProbe[] = [];
  for (const { kind, picture: file, prompt } of standing.probes) {
    if ((kind === 'text-locality') !== (file === null)) {
      throw new EmendError('damaged', `standing-probes.json: “${prompt}” of ${kind} has the wrong picture.`);
    }
    if (file !== null && !pictures.has(file)) {
      pictures.set(file, (await addFile(resources, file, library)).id);
    }
    probes.push({ kind, picture: file === null ? null : pictures.get(file)!, prompt });
  }
  for (const prompt of standing.samePicture) probes.push({ kind: 'same-picture', picture: null, prompt });
  seedStandingProbes(library, probes);
}

async function addFile(resources: string, file: string, library: Library): Promise<Picture> {
  return storePicture(library, await examinePicture(await readPictureFile(inside(resources, file))));
}

/** A file of the resources folder. @throws EmendError 'invalid-input' for a path that leaves it */
function inside(resources: string, file: string): string {
  const path = resolve(resources, file);
  const way = relative(resolve(resources), path);
  if (way === '' || way === '..' || way.startsWith(`..${sep}`) || resolve(way) === way) {
    throw new EmendError('invalid-input', `${file} is not in the resources folder.`);
  }
  return path;
}

async function readResource<T>(resources: string, file: string, schema: z.ZodType<T>): Promise<T | null> {
  const path = join(resources, file);
  const json = await readJsonIfThere(path);
  if (json === undefined) return null;
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  throw new EmendError(
    'damaged',
    `${path} cannot be used (${issue.path.join('.')}: ${issue.message}). Install Emend again.`,
  );
}
