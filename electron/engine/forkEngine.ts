/** @file Starts the engine as a Node child process: for the loopback page and the command line. */
import { fork } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { EngineProcess } from './supervisor.ts';

/** The engine's entry beside this file: a source file when run from sources, a bundle when bundled. */
export function engineEntry(): string {
  const source = import.meta.filename.endsWith('.ts');
  return join(import.meta.dirname, source ? 'engineProcess.ts' : 'engineProcess.js');
}

/** What the WebGPU provider prints by itself where there is no Vulkan. Why a provider was passed over, the app tells. */
const NOISE = /Couldn't load Vulkan|\/dawn-src\//;

/** Starts `entry` with this process's Node. What it prints appears on this process's stderr. */
export function forkEngine(entry: string = engineEntry()): EngineProcess {
  const child = fork(entry, [], {
    serialization: 'advanced',
    execArgv: [],
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  for (const stream of [child.stdout, child.stderr]) {
    if (!stream) continue;
    createInterface({ input: stream }).on('line', (line) => {
      if (line.trim() !== '' && !NOISE.test(line)) process.stderr.write(`${line}\n`);
    });
  }
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
