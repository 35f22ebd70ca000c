/**
 * @file Entry of the picture process: decodes pictures, one request after another, for a parent that may end it at any time.
 */
import sharp from 'sharp';
import { EmendError } from '../errors.ts';
import { examinePictureFile, pictureAsPng } from './picture.ts';
import type { PictureReply, PictureRequest } from './pictureDecoder.ts';

/** Electron's utility processes have a port in place of `process.send`. */
interface UtilityPort {
  postMessage(message: unknown): void;
  on(event: 'message', listener: (event: { data: unknown }) => void): void;
}
const utility = (process as { parentPort?: UtilityPort }).parentPort;

const send = (reply: PictureReply): void => {
  if (utility) utility.postMessage(reply);
  else process.send?.(reply, undefined, undefined, () => {});
};
const receive = (listener: (request: PictureRequest) => void): void => {
  if (utility) utility.on('message', ({ data }) => listener(data as PictureRequest));
  else process.on('message', (request) => listener(request as PictureRequest));
};

function answer(request: PictureRequest) {
  if (request.want === 'png') return pictureAsPng(request.bytes);
  return examinePictureFile(request.bytes, request.side);
}

// One picture at a time, and most are small: threads take longer to wake than they save.
sharp.concurrency(1);
receive((request) => {
  answer(request).then(
    (output) => send({ kind: 'done', output }),
    (error: unknown) => {
      const known = error instanceof EmendError;
      const message = known ? error.message : 'The picture cannot be decoded. Choose another file.';
      send({ kind: 'failed', code: known ? error.code : 'damaged', message });
    },
  );
});
process.on('disconnect', () => process.exit(0));
// An interrupt from the terminal reaches the whole group: the parent decides when this process ends.
process.on('SIGINT', () => {});
send({ kind: 'ready' });
