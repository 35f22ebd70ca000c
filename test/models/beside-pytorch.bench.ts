/**
 * @file Speed beside PyTorch on the same random weights of 1.24 B parameters, one thread each, in turns:
 * `npm run bench -- beside-pytorch [python, default python3]`. Needs PyTorch (Debian: apt-get install python3-torch).
 */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { WeightForm } from '../../electron/models/packed/form.ts';
import { consecutive } from '../../electron/models/positions.ts';
import { VisionLanguageModel } from '../../electron/models/visionLanguageModel.ts';
import { float32 } from '../../electron/tensor/session.ts';
import { writeCheckpoint } from '../support/realSize.ts';

const ROUNDS = 3;
const [PREFILL, TOKENS] = [256, 8];
const [, python = 'python3', form, folderOfChild] = process.argv.slice(2);

if (folderOfChild) await ours(folderOfChild, form as WeightForm);
else await compare();

async function compare(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'emend-beside-pytorch-'));
  try {
    await writeCheckpoint(folder, '1b', false);
    // In pairs: all four at once do not fit beside other work.
    await inTurns(folder, 'dense', 'float32');
    await inTurns(folder, '8bit', 'bfloat16');
    await inTurns(folder, '4bit', 'bfloat16');
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function inTurns(folder: string, weights: WeightForm, dtype: string): Promise<void> {
  const script = join(import.meta.dirname, 'pytorchSpeed.py');
  const env = { ...process.env, OMP_NUM_THREADS: '1', OPENBLAS_NUM_THREADS: '1' };
  const theirs = timer(spawn(python, [script, folder, dtype], { env, stdio: ['pipe', 'pipe', 'inherit'] }));
  const own = timer(
    fork(process.argv[1]!, ['beside-pytorch', python, weights, folder], {
      execArgv: [],
      stdio: ['pipe', 'pipe', 'inherit', 'ipc'],
    }),
  );
  try {
    for (const each of [own, theirs]) await each.ready;
    for (const request of [`prefill ${PREFILL}`, `decode ${TOKENS}`]) {
      const times = { own: [] as number[], theirs: [] as number[] };
      for (let round = 0; round < ROUNDS; round++) {
        times.own.push(await own.ask(request));
        times.theirs.push(await theirs.ask(request));
      }
      const [a, b] = [Math.min(...times.own), Math.min(...times.theirs)];
      console.log(
        `  ${request.padEnd(12)} ${weights} ${a.toFixed(3)} s, PyTorch ${dtype} ${b.toFixed(3)} s: ${(b / a).toFixed(2)} times as fast`,
      );
    }
  } finally {
    own.end();
    theirs.end();
  }
}

/** A process that answers each line with seconds, after it has said that it is ready. */
function timer(child: ChildProcess) {
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const next = async (): Promise<string> => {
    const { value, done } = await lines.next();
    if (done) throw new Error('A process ended before it had answered. Is PyTorch there?');
    return value === 'ready' || Number(value) > 0 ? value : next();
  };
  return {
    ready: next(),
    ask: async (request: string) => {
      child.stdin!.write(`${request}\n`);
      return Number(await next());
    },
    end: () => child.kill(),
  };
}

async function ours(folder: string, weights: WeightForm): Promise<void> {
  const packed = { folder: join(folder, 'packed'), limitBytes: 1e11 };
  const model = await VisionLanguageModel.open(folder, { providers: ['cpu'], weights, packed, threads: 1 });
  const rowsOf = (rows: number) => {
    const embeddings = float32(
      Float32Array.from({ length: rows * model.hidden }, () => Math.random() - 0.5),
      [1, rows, model.hidden],
    );
    return {
      ...{
        embeddings,
        rows,
        ids: new Array<number>(rows).fill(5),
        imageRows: null,
        grid: null,
        pictures: [],
        added: [],
      },
      ...{ lastPromptRow: rows - 1, positions: consecutive(rows), nextPosition: rows },
    };
  };
  console.log('ready');
  for await (const line of createInterface({ input: process.stdin })) {
    const [what, count] = line.split(' ') as [string, string];
    const prefill = await model.prefill(rowsOf(what === 'prefill' ? 1 : 32));
    let { caches } = await model.finish(prefill, [0]);
    const from = performance.now();
    if (what === 'prefill') await model.prefill(rowsOf(Number(count)));
    else for (let token = 0; token < Number(count); token++) ({ caches } = await model.next(5, caches));
    console.log((performance.now() - from) / 1000 / (what === 'prefill' ? 1 : Number(count)));
  }
  await model.dispose();
}
