/** @file An engine process without models: `ask` does what its prompt says, so that the plumbing can be tested alone. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Answer } from '../../electron/api/contract.ts';
import { runEngineProcess } from '../../electron/engine/processLife.ts';
import type { OperationContext, OperationTable } from '../../electron/engine/protocol.ts';
import { EmendError } from '../../electron/errors.ts';

const answer = (text: string): Answer => ({
  text,
  tokens: [],
  ended: 'stop-token',
  provider: 'cpu',
  times: { picture: 0, prompt: 0, generation: 0, total: 0 },
  routing: null,
});

const unused = async (): Promise<never> => {
  throw new EmendError('unsupported', 'This engine only answers.');
};

let model = 'none';

async function ask(
  input: { prompt: string; picture: Uint8Array | null },
  context: OperationContext,
): Promise<Answer> {
  const [verb = '', value = ''] = input.prompt.split(' ');
  if (verb === 'sleep') {
    const until = Date.now() + Number(value);
    while (Date.now() < until) {
      if (context.signal.aborted) throw new Error('noticed');
      await sleep(5);
    }
  }
  if (verb === 'block') Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(value));
  if (verb === 'exit') process.exit(Number(value));
  if (verb === 'throw') throw new TypeError('a mistake of ours');
  if (verb === 'refuse') throw new EmendError('not-found', 'No such picture.');
  if (verb === 'count') {
    for (let done = 1; done <= Number(value); done++) {
      context.send({ kind: 'progress', stage: 'counting', done, total: Number(value), unit: 'steps' });
    }
  }
  if (verb === 'model') return answer(model);
  if (verb === 'pid') return answer(String(process.pid));
  if (input.picture)
    return answer(`${input.picture.constructor.name} ${input.picture.length} ${input.picture.at(-1)}`);
  return answer(input.prompt);
}

const operations: OperationTable = {
  open: async ({ path }) => {
    model = path;
    return {
      summary: {
        path,
        name: path,
        fingerprint: '',
        architecture: '',
        layers: 0,
        hidden: 0,
        parameters: 0,
        visualTokens: 0,
        pictureRows: { least: 0, most: 0, limit: null },
        checkpoint: '',
        takes: { turns: false, pictures: false },
        dtype: '',
        weights: 'dense',
        adapter: null,
      },
      scope: null,
      provider: 'cpu',
      refusals: [{ provider: 'cuda', reason: 'not here' }],
    };
  },
  inspect: unused,
  ways: unused,
  activate: unused,
  sign: unused,
  describe: unused,
  attributeModules: unused,
  attributeVisual: unused,
  attributeModality: unused,
  proposeLayer: unused,
  settle: unused,
  compare: unused,
  answer: unused,
  chat: unused,
  rows: unused,
  preview: unused,
  measure: async (input) => {
    const { exit } = input as { exit?: number };
    if (exit !== undefined) process.exit(exit);
    return null;
  },
  measureGate: unused,
  train: unused,
  keepTrained: unused,
  exportWeights: unused,
  ask,
};

// `crash`: an engine that cannot even start.
if (process.env.EMEND_TEST_ENGINE === 'crash') process.exit(7);
runEngineProcess(operations);
