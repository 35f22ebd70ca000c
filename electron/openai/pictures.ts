/** @file The pictures of a request: in the request itself, or files of folders the person named. Never fetched. */
import { realpath } from 'node:fs/promises';
import { isAbsolute, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { EmendError } from '../errors.ts';
import { readPictureFile } from '../files/picture.ts';
import { OpenAiError } from './openAiError.ts';

const refuse = (message: string, code: string, param: string) => new OpenAiError(400, message, code, param);

/**
 * The bytes of a picture.
 * @param url a data URL in base64, a file URL, or an absolute path
 * @param folders whose files may be read
 * @param param named in errors
 * @throws OpenAiError for every other address, and files outside the folders
 */
export async function readPicture(
  url: string,
  folders: readonly string[],
  param: string,
): Promise<Uint8Array> {
  if (/^data:/i.test(url)) return dataOf(url, param);
  if (/^file:/i.test(url) || isAbsolute(url)) return fileOf(url, folders, param);
  throw refuse(
    'Pictures are never fetched from the net. Send the picture itself, as data:image/png;base64,…',
    'picture_not_fetched',
    param,
  );
}

function dataOf(url: string, param: string): Uint8Array {
  const comma = url.indexOf(',');
  const head = comma < 0 ? '' : url.slice(5, comma);
  if (!/^image\/[\w.+-]+(;[\w.=+-]+)*;base64$/i.test(head))
    throw refuse(
      'A data URL of a picture begins with data:image/…;base64, here it does not.',
      'invalid_data_url',
      param,
    );
  const text = url.slice(comma + 1).replace(/\s/g, '');
  if (text === '' || text.length % 4 === 1 || !/^[A-Za-z0-9+/_-]*={0,2}$/.test(text))
    throw refuse('The data URL of the picture is not base64.', 'invalid_base64', param);
  return Buffer.from(text, 'base64');
}

async function fileOf(url: string, folders: readonly string[], param: string): Promise<Uint8Array> {
  // One answer for all that may not be read: it does not tell what lies elsewhere.
  const refusal = refuse(
    folders.length === 0
      ? 'No folder was named whose pictures may be read. Name one when the endpoint is started, or send the picture as a data URL.'
      : 'The picture is not in one of the folders that were named for the endpoint, or is not there. Send it as a data URL.',
    'picture_not_allowed',
    param,
  );
  let file: string;
  try {
    file = await realpath(/^file:/i.test(url) ? fileURLToPath(url) : url);
  } catch {
    throw refusal;
  }
  const allowed = await Promise.all(
    folders.map(async (folder) => {
      const inside = relative(await realpath(folder).catch(() => '\0'), file);
      return inside !== '' && !inside.startsWith('..') && !isAbsolute(inside);
    }),
  );
  if (!allowed.includes(true)) throw refusal;
  try {
    return await readPictureFile(file);
  } catch (error) {
    if (error instanceof EmendError && error.code === 'not-found') throw refusal;
    throw error;
  }
}
