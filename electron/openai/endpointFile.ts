/** @file How the endpoint was set: one small file in the person's data folder. */
import { chmod, mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';
import { z } from 'zod';
import { readJsonIfThere } from '../files/json.ts';
import { replaceFile } from '../files/replaceFile.ts';

export const DEFAULT_PORT = 11_435;

const Kept = z.object({
  /** whether it is served whenever the app runs */
  enabled: z.boolean().catch(false),
  port: z.number().int().min(0).max(65_535).catch(DEFAULT_PORT),
  /** folders whose pictures may be named in requests */
  folders: z.array(z.string().min(1)).max(50).catch([]),
  key: z
    .object({ hash: z.string().regex(/^[0-9a-f]{64}$/), hint: z.string().max(8), created: z.string() })
    .nullable()
    .catch(null),
});
export type EndpointSettings = z.infer<typeof Kept>;

/** What the file holds; as nothing was ever set where there is none, or where it cannot be read. */
export async function readEndpointFile(file: string): Promise<EndpointSettings> {
  const json = await readJsonIfThere(file, 1024 * 1024).catch(() => undefined);
  return Kept.catch(Kept.parse({})).parse(json ?? {});
}

/** Nobody else may read it: the hash is of no use, but the folders are nobody's business. */
export async function writeEndpointFile(file: string, settings: EndpointSettings): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  await replaceFile(file, (handle) => handle.writeFile(`${JSON.stringify(settings, null, 2)}\n`));
  await chmod(file, 0o600);
}
