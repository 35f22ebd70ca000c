/**
 * @file The keys of the page, by where they work, as the list of shortcuts shows them.
 */

interface Shortcut {
  /** any one of these does it */
  readonly keys: readonly string[];
  readonly does: string;
}

export const shortcuts: ReadonlyArray<{ readonly where: string; readonly keys: readonly Shortcut[] }> = [
  {
    where: 'Everywhere',
    keys: [
      { keys: ['N'], does: 'New edit' },
      { keys: ['Ctrl Z'], does: 'Take back the last change to the library' },
      { keys: ['Ctrl Shift Z', 'Ctrl Y'], does: 'Do again what was taken back' },
      { keys: ['?'], does: 'These shortcuts' },
    ],
  },
  {
    where: 'Workbench',
    keys: [
      { keys: ['Enter'], does: 'In the prompt: ask. In the correction: preview' },
      { keys: ['Ctrl Enter'], does: 'Ask' },
      { keys: ['C', 'Ctrl Shift Enter'], does: 'Run the check' },
      { keys: ['M'], does: 'Commit, and on to the next edit' },
      { keys: ['R'], does: 'Retire, and on to the next edit' },
      { keys: ['S', 'J'], does: 'Skip: on to the next edit of the list' },
      { keys: ['K'], does: 'Back to the previous edit of the list' },
      { keys: ['Esc'], does: 'Stop what runs' },
      { keys: ['Arrows'], does: 'On the influence map: from cell to cell' },
    ],
  },
  {
    where: 'Compare',
    keys: [
      { keys: ['Enter'], does: 'Ask both' },
      { keys: ['Shift Enter'], does: 'A new line' },
      { keys: ['←', '→'], does: 'In an answer: from token to token' },
      { keys: ['Esc'], does: 'Stop what runs' },
    ],
  },
  {
    where: 'Benchmark',
    keys: [
      { keys: ['['], does: 'Of several comparisons: the one before' },
      { keys: [']'], does: 'The next one' },
      { keys: ['Shift click'], does: 'On an editor: its answers beside those in view' },
    ],
  },
  {
    where: 'Library',
    keys: [
      { keys: ['/'], does: 'Search' },
      { keys: ['↓', 'J'], does: 'Next edit' },
      { keys: ['↑', 'K'], does: 'Previous edit' },
      { keys: ['Home', 'End'], does: 'First, last edit' },
      { keys: ['Page ↓', 'Page ↑'], does: 'Ten further, ten back' },
      { keys: ['Enter'], does: 'Open it on the workbench' },
      { keys: ['Space', 'Ctrl click'], does: 'Select it, or no longer' },
      { keys: ['Shift ↓', 'Shift click'], does: 'Select up to it' },
      { keys: ['Ctrl A'], does: 'Select all that match' },
      { keys: ['Esc'], does: 'Clear the selection' },
    ],
  },
];
