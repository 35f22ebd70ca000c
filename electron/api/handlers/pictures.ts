/**
 * @file Calls about pictures.
 */
import { EmendError } from '../../errors.ts';
import { examinePicture, showablePicture, storePicture, thumbnails } from '../../library/pictures.ts';
import type { Parts } from '../parts.ts';
import { samplePictures } from '../resources.ts';
import type { HandlersOf } from '../router.ts';

export function pictureHandlers({ library, resources }: Parts): HandlersOf<'pictures'> {
  return {
    'pictures.add': async ({ base64 }) => storePicture(library, await examinePicture(fromBase64(base64))),
    'pictures.read': async ({ id }) => {
      const { picture, mime, data } = await showablePicture(library, id);
      return { picture, mime, base64: Buffer.from(data).toString('base64') };
    },
    'pictures.thumbnails': ({ ids }) => thumbnails(library, ids),
    'pictures.samples': () => samplePictures(resources, library),
  };
}

/** Node skips over what is no base64; here that is an error. */
function fromBase64(text: string): Uint8Array {
  const bytes = Buffer.from(text, 'base64');
  const padding = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0;
  if (bytes.length === 0 || text.length % 4 !== 0 || bytes.length !== (text.length / 4) * 3 - padding) {
    throw new EmendError('invalid-input', 'The picture did not arrive whole. Choose its file again.');
  }
  return bytes;
}
