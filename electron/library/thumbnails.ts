/**
 * @file Pictures as small as tables show them, made once and kept beside the pictures.
 */
import type { Thumbnail } from '../api/contract.ts';
import { pictureDecoder } from '../files/pictureDecoder.ts';
import type { Store } from './database.ts';

/** Longer side in pixels: twice the largest place a table shows one at. */
const SIDE = 128;

/** A WebP of a picture file, upright, its longer side {@link SIDE} pixels at most. @throws EmendError as `decodePicture` */
export function makeThumbnail(data: Uint8Array): Promise<Uint8Array> {
  return pictureDecoder.thumbnail(data, SIDE);
}

/** Keeps the thumbnail of a stored picture. Called inside a `write`. */
export function keepThumbnail(store: Store, picture: string, data: Uint8Array): void {
  store.database
    .prepare(`INSERT OR IGNORE INTO thumbnails (picture, mime, data) VALUES (?, 'image/webp', ?)`)
    .run(picture, data);
}

/** Those of the pictures' thumbnails that are made. */
export function storedThumbnails(store: Store, pictures: readonly string[]): Thumbnail[] {
  return store.database
    .prepare<[string], { picture: string; mime: string; data: Buffer }>(
      `SELECT picture, mime, data FROM json_each(?) AS wanted
       CROSS JOIN thumbnails ON thumbnails.picture = wanted.value ORDER BY wanted.key`,
    )
    .all(JSON.stringify(pictures))
    .map(({ data, ...told }) => ({ ...told, base64: data.toString('base64') }));
}
