/**
 * @file The kinds of probe in words, in the order a check tells them, and which kind a curator's probe is.
 */
import type { Edit, ProbeKind } from '../../electron/api/contract.ts';

/** Every kind, in the order the check's table shows them. */
export const probeKinds = [
  'reliability',
  'text-generality',
  'image-generality',
  'text-locality',
  'image-locality',
  'same-picture',
  'same-question',
  'committed',
] as const satisfies readonly ProbeKind[];

export const kindNames: Readonly<Record<ProbeKind, string>> = {
  reliability: 'Reliability',
  'text-generality': 'Text generality',
  'image-generality': 'Image generality',
  'text-locality': 'Text locality',
  'image-locality': 'Image locality',
  'same-picture': 'Same picture, other questions',
  'same-question': 'Same question, other pictures',
  committed: 'Committed edits, replayed',
};

export const kindMeanings: Readonly<Record<ProbeKind, string>> = {
  reliability: 'The edit itself: its picture and prompt must give the correction.',
  'text-generality': 'Other wordings of the prompt must give the correction too.',
  'image-generality': 'Other pictures of the same thing must give the correction too.',
  'text-locality': 'Questions without a picture must be answered as before.',
  'image-locality': 'Unrelated pictures with their own questions must be answered as before.',
  'same-picture': 'Other questions about the edit’s own picture must be answered as before.',
  'same-question': 'The edit’s question about unrelated pictures must be answered as before.',
  committed: 'Probes of every edit already committed must still be answered as they were.',
};

/** What a curator may want of a probe. */
export type ProbeWish = 'must-change' | 'must-not-change';

/** The wish a kind of probe belongs to. */
export function wishOf(kind: ProbeKind): ProbeWish {
  return kind === 'reliability' || kind === 'text-generality' || kind === 'image-generality'
    ? 'must-change'
    : 'must-not-change';
}

/** The kinds a curator can add. */
export type OwnProbeKind = Exclude<ProbeKind, 'reliability' | 'committed'>;

/**
 * Which kind a curator's probe is, from what it must do and how it differs from the edit. Null when it is no probe of
 * that wish: the edit itself, or a probe without a picture that must also change.
 */
export function kindOfProbe(
  wish: ProbeWish,
  edit: Pick<Edit, 'picture' | 'prompt'>,
  probe: { picture: string | null; prompt: string },
): OwnProbeKind | null {
  const samePicture = probe.picture === edit.picture;
  const samePrompt = probe.prompt.trim().toLowerCase() === edit.prompt.trim().toLowerCase();
  if (samePicture && samePrompt) return null;
  if (wish === 'must-change') {
    if (probe.picture === null) return null;
    return samePicture ? 'text-generality' : 'image-generality';
  }
  if (probe.picture === null) return 'text-locality';
  if (samePicture) return 'same-picture';
  return samePrompt ? 'same-question' : 'image-locality';
}
