/**
 * @file What a scope is learnt from: pictures, what is asked about them, and who is in whose scope.
 */
import type { Pixels } from '../../../models/picture.ts';
import type { Reach } from '../scope.ts';

/** A question asked about a scene, in several wordings. */
export interface ScopeAsk {
  /** place in the family's scenes */
  readonly scene: number;
  /** what is asked, free of wording: equal texts are the same question */
  readonly question: string;
  /** kind of question; the same kind about the same thing elsewhere is in the reach of a "thing" edit */
  readonly kind: string;
  /** the thing the answer tells of, as it is drawn; null where the picture has no answer */
  readonly about: string | null;
  /** whether the answer is the thing's name: then other questions for its name belong to it too, see `inScope` */
  readonly names: boolean;
  /** whether other pictures may answer it doubtfully (what is left of a thing?): then it is asked of none that is not known to */
  readonly doubtful: boolean;
  readonly wordings: readonly string[];
}

/** Pictures that belong together: shots of one scene, and scenes made from it that show something else. */
export interface ScopeFamily {
  /** the scene that each picture shows; pictures of one scene are in each other's scope */
  readonly pictures: readonly number[];
  readonly asks: readonly ScopeAsk[];
  /**
   * Everything its scenes answer, asked here or not: a question that is not among them has no answer there. Null where nobody knows;
   * then no question of other families is asked of them.
   */
  readonly answers: ReadonlyArray<Omit<ScopeAsk, 'wordings'>> | null;
}

/** Where examples come from. */
export interface ScopeSource {
  /** says what the examples depend on */
  readonly name: string;
  readonly families: number;
  /** Family number `index` with its pictures. */
  family(index: number): Promise<{ readonly family: ScopeFamily; readonly pixels: readonly Pixels[] }>;
  close(): Promise<void>;
}

/** An ask with its texts numbered, so that pairs are compared quickly. Equal numbers mean equal things; −1 equals nothing. */
export interface NumberedAsk {
  readonly family: number;
  readonly scene: number;
  readonly question: number;
  /** kind and thing together */
  readonly thing: number;
  readonly about: number;
  readonly names: boolean;
  readonly doubtful: boolean;
  /** places in the list of prompts */
  readonly prompts: readonly number[];
}

/**
 * Whether `input` is in the scope of `edit`: true, false, or null where nobody could say (of the same scene, it asks for the same
 * thing's name in another way). Reach `picture`: the same question about the same scene. Reach `thing`: the same kind of question
 * about the same thing anywhere, and every question for its name if the edit's is one.
 */
export function inScope(edit: NumberedAsk, input: NumberedAsk, reach: Reach): boolean | null {
  const sameScene = edit.family === input.family && edit.scene === input.scene;
  const sameQuestion = edit.question === input.question;
  const sameThing = edit.thing >= 0 && edit.thing === input.thing;
  if (sameScene && sameQuestion) return true;
  const sameName = edit.names && input.names && edit.about >= 0 && edit.about === input.about;
  if (reach === 'thing' && (sameThing || sameName)) return true;
  if (sameName && sameScene) return null;
  // A scene made from the edit's own in which the asked thing stayed what it was.
  if (edit.family === input.family && sameQuestion && sameThing) return null;
  return false;
}
