/**
 * @file Pictures decoded in a process of their own, one at a time, each within a time limit. A decoder that hangs or crashes over a picture
 * takes nothing else with it.
 */
import { fork } from 'node:child_process';
import { join } from 'node:path';
import { EmendError, type ErrorCode } from '../errors.ts';
import { type examinePictureFile, tooSlow } from './picture.ts';

export type PictureRequest =
  | { readonly want: 'examined'; readonly bytes: Uint8Array; readonly side: number }
  | { readonly want: 'png'; readonly bytes: Uint8Array };

type Examined = Awaited<ReturnType<typeof examinePictureFile>>;
type PictureOutput = Examined | Uint8Array;

export type PictureReply =
  | { readonly kind: 'ready' }
  | { readonly kind: 'done'; readonly output: PictureOutput }
  | { readonly kind: 'failed'; readonly code: ErrorCode; readonly message: string };

/** A running picture process, however it was started. */
export interface PictureProcess {
  send(request: PictureRequest): void;
  onMessage(listener: (reply: PictureReply) => void): void;
  onExit(listener: () => void): void;
  /** Whether this program waits for it before it ends. */
  hold(held: boolean): void;
  kill(): void;
}

interface Settle<T> {
  resolve(value: T): void;
  reject(error: EmendError): void;
}

/** Milliseconds. */
export interface PicturePatience {
  /** from launch to ready */
  readonly start: number;
  /** from a request to its answer */
  readonly decode: number;
  /** an idle process is ended after this */
  readonly idle: number;
}

const PATIENCE: PicturePatience = { start: 60_000, decode: 40_000, idle: 30_000 };

/** The process's entry beside this file: a source file when run from sources, a bundle when bundled. */
export function pictureProcessEntry(): string {
  const source = import.meta.filename.endsWith('.ts');
  return join(import.meta.dirname, source ? 'pictureProcess.ts' : 'pictureProcess.js');
}

/** Starts the process with this process's Node. */
export function forkPictureProcess(): PictureProcess {
  const child = fork(pictureProcessEntry(), [], {
    serialization: 'advanced',
    execArgv: [],
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  return {
    send: (request) => child.connected && child.send(request, () => {}),
    onMessage: (listener) => child.on('message', listener),
    onExit: (listener) => {
      child.once('exit', listener);
      child.once('error', listener);
    },
    hold: (held) => {
      if (held) child.ref();
      else child.unref();
      if (held) child.channel?.ref();
      else child.channel?.unref();
    },
    kill: () => child.kill('SIGKILL'),
  };
}

/** Decodes elsewhere. The process is started by the first request and ended when nothing was asked for a while. */
export class PictureDecoder {
  readonly #patience: PicturePatience;
  #launch: () => PictureProcess;
  #process: PictureProcess | null = null;
  #ready: Promise<void> = Promise.resolve();
  /** settles when the request before is answered: one at a time */
  #last: Promise<unknown> = Promise.resolve();
  #waiting = 0;
  #idle: NodeJS.Timeout | undefined;
  /** hears what becomes of the running request */
  #settle: { reply: (reply: PictureReply) => void; gone: () => void } | null = null;

  constructor(launch: () => PictureProcess = forkPictureProcess, patience: Partial<PicturePatience> = {}) {
    this.#launch = launch;
    this.#patience = { ...PATIENCE, ...patience };
  }

  /** How processes are started from now on: Electron has its own kind. */
  launchWith(launch: () => PictureProcess): void {
    this.#launch = launch;
  }

  /**
   * What a picture file is, decoded to its end, and a small one of it, its longer side `side` pixels at most.
   * @throws EmendError as `decodePicture`
   */
  examine(bytes: Uint8Array, side: number): Promise<Examined> {
    return this.#ask({ want: 'examined', bytes, side }) as Promise<Examined>;
  }

  /** The picture as PNG. @throws EmendError as `decodePicture` */
  png(bytes: Uint8Array): Promise<Uint8Array> {
    return this.#ask({ want: 'png', bytes }) as Promise<Uint8Array>;
  }

  /** Ends the process; a later request starts another. */
  end(): void {
    clearTimeout(this.#idle);
    this.#process?.kill();
    this.#process = null;
  }

  #ask(request: PictureRequest): Promise<PictureOutput> {
    this.#waiting++;
    clearTimeout(this.#idle);
    const answer = this.#last.then(() => this.#run(request));
    this.#last = answer
      .catch(() => undefined)
      .finally(() => {
        if (--this.#waiting > 0) return;
        this.#process?.hold(false);
        this.#idle = setTimeout(() => this.end(), this.#patience.idle).unref();
      });
    return answer;
  }

  async #run(request: PictureRequest): Promise<PictureOutput> {
    const running = this.#process ?? this.#start();
    running.hold(true);
    await this.#ready;
    return this.#within<PictureOutput>(
      this.#patience.decode,
      tooSlow(this.#patience.decode / 1000),
      (settle) => {
        running.send(request);
        return (reply) => {
          if (reply.kind === 'done') settle.resolve(reply.output);
          if (reply.kind === 'failed') settle.reject(new EmendError(reply.code, reply.message));
        };
      },
    );
  }

  #start(): PictureProcess {
    const started = this.#launch();
    this.#process = started;
    started.onMessage((reply) => this.#settle?.reply(reply));
    started.onExit(() => {
      if (this.#process !== started) return;
      this.#process = null;
      this.#settle?.gone();
    });
    const slow = new EmendError(
      'engine',
      'The process that decodes pictures does not start. Start Emend again.',
    );
    this.#ready = this.#within<void>(this.#patience.start, slow, (settle) => (reply) => {
      if (reply.kind === 'ready') settle.resolve();
    });
    return started;
  }

  /** One answer of the process, or its end: past the limit it is killed. */
  #within<T>(limit: number, late: EmendError, begin: (settle: Settle<T>) => (reply: PictureReply) => void) {
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    const timer = setTimeout(() => {
      this.end();
      reject(late);
    }, limit);
    this.#settle = {
      reply: begin({ resolve, reject }),
      gone: () =>
        reject(
          new EmendError(
            'damaged',
            'The picture made its decoder fail. Save it anew, or choose another file.',
          ),
        ),
    };
    return promise.finally(() => {
      clearTimeout(timer);
      this.#settle = null;
    });
  }
}

/** This program's picture process. */
export const pictureDecoder = new PictureDecoder();
