/**
 * @file What the formats of data sets are called.
 */
import type { CallOutput } from '../../electron/api/contract.ts';

export const formatNames: Readonly<Record<CallOutput<'benchmarks.dataSet'>['format'], string>> = {
  evqa: 'E-VQA',
  eic: 'E-IC',
  vlkeb: 'VLKEB',
  mmke: 'MMKE-Bench',
  emend: 'Emend',
  csv: 'CSV',
};
