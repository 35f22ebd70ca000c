/**
 * @file Pictures as small as tables show them, made once and kept beside the pictures.
 */
import type { Thumbnail } from '../api/contract.ts';
import type { PictureThumbnail } from '../files/picture.ts';
import { prepared, type Store } from './database.ts';

/** Longer side in pixels: twice the largest place a table shows one at. */
export const THUMBNAIL_SIDE = 128;

/** Keeps the thumbnail of a stored picture. Called inside a `write`. */
export function keepThumbnail(store: Store, picture: string, { mime, data }: PictureThumbnail): void {
  prepared(store, 'INSERT OR IGNORE INTO thumbnails (picture, mime, data) VALUES (?, ?, ?)').run(
    picture,
    mime,
    data,
  );
}

/** Those of the pictures' thumbnails that are made. */
export function storedThumbnails(store: Store, pictures: readonly string[]): Thumbnail[] {
  return prepared<[string], { picture: string; mime: string; data: Buffer }>(
    store,
    `SELECT picture, mime, data FROM json_each(?) AS wanted
       CROSS JOIN thumbnails ON thumbnails.picture = wanted.value ORDER BY wanted.key`,
  )
    .all(JSON.stringify(pictures))
    .map(({ data, ...told }) => ({ ...told, base64: data.toString('base64') }));
}
