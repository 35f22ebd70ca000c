import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import type { EngineState } from '../../electron/api/contract.ts';
import { forkEngine } from '../../electron/engine/forkEngine.ts';
import { checkMessageSize } from '../../electron/engine/messageSize.ts';
import {
  type CallOptions,
  type Engine,
  type EnginePatience,
  startEngine,
} from '../../electron/engine/supervisor.ts';

const engines: Engine[] = [];

function start(patience: Partial<EnginePatience> = {}): Engine {
  const entry = join(import.meta.dirname, 'plainEngine.ts');
  const engine = startEngine({ launch: () => forkEngine(entry), patience: { pause: 20, ...patience } });
  engines.push(engine);
  return engine;
}

async function ask(
  engine: Engine,
  prompt: string,
  options: CallOptions = {},
  picture: Uint8Array | null = null,
) {
  const input = { picture, prompt, edits: 'none', maxNewTokens: 8, sampling: null } as const;
  return (await engine.call('ask', input, options)).text;
}

function reached(engine: Engine, state: EngineState['state']): Promise<EngineState> {
  return new Promise((resolve) => {
    if (engine.state.state === state) return resolve(engine.state);
    const stop = engine.onState((now) => {
      if (now.state !== state) return;
      stop();
      resolve(now);
    });
  });
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

afterEach(async () => {
  delete process.env.EMEND_TEST_ENGINE;
  await Promise.all(engines.splice(0).map((engine) => engine.stop()));
});

describe('calls', () => {
  test('wait for the engine, carry bytes as bytes, and report busy and ready', async () => {
    const engine = start();
    expect(engine.state.state).toBe('starting');
    const seen: string[] = [];
    engine.onState((state) => seen.push(state.state));
    const picture = new Uint8Array(8_000_000).fill(7);
    expect(await ask(engine, 'look', {}, picture)).toBe('Uint8Array 8000000 7');
    expect(seen.filter((state, place) => state !== seen[place - 1])).toEqual(['ready', 'busy', 'ready']);
    expect((await reached(engine, 'ready')).memoryBytes).toBeGreaterThan(1_000_000);
  });

  test('start the process when the first is made, where it was not to begin at once', async () => {
    let launched = 0;
    const launch = () => {
      launched += 1;
      return forkEngine(join(import.meta.dirname, 'plainEngine.ts'));
    };
    const engine = startEngine({ launch, begin: 'with the first call' });
    engines.push(engine);
    expect([launched, await Promise.all([ask(engine, 'one'), ask(engine, 'two')]), launched]).toEqual([
      ...[0, ['one', 'two'], 1],
    ]);
    const never = startEngine({ launch, begin: 'with the first call' });
    await never.stop();
    expect(launched).toBe(1);
  });

  test('run one after the other, in order', async () => {
    const engine = start();
    const ended: string[] = [];
    await Promise.all(
      ['sleep 80', 'sleep 1', 'third'].map((prompt) => ask(engine, prompt).then((text) => ended.push(text))),
    );
    expect(ended).toEqual(['sleep 80', 'sleep 1', 'third']);
  });

  test('stream to the call they belong to', async () => {
    const engine = start();
    const done: number[] = [];
    const onStream: CallOptions['onStream'] = (message) =>
      message.kind === 'progress' && done.push(message.done);
    await Promise.all([ask(engine, 'count 3', { onStream }), ask(engine, 'count 5')]);
    expect(done).toEqual([1, 2, 3]);
  });

  test('fail with the code and sentence of the operation, and internally without a stack trace', async () => {
    const engine = start();
    await expect(ask(engine, 'refuse')).rejects.toMatchObject({
      code: 'not-found',
      message: 'No such picture.',
    });
    await expect(ask(engine, 'throw')).rejects.toMatchObject({
      code: 'internal',
      message: 'The engine failed: a mistake of ours',
    });
    expect(await ask(engine, 'still here')).toBe('still here');
  });

  test('open tells the provider that loaded and those that refused', async () => {
    const engine = start();
    await engine.call('open', { path: 'm', adapter: null, providers: [], template: 'plain' });
    expect(engine.state).toMatchObject({
      provider: 'cpu',
      refusals: [{ provider: 'cuda', reason: 'not here' }],
    });
  });

  test('too large are refused before they are sent', () => {
    expect(() => checkMessageSize({ a: [new Uint8Array(600)] }, 1000)).not.toThrow();
    expect(() => checkMessageSize({ a: [new Uint8Array(600), 'x'.repeat(300)] }, 1000)).toThrow(
      /larger than/,
    );
    const circle: { self?: unknown } = {};
    circle.self = circle;
    expect(() => checkMessageSize(circle, 1000)).not.toThrow();
  });
});

describe('cancelling', () => {
  test('ends a running call that looks at its signal, and one that waits, and leaves the others', async () => {
    const engine = start();
    await ask(engine, 'warm');
    const running = new AbortController();
    const queued = new AbortController();
    const first = ask(engine, 'sleep 20000', { signal: running.signal });
    const second = ask(engine, 'never', { signal: queued.signal });
    const third = ask(engine, 'third');
    queued.abort();
    await expect(second).rejects.toMatchObject({ code: 'cancelled' });
    running.abort();
    await expect(first).rejects.toMatchObject({ code: 'cancelled' });
    expect(await third).toBe('third');
    expect(engine.state.message).toBe('');
  });

  test('kills an engine that does not listen, and starts another', async () => {
    const engine = start({ cancel: 100, deaths: 1 });
    const before = await ask(engine, 'pid');
    const abort = new AbortController();
    const blocked = ask(engine, 'block 20000', { signal: abort.signal });
    const other = ask(engine, 'other');
    abort.abort();
    await expect(blocked).rejects.toMatchObject({ code: 'cancelled' });
    await expect(other).rejects.toMatchObject({ code: 'engine' });
    expect(engine.state).toMatchObject({
      state: 'restarting',
      message: expect.stringContaining('was stopped did not end'),
    });
    expect(await ask(engine, 'pid')).not.toBe(before);
  });
});

describe('stopping one call', () => {
  test('ends no engine while another call runs', async () => {
    // Longer than a busy machine takes to answer the one that waited, once its turn has come.
    const engine = start({ cancel: 800 });
    const pid = await ask(engine, 'pid');
    const running = ask(engine, 'block 1600');
    const abort = new AbortController();
    // It may begin before the wish to stop it is read; then it notices.
    const queued = ask(engine, 'sleep 20000', { signal: abort.signal });
    abort.abort();
    await expect(queued).rejects.toMatchObject({ code: 'cancelled' });
    await running;
    expect(await ask(engine, 'pid')).toBe(pid);
  });

  test('loses no model that another one waits to open', async () => {
    const engine = start({ cancel: 100, deaths: 1 });
    await ask(engine, 'warm');
    const abort = new AbortController();
    const blocked = ask(engine, 'block 20000', { signal: abort.signal });
    const opening = engine.call('open', { path: 'm', adapter: null, providers: [], template: 'plain' });
    abort.abort();
    await expect(blocked).rejects.toMatchObject({ code: 'cancelled' });
    expect(await opening).toMatchObject({ provider: 'cpu' });
  });
});

describe('an engine that dies', () => {
  test('fails the call that was running, says why, and is ready again', async () => {
    const engine = start();
    await engine.call('open', { path: 'm', adapter: null, providers: [], template: 'plain' });
    await expect(ask(engine, 'exit 9')).rejects.toMatchObject({
      code: 'engine',
      message: expect.stringContaining('exit code 9'),
    });
    expect(engine.state).toMatchObject({
      state: 'restarting',
      provider: null,
      message: expect.stringContaining('exit code 9'),
    });
    const ready = await reached(engine, 'ready');
    expect(ready.message).toMatch(/exit code 9.*It was restarted/);
    await ask(engine, 'hello');
    expect(engine.state.message).toBe('');
  });

  test('lets the owner set it up again before calls that waited', async () => {
    const engine = start();
    engine.onRestart(
      () => void engine.call('open', { path: 'again', adapter: null, providers: [], template: 'plain' }),
    );
    const pid = Number(await ask(engine, 'pid'));
    process.kill(pid, 'SIGKILL');
    await reached(engine, 'restarting');
    expect(engine.state.message).toContain('memory ran out');
    expect(await ask(engine, 'model')).toBe('again');
  });

  test('takes what had not begun and needs nothing of it to the next process', async () => {
    const engine = start();
    const pid = Number(await ask(engine, 'pid'));
    const lost = expect(ask(engine, 'sleep 60000')).rejects.toMatchObject({ code: 'engine' });
    const measured = engine.call('measure', {} as never);
    process.kill(pid, 'SIGKILL');
    await lost;
    expect(await measured).toBeNull();
  });

  test('of what keeps a record says that it goes on from there', async () => {
    const engine = start();
    await ask(engine, 'warm');
    await expect(engine.call('measure', { exit: 9 } as never)).rejects.toMatchObject({
      message: expect.stringMatching(/exit code 9.*What was recorded up to then is kept/),
    });
  });

  test('for want of memory is not answered by trying again', async () => {
    const engine = start();
    const pid = Number(await ask(engine, 'pid'));
    const lost = ask(engine, 'sleep 60000');
    const said = lost.then(String, (error: Error) => error.message);
    process.kill(pid, 'SIGKILL');
    expect(await said).toMatch(/memory ran out.*8 or 4 bits/);
    expect(await said).not.toContain('try again');
  });

  test('again and again is given up with a reason, and the next call tries once more', async () => {
    process.env.EMEND_TEST_ENGINE = 'crash';
    const engine = start({ deaths: 3 });
    await expect(ask(engine, 'hello')).rejects.toMatchObject({
      code: 'engine',
      message: expect.stringContaining('3 times in a row'),
    });
    expect(engine.state).toMatchObject({ state: 'failed', message: expect.stringContaining('exit code 7') });
    await expect(ask(engine, 'hello')).rejects.toMatchObject({ code: 'engine' });
    delete process.env.EMEND_TEST_ENGINE;
    expect(await ask(engine, 'hello')).toBe('hello');
  });

  test('never reports ready is ended and counted', async () => {
    const entry = join(import.meta.dirname, 'silentEngine.ts');
    const engine = startEngine({ launch: () => forkEngine(entry), patience: { start: 300, deaths: 1 } });
    engines.push(engine);
    await expect(ask(engine, 'hello')).rejects.toMatchObject({
      message: expect.stringContaining('not ready after'),
    });
  });
});

describe('ending', () => {
  test('stop ends the process and every call', async () => {
    const engine = start();
    const pid = Number(await ask(engine, 'pid'));
    const call = expect(ask(engine, 'sleep 20000')).rejects.toMatchObject({ code: 'engine' });
    await engine.stop();
    await call;
    expect(isAlive(pid)).toBe(false);
    await expect(ask(engine, 'late')).rejects.toMatchObject({ code: 'engine' });
  });

  test('stop ends a process that blocks', async () => {
    const engine = start({ stop: 200 });
    const pid = Number(await ask(engine, 'pid'));
    ask(engine, 'block 20000').catch(() => {});
    await engine.stop();
    expect(isAlive(pid)).toBe(false);
  });

  test('the process ends when its parent is killed', async () => {
    const { execFile } = await import('node:child_process');
    const parent = `
      const { forkEngine } = await import(${JSON.stringify(new URL('../../electron/engine/forkEngine.ts', import.meta.url).href)});
      const { startEngine } = await import(${JSON.stringify(new URL('../../electron/engine/supervisor.ts', import.meta.url).href)});
      const engine = startEngine({ launch: () => forkEngine(${JSON.stringify(join(import.meta.dirname, 'plainEngine.ts'))}) });
      const input = { picture: null, prompt: 'pid', edits: 'none', maxNewTokens: 8, sampling: null };
      console.log((await engine.call('ask', input)).text);
      process.kill(process.pid, 'SIGKILL');`;
    const printed = await new Promise<string>((resolve) => {
      execFile(process.execPath, ['--input-type=module', '-e', parent], (_error, stdout) => resolve(stdout));
    });
    const pid = Number(printed);
    expect(pid).toBeGreaterThan(0);
    for (let tries = 0; tries < 100 && isAlive(pid); tries++)
      await new Promise((resolve) => setTimeout(resolve, 50));
    expect(isAlive(pid)).toBe(false);
  });
});
