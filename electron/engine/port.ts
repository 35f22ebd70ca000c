/** @file The engine process's end of the line to its parent, whichever kind of process it is. */
import type { FromEngine } from './protocol.ts';

/** What the engine talks through. What arrives is unchecked. */
export interface EnginePort {
  send(message: FromEngine): void;
  onMessage(listener: (message: unknown) => void): void;
  /** the parent went away */
  onClose(listener: () => void): void;
}

/** Electron's utility processes have a port in place of `process.send`. */
interface UtilityParentPort {
  postMessage(message: unknown): void;
  on(event: 'message', listener: (event: { data: unknown }) => void): void;
}

/**
 * The port to the process that started this one.
 * @throws Error when nothing started it with a channel
 */
export function parentPort(): EnginePort {
  const utility = (process as { parentPort?: UtilityParentPort }).parentPort;
  if (utility) {
    return {
      send: (message) => utility.postMessage(message),
      onMessage: (listener) => utility.on('message', (event) => listener(event.data)),
      // Electron ends its utility processes itself when it goes away.
      onClose: () => {},
    };
  }
  if (!process.send) throw new Error('The engine process is started by Emend, not by hand.');
  return {
    // The callback keeps a parent that has just gone from turning into an exception here.
    send: (message) => process.send?.(message, undefined, undefined, () => {}),
    onMessage: (listener) => process.on('message', listener),
    onClose: (listener) => process.on('disconnect', listener),
  };
}
