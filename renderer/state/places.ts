/**
 * @file The places of the page and how the address's hash names them.
 */

export const screens = [
  'workbench',
  'compare',
  'library',
  'health',
  'attribution',
  'benchmark',
  'training',
  'models',
  'settings',
] as const;
export type Screen = (typeof screens)[number];

/** A place as the hash says it; anything unknown is the workbench. */
export function placeOf(hash: string): { screen: Screen; edit: number | null } {
  const [name, id] = hash.replace(/^#\/?/, '').split('/');
  const screen = screens.find((known) => known === name) ?? 'workbench';
  const edit = id !== undefined && /^[1-9]\d{0,14}$/.test(id) ? Number(id) : null;
  return { screen, edit };
}

/** The hash of a place. */
export function hashOf(screen: Screen, edit: number | null = null): string {
  return edit === null ? `#/${screen}` : `#/${screen}/${edit}`;
}

/** What each screen is called. */
export const titles: Readonly<Record<Screen, string>> = {
  workbench: 'Workbench',
  compare: 'Compare',
  library: 'Library',
  health: 'Health',
  attribution: 'Attribution',
  benchmark: 'Benchmark',
  training: 'Training',
  models: 'Models',
  settings: 'Settings',
};

/** The window's title at a place: “Edit 12 – field-guide – Emend”. The library's name is null before it is known. */
export function titleOf(screen: Screen, edit: number | null, library: string | null): string {
  const place = screen === 'workbench' && edit !== null ? `Edit ${edit}` : titles[screen];
  return [place, library, 'Emend'].filter((part) => part !== null).join(' – ');
}
