/**
 * @file Pictures, stored once by content. What a file is, its bytes say, never its name.
 */
import { createHash } from 'node:crypto';
import type { Picture, Thumbnail } from '../api/contract.ts';
import { EmendError } from '../errors.ts';
import type { PictureThumbnail } from '../files/picture.ts';
import { pictureDecoder } from '../files/pictureDecoder.ts';
import { now, prepared, type Store } from './database.ts';
import { keepThumbnail, storedThumbnails, THUMBNAIL_SIDE } from './thumbnails.ts';

/** A picture whose bytes were decoded to the end, ready to be stored. */
export interface ExaminedPicture extends Picture {
  readonly data: Uint8Array;
  readonly thumbnail: PictureThumbnail;
}

/**
 * Decodes a picture file, in the picture process, and says what it is; width and height in pixels, upright as people see it.
 * @throws EmendError as `decodePicture`: too large, of a kind Emend does not take, or damaged
 */
export async function examinePicture(data: Uint8Array): Promise<ExaminedPicture> {
  const { facts, thumbnail } = await pictureDecoder.examine(data, THUMBNAIL_SIDE);
  const id = createHash('sha256').update(data).digest('hex');
  return { id, ...facts, bytes: data.length, data, thumbnail };
}

/** Stores a picture unless the library already has it; heals a stored one whose bytes were damaged. */
export function storePicture(store: Store, picture: ExaminedPicture): Picture {
  const { data, thumbnail, ...told } = picture;
  store.write(() => {
    prepared(
      store,
      `INSERT INTO pictures (id, mime, width, height, bytes, added, data) VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET data = excluded.data, bytes = excluded.bytes WHERE data <> excluded.data`,
    ).run(told.id, told.mime, told.width, told.height, told.bytes, now(), data);
    keepThumbnail(store, told.id, thumbnail);
  });
  return told;
}

/**
 * A stored picture and its bytes.
 * @throws EmendError 'not-found', or 'damaged' when the bytes are not those that were stored
 */
export function readPicture(store: Store, id: string): { picture: Picture; data: Uint8Array } {
  const row = store.read(() =>
    prepared<[string], Picture & { data: Buffer }>(
      store,
      'SELECT id, mime, width, height, bytes, data FROM pictures WHERE id = ?',
    ).get(id),
  );
  if (!row) throw new EmendError('not-found', `The library has no picture ${id.slice(0, 12)}. Add it again.`);
  const { data, ...picture } = row;
  if (createHash('sha256').update(data).digest('hex') !== id) {
    throw new EmendError(
      'damaged',
      `The picture ${id.slice(0, 12)} is damaged in the library. Add it again.`,
    );
  }
  return { picture, data };
}

/**
 * A stored picture in a form every page can show: TIFF, which browsers do not decode, as PNG.
 * @throws EmendError as `readPicture`
 */
export async function showablePicture(
  store: Store,
  id: string,
): Promise<{ picture: Picture; mime: string; data: Uint8Array }> {
  const { picture, data } = readPicture(store, id);
  if (picture.mime !== 'image/tiff') return { picture, mime: picture.mime, data };
  return { picture, mime: 'image/png', data: await pictureDecoder.png(data) };
}

/**
 * The thumbnails of pictures, in that order; those that are missing are made, one after the other, and kept. Pictures the
 * library does not have, or that cannot be read, are left out.
 */
export async function thumbnails(store: Store, pictures: readonly string[]): Promise<Thumbnail[]> {
  const wanted = [...new Set(pictures)];
  const stored = new Set(storedThumbnails(store, wanted).map(({ picture }) => picture));
  for (const picture of wanted) {
    if (stored.has(picture) || store.readOnly) continue;
    const made = await thumbnailOf(store, picture);
    if (made) store.write(() => keepThumbnail(store, picture, made));
  }
  return storedThumbnails(store, wanted);
}

async function thumbnailOf(store: Store, picture: string): Promise<PictureThumbnail | null> {
  try {
    const { data } = readPicture(store, picture);
    return (await pictureDecoder.examine(data, THUMBNAIL_SIDE)).thumbnail;
  } catch {
    // Whoever opens the picture itself is told what is wrong with it.
    return null;
  }
}

/** Whether the library has a picture. */
export function hasPicture(store: Store, id: string): boolean {
  return prepared(store, 'SELECT 1 FROM pictures WHERE id = ?').get(id) !== undefined;
}

/** @throws EmendError 'not-found' when the library has no such picture */
export function demandPicture(store: Store, id: string): void {
  if (!hasPicture(store, id))
    throw new EmendError('not-found', `The library has no picture ${id.slice(0, 12)}. Add it first.`);
}
