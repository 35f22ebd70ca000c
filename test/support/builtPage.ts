/** @file Before the page tests: page, preload and programs, built where they are older than their sources. */
import { buildStale } from '../../electron/build.ts';

export default async function setup(): Promise<void> {
  await buildStale(['page', 'main', 'preload']);
}
