/**
 * @file How the demo's editors are trained: the commands, in the order in which one needs another.
 */
import { join } from 'node:path';
import { EmendError } from '../errors.ts';

/** A run of `emend train`. */
export interface EditorTraining {
  readonly editor: string;
  readonly steps: number;
  /** of the adapter that comes of it; its state and record lie in `training` below */
  readonly folder: string;
  /** what stands behind `emend train` */
  readonly args: readonly string[];
}

export const demoEditors = ['VisEdit', 'DualEdit', 'MEND', 'KE', 'LTE', 'SERAC'] as const;
export type DemoEditor = (typeof demoEditors)[number];

/** Settings that VisEdit's and DualEdit's adapters share. */
const rows =
  '--layer 0 --batch 8 --warm-up 50 --middle 512 --influence-middle 320 --heads 8 --attention row-kinds ' +
  '--start similarity --scale 1 --rows 160 --image-generality-weight 1.5 --provider cpu';
const visEdit = `${rows} --sampled 12 --influence-pictures one --influence-weight 0.1 --attribution-weight 0.1 --locality-weight 1.5`;
const dualEdit = `${rows} --sampled 12 --text-layer 2 --influence-weight 0 --attribution-weight 0 --locality-weight 0.3`;
/** Of VisEdit's mapper that reads the whole prompt and is drawn over what layer 3 reads, and of the changes under it. */
const wholePrompt =
  `${rows} --influence-key prompt --sampled 100 --influence-pictures one --influence-up-weight 0 ` +
  '--influence-down-weight 0.1 --attribution-weight 0.02 --attribution-layers 3 --locality-weight 1.5';

/**
 * The trainings of these editors into a folder, on edits that are composed as they are needed. VisEdit's goes on twice from its own weights, at a
 * lower rate each time, then its influence mapper is trained alone, and all of it together; DualEdit's begins with VisEdit's before that.
 */
export function editorTrainings(out: string, editors: readonly DemoEditor[] = demoEditors): EditorTraining[] {
  const data = join(import.meta.dirname, 'editingSource.ts');
  const training = (
    editor: DemoEditor,
    name: string,
    count: number,
    options: string,
    from?: string,
  ): EditorTraining => {
    const folder = join(out, name);
    const args = ['--editor', editor, '--data', data, '--extended', '--out', folder, '--name', name];
    if (from !== undefined) args.push('--from', from);
    return { editor, steps: count, folder, args: [...args, '--steps', String(count), ...options.split(' ')] };
  };
  const at = (name: string) => join(out, name);
  const fours = '--batch 4 --rate 1e-3 --provider cpu';
  /** VisEdit's with the paper's mapper. */
  const asPublished = () => [
    training('VisEdit', 'visedit-begun', 6800, `${visEdit} --rate 6e-4`),
    training('VisEdit', 'visedit-further', 2600, `${visEdit} --rate 4e-4`, at('visedit-begun')),
    training('VisEdit', 'visedit-published', 3600, `${visEdit} --rate 3e-4`, at('visedit-further')),
  ];
  const of: Record<DemoEditor, () => EditorTraining[]> = {
    VisEdit: () => [
      ...asPublished(),
      training(
        'VisEdit',
        'visedit-mapper',
        6000,
        `${wholePrompt} --overlap-weight 1 --trains mapper --rate 1e-3`,
        at('visedit-published'),
      ),
      training(
        'VisEdit',
        'visedit-demo',
        6000,
        `${wholePrompt} --overlap-weight 2.5 --rate 4e-4`,
        at('visedit-mapper'),
      ),
    ],
    DualEdit: () => [
      ...asPublished(),
      training('DualEdit', 'dualedit-begun', 2000, `${dualEdit} --rate 4e-4`, at('visedit-published')),
      training('DualEdit', 'dualedit-demo', 1400, `${dualEdit} --rate 3e-4 --seed 2`, at('dualedit-begun')),
    ],
    MEND: () => [
      training(
        'MEND',
        'mend-demo',
        2000,
        '--batch 2 --rate 1e-5 --warm-up 10 --rank 64 --edit-rate 3e-4 --locality-weight 0.3 --provider cpu',
      ),
    ],
    KE: () => [training('KE', 'ke-demo', 2000, `${fours} --condition-width 256 --max-scale 30`)],
    LTE: () => [training('LTE', 'lte-demo', 2000, `${fours} --threshold 0.3`)],
    SERAC: () => [training('SERAC', 'serac-demo', 1500, `${fours} --width 256`)],
  };
  const all = demoEditors.filter((editor) => editors.includes(editor)).flatMap((editor) => of[editor]());
  return [...new Map(all.map((one) => [one.folder, one])).values()];
}

/** Editors by their names, as VisEdit,MEND. @throws EmendError 'invalid-input' */
export function demoEditorsNamed(text: string): DemoEditor[] {
  return text.split(',').map((name) => {
    const found = demoEditors.find((editor) => editor === name);
    if (found) return found;
    throw new EmendError('invalid-input', `--editor ${name}: give some of ${demoEditors.join(',')}`);
  });
}
