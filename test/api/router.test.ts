/** @file What crosses the contract is checked, both ways; long calls can be followed and stopped. */
import sharp from 'sharp';
import { describe, expect, test } from 'vitest';
import { calls } from '../../electron/api/contract.ts';
import { Jobs } from '../../electron/api/jobs.ts';
import { createRouter, type Handlers, wireError } from '../../electron/api/router.ts';
import { EmendError } from '../../electron/errors.ts';
import {
  busyEngine,
  deadEngine,
  makeApplication,
  modelFolder,
  pngBase64,
  temporaryFolder,
} from './support.ts';

describe('input', () => {
  test.each<[string, unknown, RegExp]>([
    ['edits.create', { picture: 'x', prompt: 'p', target: 't' }, /"picture"/],
    ['edits.create', { picture: 'a'.repeat(64), prompt: ' ', target: 't' }, /"prompt"/],
    ['edits.create', null, /edits\.create/],
    ['edits.show', { id: -1 }, /"id"/],
    ['edits.show', {}, /"id"/],
    ['answers.ask', { picture: null, prompt: 'p', edits: 'all' }, /"edits"/],
    [
      'answers.ask',
      { picture: null, prompt: 'p', edits: 'none', sampling: { temperature: 9 } },
      /"sampling\.temperature"/,
    ],
    ['settings.set', { policy: { required: { reliability: 1 } } }, /"policy\.required/],
    ['jobs.cancel', { job: '' }, /"job"/],
    ['no.such.call', {}, /no call "no\.such\.call"/],
    ['__proto__', {}, /no call/],
    ['toString', {}, /no call/],
  ])('of %s that breaks the contract is refused, and the field named: %j', async (name, input, message) => {
    const error = await makeApplication(deadEngine).dispatch(name, input).catch(wireError);
    expect(error).toMatchObject({ code: 'invalid-input', message: expect.stringMatching(message) });
  });

  test('pictures must be base64 of a picture', async () => {
    const application = makeApplication(deadEngine);
    const base64 = await pngBase64(3);
    const refused = (text: string) => application.call('pictures.add', { base64: text }).catch(wireError);
    const notWhole = {
      code: 'invalid-input',
      message: 'The picture did not arrive whole. Choose its file again.',
    };
    expect(await refused('%%%')).toEqual(notWhole);
    expect(await refused(`${base64.slice(0, 40)}*${base64.slice(40)}`)).toEqual(notWhole);
    expect(await refused(Buffer.from('hello').toString('base64'))).toEqual({
      code: 'damaged',
      message: 'The picture cannot be read: it is no picture that Emend knows. Choose another file.',
    });
    const picture = await application.call('pictures.add', { base64 });
    expect(await application.call('pictures.read', { id: picture.id })).toEqual({
      picture,
      base64,
      mime: picture.mime,
    });
  });

  test('a picture of a kind pages do not show is read as one they do', async () => {
    const application = makeApplication(deadEngine);
    const tiff = await sharp(Buffer.from(await pngBase64(3), 'base64'))
      .tiff()
      .toBuffer();
    const { id } = await application.call('pictures.add', { base64: tiff.toString('base64') });
    const { picture, mime, base64 } = await application.call('pictures.read', { id });
    expect([picture.mime, mime]).toEqual(['image/tiff', 'image/png']);
    const { format, width } = await sharp(Buffer.from(base64, 'base64')).metadata();
    expect([format, width]).toEqual(['png', picture.width]);
  });
});

/** A router on which only some calls do anything. */
function routerOf(some: Partial<Handlers>) {
  const none = () => {
    throw new EmendError('unsupported', 'not in this test');
  };
  const handlers = Object.fromEntries(Object.keys(calls).map((name) => [name, none])) as unknown as Handlers;
  return createRouter({ ...handlers, ...some }, new Jobs());
}

test('an answer that breaks the contract, and any unknown error, is told as a mistake of ours without a stack', async () => {
  const dispatch = routerOf({
    'models.recent': () => [{ path: '/m', name: 'm', opened: 7 as unknown as string }],
    'probes.standing': () => {
      throw new TypeError('x is not a function\n    at secret.ts:1');
    },
  });
  expect(wireError(await dispatch('models.recent', {}).catch((error: unknown) => error))).toMatchObject({
    code: 'internal',
    message: expect.stringContaining('"0.opened"'),
  });
  const told = wireError(await dispatch('probes.standing', {}).catch((error: unknown) => error));
  expect(told.code).toBe('internal');
  expect(told.message).not.toMatch(/secret|\n/);
});

test('jobs: an id runs once at a time, is cancelled by its id, and is free again afterwards', async () => {
  const application = makeApplication(busyEngine);
  const path = modelFolder(temporaryFolder(), 'some-model');
  const opening = application.call('models.open', { path }, { job: 'j1' }).catch(wireError);
  expect(await application.call('models.open', { path }, { job: 'j1' }).catch(wireError)).toMatchObject({
    code: 'conflict',
    message: expect.stringContaining('"j1"'),
  });
  await application.call('jobs.cancel', { job: 'of nobody' });
  await application.call('jobs.cancel', { job: 'j1' });
  expect(await opening).toMatchObject({ code: 'cancelled' });
  const again = application.call('models.open', { path }, { job: 'j1' }).catch(wireError);
  await application.call('jobs.cancel', { job: 'j1' });
  expect(await again).toMatchObject({ code: 'cancelled' });
  expect(await application.call('models.recent', {})).toEqual([]);
  expect(
    await application.dispatch('models.open', { path }, { job: 'x'.repeat(65) }).catch(wireError),
  ).toMatchObject({
    code: 'invalid-input',
  });
});

test('closing stops what is running', async () => {
  const application = makeApplication(busyEngine);
  const path = modelFolder(temporaryFolder(), 'some-model');
  const opening = application.call('models.inspect', { path }).catch(wireError);
  await application.close();
  expect(await opening).toMatchObject({ code: 'cancelled' });
});
