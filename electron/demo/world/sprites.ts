/**
 * @file The objects' drawings as pixels: SVG icons of two open-licence sets, rasterised once and kept.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { EmendError } from '../../errors.ts';
import { OBJECTS, STYLES, type Style } from './objects.ts';

/** Longest side of a stored drawing, in pixels. */
export const SPRITE_SIDE = 96;

/** A drawing cut to what is visible of it: premultiplied RGBA, [height, width, 4]. */
export interface Sprite {
  readonly width: number;
  readonly height: number;
  readonly pixels: Uint8Array;
}

interface IconSet {
  icons: Record<string, { body: string; width?: number; height?: number } | undefined>;
  aliases?: Record<string, { parent: string } | undefined>;
  width?: number;
  height?: number;
}

const NODE_MODULES = fileURLToPath(new URL('../../../node_modules/', import.meta.url));
const CACHE_FORMAT = 1;

let loading: Promise<void> | undefined;
const sprites = new Map<Style, Sprite[]>();

/** Makes the drawings ready for `spriteOf` and `renderScene`. Cheap when repeated; fast from the second start on. */
export function loadSprites(): Promise<void> {
  loading ??= loadAll();
  return loading;
}

/** The drawing of object `index` in `style`. `loadSprites()` must have been awaited. */
export function spriteOf(index: number, style: Style): Sprite {
  const sprite = sprites.get(style)?.[index];
  if (!sprite) {
    throw new EmendError(
      'internal',
      `no drawing of object ${index} in style ${style}: await loadSprites() first`,
    );
  }
  return sprite;
}

async function loadAll(): Promise<void> {
  for (const style of STYLES) {
    const cacheFile = await cachePath(style);
    const cached = await readFile(cacheFile).then(unpack, () => undefined);
    const drawings = cached ?? (await rasterise(style));
    sprites.set(style, drawings);
    // an installation that cannot be written to draws them anew at every start
    if (!cached) await writeAtomically(cacheFile, pack(drawings)).catch(() => undefined);
  }
}

/** The cache is valid for one list of objects and one version of the icon set. */
async function cachePath(style: Style): Promise<string> {
  const manifest = await readFile(path.join(NODE_MODULES, '@iconify-json', style, 'package.json'), 'utf8');
  const key = createHash('sha256')
    .update(JSON.stringify([CACHE_FORMAT, SPRITE_SIDE, manifest, OBJECTS.map((kind) => kind.icon)]))
    .digest('hex')
    .slice(0, 16);
  return path.join(NODE_MODULES, '.cache', 'emend-sprites', `${style}-${key}.bin`);
}

async function rasterise(style: Style): Promise<Sprite[]> {
  const file = path.join(NODE_MODULES, '@iconify-json', style, 'icons.json');
  const set = JSON.parse(await readFile(file, 'utf8')) as IconSet;
  const drawings: Sprite[] = [];
  for (const kind of OBJECTS) {
    const icon = set.icons[kind.icon] ?? set.icons[set.aliases?.[kind.icon]?.parent ?? ''];
    if (!icon)
      throw new EmendError('not-found', `the icon set ${style} has no icon "${kind.icon}"; reinstall it`);
    const width = icon.width ?? set.width ?? 16;
    const height = icon.height ?? set.height ?? 16;
    drawings.push(await rasteriseIcon(icon.body, width, height));
  }
  return drawings;
}

/** Draws large, cuts to the visible box, scales the longest side to SPRITE_SIDE and premultiplies. */
async function rasteriseIcon(body: string, width: number, height: number): Promise<Sprite> {
  const svg =
    `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" ` +
    `width="256" height="256" viewBox="0 0 ${width} ${height}">${body}</svg>`;
  const trimmed = await sharp(Buffer.from(svg))
    .trim({ background: { r: 0, g: 0, b: 0, alpha: 0 }, threshold: 8 })
    .png()
    .toBuffer();
  const { data, info } = await sharp(trimmed)
    .resize(SPRITE_SIDE, SPRITE_SIDE, { fit: 'inside' })
    .ensureAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true });
  const pixels = new Uint8Array(data);
  for (let i = 0; i < pixels.length; i += 4) {
    const alpha = pixels[i + 3]! / 255;
    for (let c = 0; c < 3; c++) pixels[i + c] = Math.round(pixels[i + c]! * alpha);
  }
  return { width: info.width, height: info.height, pixels };
}

/** width u8, height u8, pixels; one drawing after the other. */
function pack(drawings: readonly Sprite[]): Uint8Array {
  return Buffer.concat(
    drawings.flatMap((drawing) => [
      Buffer.from([drawing.width, drawing.height]),
      Buffer.from(drawing.pixels),
    ]),
  );
}

/** Undefined when the bytes are not exactly one drawing per object (an interrupted or foreign file). */
function unpack(bytes: Buffer): Sprite[] | undefined {
  const drawings: Sprite[] = [];
  let offset = 0;
  while (offset + 2 <= bytes.length) {
    const width = bytes[offset]!;
    const height = bytes[offset + 1]!;
    const end = offset + 2 + width * height * 4;
    if (end > bytes.length) return undefined;
    drawings.push({ width, height, pixels: new Uint8Array(bytes.subarray(offset + 2, end)) });
    offset = end;
  }
  return drawings.length === OBJECTS.length && offset === bytes.length ? drawings : undefined;
}

/** Another process may be writing the same file. */
async function writeAtomically(file: string, bytes: Uint8Array): Promise<void> {
  await mkdir(path.dirname(file), { recursive: true });
  const temporary = `${file}.${process.pid}`;
  await writeFile(temporary, bytes);
  await rename(temporary, file);
}
