/** @file The families there are. Growth is a folder beside this file and a line in this list. */
import type { Family } from '../family.ts';
import { idefics3 } from './idefics3/idefics3.ts';
import { llava } from './llava/llava.ts';
import { blip2, miniGpt4 } from './qformer/qformer.ts';
import { qwen2_5Vl, qwen3Vl } from './qwenVl/qwenVl.ts';

export const families = [
  llava,
  qwen2_5Vl,
  qwen3Vl,
  idefics3,
  blip2,
  miniGpt4,
] as unknown as readonly Family[];
