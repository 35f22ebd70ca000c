/**
 * @file Jobs in words.
 */
import type { JobRecord } from '../../electron/api/contract.ts';

const names: Readonly<Record<string, string>> = {
  'answers.ask': 'Question',
  'answers.chat': 'Question',
  'edits.preview': 'Preview',
  'checks.run': 'Check',
  'checks.runSet': 'Check',
  'checks.health': 'Health check',
  'edits.commitSet': 'Commit',
  'edits.import': 'Import',
  'edits.exportMany': 'Export',
  'attribution.modules': 'Module contribution',
  'attribution.visual': 'Visual contribution',
  'attribution.modality': 'Modalities',
  'attribution.gate': 'Gate',
  'attribution.propose': 'Layer proposal',
  'edits.retireMany': 'Retire',
  'edits.restoreMany': 'Restore',
  'edits.tagMany': 'Tag',
  'history.undo': 'Undo',
  'history.redo': 'Redo',
  'training.start': 'Training',
  'training.resume': 'Training',
  'training.keep': 'Keeping a training',
  'benchmarks.start': 'Benchmark',
  'benchmarks.resume': 'Benchmark',
  'benchmarks.dataSet': 'Reading',
  'benchmarks.export': 'Export',
  'models.open': 'Opening',
  'models.inspect': 'Looking into',
};

/** What a job is: “Check · edit 12”. */
export function jobName(job: Pick<JobRecord, 'kind' | 'subject'>): string {
  return [names[job.kind] ?? job.kind, job.subject].filter(Boolean).join(' · ');
}

/** How far a job is: “probes · 12 / 40 · 20 s left”, or what it waits for. */
export function progressWords(job: JobRecord | null, waiting: string): string {
  if (!job) return waiting;
  if (job.state === 'waiting') return job.waitsFor ? `Waits for ${job.waitsFor}` : waiting;
  if (!job.stage) return waiting;
  const amount =
    job.total === null
      ? job.done > 0 && `${job.done.toLocaleString()} ${job.unit}`
      : `${job.done.toLocaleString()} / ${job.total.toLocaleString()} ${job.unit}`;
  return [job.stage, amount, job.secondsLeft !== null && timeLeft(job.secondsLeft)]
    .filter(Boolean)
    .join(' · ');
}

/** “20 s left”, “3 min left”, “2 h left”: rounded, as it is an estimate. */
export function timeLeft(seconds: number): string {
  if (seconds < 1) return 'nearly done';
  if (seconds < 90) return `${Math.ceil(seconds)} s left`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min left` : `${Math.round(minutes / 60)} h left`;
}

/** How far a job is, 0..1, as a whole where it knows; null where that is not known. */
export function shareDone(job: JobRecord | null): number | null {
  if (!job || job.state === 'waiting') return null;
  const share = job.share ?? (job.total ? job.done / job.total : null);
  return share === null ? null : Math.min(1, Math.max(0, share));
}
