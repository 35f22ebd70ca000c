/**
 * @file E-IC: captions in place of answers. Its files have E-VQA's fields, its prompts ask to describe the picture ("a photo of"), and
 * its targets are whole captions; nothing in a row tells it from E-VQA for certain, so that it is read as that unless it is named.
 */
import { evqa } from './evqa.ts';
import type { SetFormat } from './record.ts';

export const eic: SetFormat = { ...evqa, name: 'eic', title: 'E-IC' };
