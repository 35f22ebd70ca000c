/**
 * @file Picture files decoded. What a file is, its bytes say, never its name; how large it becomes is known before it is decoded.
 */
import sharp, { type Metadata, type Sharp } from 'sharp';
import { EmendError } from '../errors.ts';
import { readRegularFile } from './regularFile.ts';

/** A decoded picture: 8 bits a channel. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  /** [height, width, 3], colours as they are whatever their opacity */
  readonly rgb: Uint8Array;
  /** opacity [height, width]; absent where every pixel is opaque */
  readonly alpha?: Uint8Array;
}

/** What a picture file turned out to be. Width and height in pixels, upright as people see it. */
export interface PictureFacts {
  readonly width: number;
  readonly height: number;
  readonly mime: string;
}

/** A picture made small, as a file. */
export interface PictureThumbnail {
  readonly mime: string;
  readonly data: Uint8Array;
}

const MAX_PICTURE_BYTES = 64 * 1024 * 1024;
const MAX_PICTURE_PIXELS = 100_000_000;
/** Rows and columns each cost something by themselves: a picture one pixel wide has as many rows as it has pixels. */
const MAX_PICTURE_SIDE = 32_768;
const PICTURE_FORMATS = ['jpeg', 'png', 'webp', 'gif', 'tiff', 'heif'];
/** Seconds a decoder may take. A hundred megapixels take a few. */
const MAX_DECODE_SECONDS = 30;

/** Bytes of a picture file, unseen. @throws EmendError as `readRegularFile`, over 64 MB among them */
export function readPictureFile(path: string): Promise<Buffer<ArrayBuffer>> {
  return readRegularFile(path, MAX_PICTURE_BYTES);
}

/**
 * Decodes a JPEG, PNG, WebP, GIF, TIFF or AVIF: upright as its EXIF orientation says, colours apart from
 * transparency (as PIL's `convert('RGB')`), the first frame of an animation.
 * @throws EmendError 'invalid-input' over 64 MB, 100 megapixels or 32,768 pixels along a side, before decoding, and for what takes
 *   over half a minute; 'unsupported' for other formats; 'damaged' for what cannot be decoded to its end.
 */
export async function decodePicture(bytes: Uint8Array): Promise<Picture> {
  const { upright } = await openPicture(bytes);
  return decoding(async () => {
    const { width, height, channels, data } = await pixelsOf(upright);
    return channels === 3 ? { width, height, rgb: data } : { width, height, ...apart(data) };
  });
}

/** Pixels [height, width, channels], 8 bits each. */
async function pixelsOf(upright: Sharp) {
  const { data, info } = await upright
    .toColourspace('srgb')
    .raw({ depth: 'uchar' })
    .toBuffer({ resolveWithObject: true });
  const { width, height, channels } = info as { width: number; height: number; channels: number };
  if (channels === 3 || channels === 4) return { width, height, channels, data } as const;
  throw new EmendError('unsupported', `The picture has ${channels} colour channels. Save it as RGB.`);
}

/** Colours and opacity of interleaved pixels [pixels, 4]. */
function apart(rgba: Uint8Array): { rgb: Uint8Array; alpha?: Uint8Array } {
  const pixels = rgba.length / 4;
  const rgb = new Uint8Array(3 * pixels);
  const alpha = new Uint8Array(pixels);
  for (let i = 0; i < pixels; i++) {
    rgb.set(rgba.subarray(4 * i, 4 * i + 3), 3 * i);
    alpha[i] = rgba[4 * i + 3]!;
  }
  return alpha.every((opacity) => opacity === 255) ? { rgb } : { rgb, alpha };
}

/**
 * Decodes a picture to its end, once, and says what it is; with it a small one, its longer side `side` pixels at most.
 * @throws EmendError as {@link decodePicture}
 */
export async function examinePictureFile(
  bytes: Uint8Array,
  side: number,
): Promise<{ facts: PictureFacts; thumbnail: PictureThumbnail }> {
  const { upright, mime } = await openPicture(bytes);
  return decoding(async () => {
    const { width, height, channels, data } = await pixelsOf(upright);
    const small = sharp(data, { raw: { width, height, channels }, limitInputPixels: false }).resize(
      side,
      side,
      {
        fit: 'inside',
        withoutEnlargement: true,
      },
    );
    // JPEG takes a quarter of the time, and has no opacity.
    const thumbnail: PictureThumbnail =
      channels === 3
        ? { mime: 'image/jpeg', data: await small.jpeg({ quality: 80 }).toBuffer() }
        : { mime: 'image/webp', data: await small.webp({ quality: 70, effort: 2 }).toBuffer() };
    return { facts: { width, height, mime }, thumbnail };
  });
}

/** A picture as PNG, upright, whole. @throws EmendError as {@link decodePicture} */
export async function pictureAsPng(bytes: Uint8Array): Promise<Uint8Array> {
  const { upright } = await openPicture(bytes);
  return decoding(() => upright.png().toBuffer());
}

/** Looks at a picture's head and refuses what should not be decoded. */
async function openPicture(bytes: Uint8Array): Promise<{ upright: Sharp; mime: string }> {
  if (bytes.length > MAX_PICTURE_BYTES) {
    const megabytes = Math.ceil(bytes.length / 1024 / 1024);
    throw new EmendError('invalid-input', `The picture is ${megabytes} MB large; Emend takes up to 64 MB.`);
  }
  // The limit on pixels is ours, below, so that the message can say how many there are.
  const open = () => sharp(bytes, { failOn: 'error', limitInputPixels: false, ignoreIcc: true });
  let metadata: Metadata;
  try {
    metadata = await open().metadata();
  } catch (cause) {
    throw new EmendError('damaged', `The picture cannot be read: ${trouble(cause)}. Choose another file.`, {
      cause,
    });
  }
  const { format, width, height } = metadata;
  if (!PICTURE_FORMATS.includes(format ?? '')) {
    throw new EmendError(
      'unsupported',
      `The picture is of the kind "${format}". Emend takes JPEG, PNG, WebP, GIF, TIFF and AVIF.`,
    );
  }
  const size = `The picture has ${width} x ${height} pixels`;
  if (width > MAX_PICTURE_SIDE || height > MAX_PICTURE_SIDE) {
    const limit = MAX_PICTURE_SIDE.toLocaleString('en');
    throw new EmendError(
      'invalid-input',
      `${size}; Emend takes up to ${limit} along a side. Make it smaller.`,
    );
  }
  if (width * height > MAX_PICTURE_PIXELS) {
    throw new EmendError('invalid-input', `${size}; Emend takes up to 100 megapixels. Make it smaller.`);
  }
  return {
    upright: open().timeout({ seconds: MAX_DECODE_SECONDS }).autoOrient(),
    mime: format === 'heif' ? 'image/avif' : `image/${format}`,
  };
}

async function decoding<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (cause instanceof EmendError) throw cause;
    if (/^timeout/.test((cause as Error).message)) throw tooSlow(MAX_DECODE_SECONDS);
    throw new EmendError(
      'damaged',
      `The picture cannot be decoded: ${trouble(cause)}. Choose another file.`,
      {
        cause,
      },
    );
  }
}

/** A picture that was given up. `seconds` it had. */
export function tooSlow(seconds: number): EmendError {
  return new EmendError(
    'invalid-input',
    `The picture took longer than ${seconds} s to decode and was given up. Save it anew, or make it smaller.`,
  );
}

/** The decoders' words for people who never heard of them. */
function trouble(cause: unknown): string {
  const message = cause instanceof Error ? cause.message : '';
  if (/premature|truncated|end of|unexpected end|not enough|out of order|read error/i.test(message)) {
    return 'it ends too early';
  }
  if (/unsupported image format|is empty|missing|zero-length/i.test(message))
    return 'it is no picture that Emend knows';
  return 'its data are damaged';
}
