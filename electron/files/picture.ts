/**
 * @file Picture files decoded. What a file is, its bytes say, never its name; how large it becomes is known before it is decoded.
 */
import sharp, { type Metadata } from 'sharp';
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

const MAX_PICTURE_BYTES = 64 * 1024 * 1024;
const MAX_PICTURE_PIXELS = 100_000_000;
const PICTURE_FORMATS = ['jpeg', 'png', 'webp', 'gif', 'tiff', 'heif'];

/** Bytes of a picture file, unseen. @throws EmendError as `readRegularFile`, over 64 MB among them */
export function readPictureFile(path: string): Promise<Buffer<ArrayBuffer>> {
  return readRegularFile(path, MAX_PICTURE_BYTES);
}

/**
 * Decodes a JPEG, PNG, WebP, GIF, TIFF or AVIF: upright as its EXIF orientation says, colours apart from
 * transparency (as PIL's `convert('RGB')`), the first frame of an animation.
 * @throws EmendError 'invalid-input' over 64 MB or 100 megapixels, before decoding; 'unsupported' for other
 *   formats; 'damaged' for what cannot be decoded to its end.
 */
export async function decodePicture(bytes: Uint8Array): Promise<Picture> {
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
    throw new EmendError('damaged', `The picture cannot be read: ${reason(cause)}. Choose another file.`, {
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
  if (width * height > MAX_PICTURE_PIXELS) {
    throw new EmendError(
      'invalid-input',
      `The picture has ${width} x ${height} pixels; Emend takes up to 100 megapixels. Make it smaller.`,
    );
  }
  try {
    const { data, info } = await open()
      .autoOrient()
      .toColourspace('srgb')
      .raw({ depth: 'uchar' })
      .toBuffer({ resolveWithObject: true });
    const { channels } = info as { channels: number };
    if (channels !== 3 && channels !== 4) throw new Error(`it has ${channels} colour channels`);
    const size = { width: info.width, height: info.height };
    return channels === 3 ? { ...size, rgb: data } : { ...size, ...apart(data) };
  } catch (cause) {
    throw new EmendError('damaged', `The picture cannot be decoded: ${reason(cause)}. Choose another file.`, {
      cause,
    });
  }
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

function reason(cause: unknown): string {
  return cause instanceof Error ? cause.message.split('\n')[0]!.slice(0, 160) : 'unknown reason';
}
