/**
 * @file Pictures of the library as the page shows them: read once, kept as object URLs and small bitmaps.
 */
import type { Picture, SamplePicture } from '../../electron/api/contract.ts';
import { EmendError } from '../../electron/errors.ts';
import type { Connection } from '../backend.ts';

/** Larger files would not fit the contract's limit once written as base64. */
const largestFile = 64 * 1024 * 1024;
/** Full pictures kept at once; the least recently shown goes first. */
const mostKept = 24;
/** Thumbnails kept at once. */
const mostThumbnails = 600;
/** Longer side of a thumbnail in pixels: twice the largest place one is shown at. */
const thumbnailSide = 128;

export class Pictures {
  readonly #connection: Connection;
  readonly #urls = new Map<string, Promise<string>>();
  readonly #thumbnails = new Map<string, Promise<ImageBitmap>>();
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

  /** An address the page can show the picture from. */
  url(id: string): Promise<string> {
    const known = this.#urls.get(id);
    this.#urls.delete(id);
    const url = known ?? this.#read(id).then((blob) => URL.createObjectURL(blob));
    this.#urls.set(id, url);
    url.catch(() => this.#urls.delete(id)); // so that it is tried again
    for (const [oldest, old] of this.#urls) {
      if (this.#urls.size <= mostKept) break;
      this.#urls.delete(oldest);
      old.then(URL.revokeObjectURL, () => {});
    }
    return url;
  }

  /** The whole picture as it is, for drawing at once; not kept. */
  async full(id: string): Promise<ImageBitmap> {
    return createImageBitmap(await this.#read(id));
  }

  /** The whole picture, small. */
  thumbnail(id: string): Promise<ImageBitmap> {
    const known = this.#thumbnails.get(id);
    if (known) return known;
    const thumbnail = this.#read(id).then(shrunk);
    this.#thumbnails.set(id, thumbnail);
    thumbnail.catch(() => this.#thumbnails.delete(id));
    for (const oldest of this.#thumbnails.keys()) {
      if (this.#thumbnails.size <= mostThumbnails) break;
      this.#thumbnails.delete(oldest);
    }
    return thumbnail;
  }

  async #read(id: string): Promise<Blob> {
    const { mime, base64 } = await this.#connection.call('pictures.read', { id });
    return new Blob([Uint8Array.from(atob(base64), (byte) => byte.charCodeAt(0))], { type: mime });
  }
}

/** Scales a picture down so that its longer side is a thumbnail's; a small one stays as it is. */
async function shrunk(blob: Blob): Promise<ImageBitmap> {
  const whole = await createImageBitmap(blob);
  const scale = thumbnailSide / Math.max(whole.width, whole.height);
  if (scale >= 1) return whole;
  const small = await createImageBitmap(whole, {
    resizeWidth: Math.max(1, Math.round(whole.width * scale)),
    resizeHeight: Math.max(1, Math.round(whole.height * scale)),
    resizeQuality: 'high',
  });
  whole.close();
  return small;
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
