import { describe, expect, it } from 'vitest';
import type { JobRecord } from '../../electron/api/contract.ts';
import { jobName, progressWords, shareDone, timeLeft } from '../../renderer/shell/jobWords.ts';

const job: JobRecord = {
  id: 'a',
  kind: 'checks.run',
  subject: 'edit 12',
  edit: 12,
  ownEngine: false,
  state: 'running',
  waitsFor: null,
  stage: 'asking probes',
  done: 12,
  total: 48,
  unit: 'probes',
  secondsLeft: 19.2,
  started: '2026-01-01T10:00:00.000Z',
  ended: null,
  outcome: null,
  log: [],
};

describe('a job in words', () => {
  it('says what it is, how far it is, and how long it still takes', () => {
    expect(jobName(job)).toBe('Check · edit 12');
    expect(progressWords(job, '')).toBe('asking probes · 12 / 48 probes · 20 s left');
    expect(shareDone(job)).toBe(0.25);
    expect(progressWords({ ...job, total: null, secondsLeft: null }, '')).toBe('asking probes · 12 probes');
    expect(shareDone({ ...job, total: null })).toBeNull();
  });

  it('says what it waits for', () => {
    const waiting = { ...job, state: 'waiting', waitsFor: 'the check of edit 7' } as const;
    expect(progressWords(waiting, 'Waiting')).toBe('Waits for the check of edit 7');
    expect(shareDone(waiting)).toBeNull();
    expect(progressWords(null, 'Waiting')).toBe('Waiting');
  });

  it('rounds the time left, as it is an estimate', () => {
    expect([0.4, 19.2, 89, 90, 1800, 9000].map(timeLeft)).toEqual([
      'nearly done',
      '20 s left',
      '89 s left',
      '2 min left',
      '30 min left',
      '3 h left',
    ]);
  });
});
