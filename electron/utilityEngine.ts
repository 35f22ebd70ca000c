/** @file Starts the engine and the picture process as Electron's own kind of child process: for the window. */
import { utilityProcess } from 'electron';
import { engineEntry } from './engine/forkEngine.ts';
import type { EngineProcess } from './engine/supervisor.ts';
import { type PictureProcess, pictureProcessEntry } from './files/pictureDecoder.ts';

/** Starts the engine; what it prints appears where the app's own output does. */
export function utilityEngine(): EngineProcess {
  const child = utilityProcess.fork(engineEntry(), [], { serviceName: 'Emend engine', stdio: 'inherit' });
  return {
    send: (message) => child.postMessage(message),
    onMessage: (listener) => child.on('message', listener),
    onExit: (listener) => child.once('exit', (code) => listener({ code, signal: null })),
    kill: () => killNow(child),
  };
}

/** Starts the process that decodes pictures. */
export function utilityPictureProcess(): PictureProcess {
  const child = utilityProcess.fork(pictureProcessEntry(), [], {
    serviceName: 'Emend pictures',
    stdio: 'inherit',
  });
  return {
    send: (request) => child.postMessage(request),
    onMessage: (listener) => child.on('message', listener),
    onExit: (listener) => child.once('exit', listener),
    // Electron's utility processes end with it.
    hold: () => {},
    kill: () => killNow(child),
  };
}

/** Electron's own kill asks politely, and a process that must be killed does not listen. */
function killNow(child: Electron.UtilityProcess): void {
  if (child.pid !== undefined) process.kill(child.pid, 'SIGKILL');
}
