/** @file Starts the engine as Electron's own kind of child process: for the window. */
import { utilityProcess } from 'electron';
import { engineEntry } from './engine/forkEngine.ts';
import type { EngineProcess } from './engine/supervisor.ts';

/** Starts the engine; what it prints appears where the app's own output does. */
export function utilityEngine(): EngineProcess {
  const child = utilityProcess.fork(engineEntry(), [], { serviceName: 'Emend engine', stdio: 'inherit' });
  return {
    send: (message) => child.postMessage(message),
    onMessage: (listener) => child.on('message', listener),
    onExit: (listener) => child.once('exit', (code) => listener({ code, signal: null })),
    kill: () => {
      // Electron's own kill asks politely, and an engine that must be killed does not listen.
      if (child.pid !== undefined) process.kill(child.pid, 'SIGKILL');
    },
  };
}
