/** @file Starts the engine as a Node child process: for the loopback page and the command line. */
import { fork } from 'node:child_process';
import { join } from 'node:path';
import type { EngineProcess } from './supervisor.ts';

/** The engine's entry beside this file: a source file when run from sources, a bundle when bundled. */
export function engineEntry(): string {
  const source = import.meta.filename.endsWith('.ts');
  return join(import.meta.dirname, source ? 'engineProcess.ts' : 'engineProcess.js');
}

/** Starts `entry` with this process's Node. What it prints appears on this process's stderr. */
export function forkEngine(entry: string = engineEntry()): EngineProcess {
  const child = fork(entry, [], { serialization: 'advanced', execArgv: [], stdio: ['ignore', 2, 2, 'ipc'] });
  return {
    send: (message) => child.connected && child.send(message, () => {}),
    onMessage: (listener) => child.on('message', listener),
    onExit: (listener) => {
      child.once('exit', (code, signal) => listener({ code, signal }));
      child.once('error', (error) => {
        if (child.pid === undefined) listener({ code: null, signal: null, reason: error.message });
      });
    },
    kill: () => child.kill('SIGKILL'),
  };
}
