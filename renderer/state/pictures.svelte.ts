/**
 * @file Pictures of the library as the page shows them: read once, kept as object URLs and small bitmaps.
 */
import type { Picture, SamplePicture, Thumbnail } from '../../electron/api/contract.ts';
import { EmendError } from '../../electron/errors.ts';
import type { Connection } from '../backend.ts';

/** Larger files would not fit the contract's limit once written as base64. */
const largestFile = 64 * 1024 * 1024;
/** Full pictures kept at once; the least recently shown goes first. */
const mostKept = 24;
/** Thumbnails kept at once. */
const mostThumbnails = 600;
/** Thumbnails asked for in one call. */
const mostAtOnce = 100;

export interface ShownPicture {
  readonly picture: Picture;
  /** an object URL, good while the picture is among those kept */
  readonly url: string;
}

export class Pictures {
  readonly #connection: Connection;
  readonly #shown = new Map<string, Promise<ShownPicture>>();
  readonly #thumbnails = new Map<string, Promise<ImageBitmap>>();
  /** thumbnails to be asked for in the next call, and what waits for them */
  #wanted = new Map<string, PromiseWithResolvers<Thumbnail>>();
  /** the demo pictures; null until they were read */
  samples = $state.raw<readonly SamplePicture[] | null>(null);

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Reads the demo pictures; an installation without any has an empty tray. */
  async readSamples(): Promise<void> {
    this.samples = await this.#connection.call('pictures.samples', {}).catch(() => []);
  }

  /** Adds a picture file to the library. Throws `invalid-input` when it is too large, and what the library refuses. */
  async add(file: Blob): Promise<Picture> {
    if (file.size > largestFile) {
      throw new EmendError(
        'invalid-input',
        `The picture has ${Math.round(file.size / 2 ** 20)} MB; up to ${largestFile / 2 ** 20} MB can be opened. Save it smaller and try again.`,
      );
    }
    return this.#connection.call('pictures.add', { base64: await toBase64(file) });
  }

  /** A picture, and an address the page can show it from. */
  show(id: string): Promise<ShownPicture> {
    const known = this.#shown.get(id);
    this.#shown.delete(id);
    const shown = known ?? this.#read(id);
    this.#shown.set(id, shown);
    shown.catch(() => this.#shown.delete(id)); // so that it is tried again
    for (const [oldest, old] of this.#shown) {
      if (this.#shown.size <= mostKept) break;
      this.#shown.delete(oldest);
      old.then(({ url }) => URL.revokeObjectURL(url)).catch(() => {});
    }
    return shown;
  }

  /** The whole picture as it is, for drawing at once; not kept. */
  async full(id: string): Promise<ImageBitmap> {
    const { mime, base64 } = await this.#connection.call('pictures.read', { id });
    return createImageBitmap(blobOf(mime, base64));
  }

  /** The whole picture, small. Those wanted at the same time are asked for in one call. */
  thumbnail(id: string): Promise<ImageBitmap> {
    const known = this.#thumbnails.get(id);
    if (known) return known;
    if (this.#wanted.size === 0) queueMicrotask(() => void this.#readWanted());
    const wanted = Promise.withResolvers<Thumbnail>();
    this.#wanted.set(id, wanted);
    return this.#keep(id, wanted.promise.then(bitmapOf));
  }

  /** Takes thumbnails that came with rows of a table. */
  takeThumbnails(thumbnails: readonly Thumbnail[]): void {
    for (const thumbnail of thumbnails)
      if (!this.#thumbnails.has(thumbnail.picture)) void this.#keep(thumbnail.picture, bitmapOf(thumbnail));
  }

  #keep(id: string, thumbnail: Promise<ImageBitmap>): Promise<ImageBitmap> {
    this.#thumbnails.set(id, thumbnail);
    thumbnail.catch(() => this.#thumbnails.delete(id)); // so that it is tried again
    for (const oldest of this.#thumbnails.keys()) {
      if (this.#thumbnails.size <= mostThumbnails) break;
      this.#thumbnails.delete(oldest);
    }
    return thumbnail;
  }

  async #readWanted(): Promise<void> {
    const wanted = this.#wanted;
    this.#wanted = new Map();
    const ids = [...wanted.keys()];
    for (let from = 0; from < ids.length; from += mostAtOnce) {
      const asked = ids.slice(from, from + mostAtOnce);
      try {
        const found = await this.#connection.call('pictures.thumbnails', { ids: asked });
        for (const thumbnail of found) wanted.get(thumbnail.picture)?.resolve(thumbnail);
        for (const id of asked)
          wanted.get(id)?.reject(new EmendError('not-found', 'This picture could not be read.'));
      } catch (thrown) {
        for (const id of asked) wanted.get(id)?.reject(thrown);
      }
    }
  }

  async #read(id: string): Promise<ShownPicture> {
    const { picture, mime, base64 } = await this.#connection.call('pictures.read', { id });
    return { picture, url: URL.createObjectURL(blobOf(mime, base64)) };
  }
}

function blobOf(mime: string, base64: string): Blob {
  return new Blob([Uint8Array.from(atob(base64), (byte) => byte.charCodeAt(0))], { type: mime });
}

function bitmapOf({ mime, base64 }: Thumbnail): Promise<ImageBitmap> {
  return createImageBitmap(blobOf(mime, base64));
}

function toBase64(file: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).replace(/^[^,]*,/, ''));
    reader.onerror = () =>
      reject(new EmendError('not-found', 'The picture could not be read. Is the file still there?'));
    reader.readAsDataURL(file);
  });
}
