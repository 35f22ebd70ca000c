/**
 * @file The ways people ask: for every kind of question, templates made of a core (what is asked) and a frame (how it is led in
 * and out). Some combinations are held out of every training, and so are some cores in every frame.
 */
import { hashText } from './random.ts';

/** Kinds of question that have templates of their own; slots are named in braces. */
export const TEMPLATE_KINDS = [
  'what',
  'where',
  'at',
  'count',
  'relation',
  'background',
  'presence',
  'which',
] as const;
export type TemplateKind = (typeof TEMPLATE_KINDS)[number];

/** `taught`; `heldOut`: a combination that no training shows, of a core and a frame that training shows; `newCore`: a core that no training shows. */
export type WordingSet = 'taught' | 'heldOut' | 'newCore';

interface Cores {
  /** the wordings most often asked, as they stand */
  readonly usual: readonly string[];
  /** questions that stand alone: `What animal is this` */
  readonly questions: readonly string[];
  /** what can follow `tell me`: `which animal this is` */
  readonly clauses: readonly string[];
  /** what can follow `please`: `name the animal` */
  readonly requests: readonly string[];
  /** questions and clauses that no training shows, in any frame */
  readonly newQuestions: readonly string[];
  readonly newClauses: readonly string[];
}

const CORES: Readonly<Record<TemplateKind, Cores>> = {
  what: {
    usual: [
      'What {noun} is in the picture?',
      'Which {noun} do you see?',
      'What {noun} is this?',
      'Which {noun} is shown here?',
      'What is the {noun} in this image?',
      'Name the {noun} in the picture.',
    ],
    questions: [
      'what {noun} is this',
      'which {noun} is this',
      'what {noun} is shown',
      'which {noun} is shown here',
      'what {noun} do you see',
      'which {noun} can you see here',
      'what {noun} is in the picture',
      'which {noun} is in this photo',
      'what is the {noun} in the image',
      'what kind of {noun} is this',
      'what type of {noun} do you see',
      'what {noun} does the picture show',
      'what is this {noun} called',
      'what is the name of the {noun}',
      'which {noun} appears in the image',
    ],
    clauses: [
      'what {noun} this is',
      'which {noun} is shown',
      'which {noun} you see',
      'what {noun} is in the picture',
      'the name of the {noun}',
      'what kind of {noun} this is',
      'what this {noun} is called',
      'which {noun} the picture shows',
    ],
    requests: [
      'name the {noun}',
      'name this {noun}',
      'identify the {noun} in the picture',
      'give the name of the {noun}',
      'identify this {noun}',
    ],
    newQuestions: [
      'which kind of {noun} is in the photo',
      'what do you call this {noun}',
      'what {noun} appears here',
    ],
    newClauses: ['which {noun} this is', 'what type of {noun} is shown'],
  },
  where: {
    usual: [
      'Where is the {name}?',
      'In which part of the picture is the {name}?',
      'Where do you see the {name}?',
      'Where in the image is the {name}?',
      'What is the position of the {name}?',
    ],
    questions: [
      'where is the {name}',
      'where can you see the {name}',
      'where do you see the {name}',
      'where in the picture is the {name}',
      'in which part of the image is the {name}',
      'what is the position of the {name}',
      'where does the {name} appear',
      'in what part of the photo is the {name}',
      'where is the {name} shown',
      'at which place is the {name}',
      'what is the place of the {name} in the picture',
      'where is the {name} in this photo',
    ],
    clauses: [
      'where the {name} is',
      'where you see the {name}',
      'in which part of the picture the {name} is',
      'the position of the {name}',
      'where the {name} appears',
      'where in the image the {name} is',
      'the place of the {name}',
    ],
    requests: [
      'find the {name}',
      'locate the {name}',
      'give the position of the {name}',
      'name the place of the {name}',
    ],
    newQuestions: [
      'in which place do you see the {name}',
      'where is the {name} in the scene',
      'which part shows the {name}',
    ],
    newClauses: ['at which place the {name} is', 'where the picture shows the {name}'],
  },
  at: {
    usual: [
      'What is {place}?',
      'What do you see {place}?',
      'What is shown {place} of the picture?',
      'Which object is {place}?',
      'Name the object {place}.',
    ],
    questions: [
      'what is {place}',
      'what do you see {place}',
      'what can you see {place}',
      'what is shown {place} of the picture',
      'which object is {place}',
      'which thing is {place}',
      'what object do you see {place}',
      'what appears {place} of the image',
      'what is the object {place}',
      'what thing is shown {place}',
      'what is the thing {place} called',
    ],
    clauses: [
      'what is {place}',
      'what you see {place}',
      'which object is {place}',
      'what is shown {place}',
      'the name of the object {place}',
      'which thing is {place} of the picture',
    ],
    requests: [
      'name the object {place}',
      'name the thing {place}',
      'identify the object {place}',
      'name what is {place}',
    ],
    newQuestions: [
      'which object appears {place}',
      'what is the name of the thing {place}',
      'what kind of object is {place}',
    ],
    newClauses: ['what appears {place}', 'what the object {place} is called'],
  },
  count: {
    usual: [
      'How many {plural} are there?',
      'How many {plural} do you see?',
      'How many {plural} are in the picture?',
      'What is the number of {plural}?',
      'Count the {plural}.',
    ],
    questions: [
      'how many {plural} are there',
      'how many {plural} do you see',
      'how many {plural} can you see',
      'how many {plural} are in the picture',
      'how many {plural} are shown',
      'what is the number of {plural}',
      'how many {plural} does the image show',
      'how many {plural} appear in the photo',
      'what number of {plural} do you see',
      'how many {plural} are shown here',
    ],
    clauses: [
      'how many {plural} there are',
      'how many {plural} you see',
      'the number of {plural}',
      'how many {plural} are in the picture',
      'how many {plural} are shown',
      'how many {plural} the image shows',
    ],
    requests: [
      'count the {plural}',
      'give the number of {plural}',
      'count the {plural} in the picture',
      'count all {plural}',
    ],
    newQuestions: [
      'what is the number of {plural} in the image',
      'how many {plural} appear',
      'what number of {plural} is shown',
    ],
    newClauses: ['how many {plural} you can see', 'how many {plural} are in the photo'],
  },
  relation: {
    usual: [
      'What is {of} the {name}?',
      'What do you see {long} the {name}?',
      'Which object is {of} the {name}?',
      'Name the object {long} the {name}.',
      'What is shown {long} the {name}?',
    ],
    questions: [
      'what is {of} the {name}',
      'what is {long} the {name}',
      'what do you see {long} the {name}',
      'what can you see {of} the {name}',
      'which object is {of} the {name}',
      'which thing is {long} the {name}',
      'what is shown {long} the {name}',
      'what appears {of} the {name}',
      'what is the object {long} the {name}',
      'what thing do you see {of} the {name}',
    ],
    clauses: [
      'what is {of} the {name}',
      'what you see {long} the {name}',
      'which object is {of} the {name}',
      'what is shown {long} the {name}',
      'the name of the object {long} the {name}',
    ],
    requests: [
      'name the object {of} the {name}',
      'name the thing {long} the {name}',
      'identify the object {long} the {name}',
    ],
    newQuestions: ['which object appears {long} the {name}', 'what is the thing {of} the {name} called'],
    newClauses: ['which thing is {long} the {name}', 'what appears {long} the {name}'],
  },
  background: {
    usual: [
      'What color is the background?',
      'Which color does the background have?',
      'What is the color of the background?',
      'What color is behind the objects?',
      'Name the color of the background.',
      'What colour is the background?',
    ],
    questions: [
      'what color is the background',
      'which color is the background',
      'what colour does the background have',
      'what is the color of the background',
      'what color do you see behind the objects',
      'which colour is behind the objects',
      'what color is the background of the picture',
      'in what color is the background',
      'which color is shown behind the objects',
    ],
    clauses: [
      'what color the background is',
      'which color the background has',
      'the color of the background',
      'what colour is behind the objects',
      'which colour the background has',
    ],
    requests: [
      'name the color of the background',
      'give the colour of the background',
      'name the background color',
    ],
    newQuestions: [
      'which color appears behind the objects',
      'what is the colour behind the objects',
      'what background color is this',
    ],
    newClauses: ['what colour the background has', 'the color behind the objects'],
  },
  presence: {
    usual: [
      'Is there {one} in the picture?',
      'Do you see {one}?',
      'Is there {one}?',
      'Does the picture show {one}?',
      'Can you see {one} in this image?',
    ],
    questions: [
      'is there {one} in the picture',
      'is there {one}',
      'do you see {one}',
      'can you see {one}',
      'does the picture show {one}',
      'does the image show {one}',
      'is {one} shown here',
      'is {one} in the photo',
      'do you see {one} here',
      'does {one} appear in the picture',
    ],
    clauses: [
      'if there is {one}',
      'if you see {one}',
      'whether there is {one} in the picture',
      'whether the picture shows {one}',
      'if {one} is shown',
      'whether {one} is in the image',
    ],
    requests: [],
    newQuestions: ['does {one} appear here', 'is {one} in this picture', 'can {one} be seen'],
    newClauses: ['whether you see {one}', 'if {one} is in the photo'],
  },
  which: {
    usual: [
      'Which is {further}, the {first} or the {second}?',
      'What is {further}, the {first} or the {second}?',
      'Is the {first} or the {second} {further}?',
      'Which one is {further}: the {first} or the {second}?',
    ],
    questions: [
      'which is {further}, the {first} or the {second}',
      'what is {further}, the {first} or the {second}',
      'which one is {further}: the {first} or the {second}',
      'is the {first} or the {second} {further}',
      'which thing is {further}, the {first} or the {second}',
      'which object is {further}, the {first} or the {second}',
      'of the {first} and the {second}, which is {further}',
    ],
    clauses: [
      'which is {further}, the {first} or the {second}',
      'whether the {first} or the {second} is {further}',
      'what is {further}, the {first} or the {second}',
      'which one is {further}: the {first} or the {second}',
    ],
    requests: [],
    newQuestions: [
      'what thing is {further}, the {first} or the {second}',
      'of the {first} and the {second}, what is {further}',
    ],
    newClauses: [
      'if the {first} or the {second} is {further}',
      'which object is {further}, the {first} or the {second}',
    ],
  },
};

/** Frames of questions; `~` stands for the core, and its place says whether it is capitalised. */
const QUESTION_FRAMES = [
  '~?',
  '~, please?',
  'Please, ~?',
  'Please answer: ~?',
  'Question: ~?',
  'Now tell me, ~?',
  'Tell me: ~?',
  'Can you tell: ~?',
  'Look at the picture. ~?',
  'Look at the image and answer: ~?',
  'Here is a photo. ~?',
  'One question: ~?',
  '~? Answer with one word.',
  '~? Please answer.',
  '~ now?',
];
const CLAUSE_FRAMES = [
  'Tell me ~.',
  'Please tell me ~.',
  'Say ~.',
  'Please say ~.',
  'Can you tell me ~?',
  'Could you tell me ~?',
  'Would you please tell me ~?',
  'I want to know ~.',
  'I would like to know ~.',
  'Let me know ~.',
  'Look at the picture and tell me ~.',
  'Now say ~.',
];
const REQUEST_FRAMES = [
  '~.',
  'Please ~.',
  'Can you ~?',
  'Could you please ~?',
  'Look at the picture and ~.',
  'Now ~.',
  'I want you to ~.',
];

/** Of ten combinations so many are held out. */
const HELD_OUT_OF_TEN = 3;

/** Puts a core into a frame, with capitals where a sentence begins. */
function framed(frame: string, core: string): string {
  const at = frame.indexOf('~');
  const begins = at === 0 || frame.slice(0, at).endsWith('. ');
  return frame.replace('~', () => (begins ? core.charAt(0).toUpperCase() + core.slice(1) : core));
}

function combinations(cores: readonly string[], frames: readonly string[]): string[] {
  return cores.flatMap((core) => frames.map((frame) => framed(frame, core)));
}

function templatesOf(kind: TemplateKind): Readonly<Record<WordingSet, readonly string[]>> {
  const { usual, questions, clauses, requests, newQuestions, newClauses } = CORES[kind];
  const all = new Set([
    ...combinations(questions, QUESTION_FRAMES),
    ...combinations(clauses, CLAUSE_FRAMES),
    ...combinations(requests, REQUEST_FRAMES),
  ]);
  for (const template of usual) all.delete(template);
  const isHeldOut = (template: string) => hashText(`wording ${template}`) % 10 < HELD_OUT_OF_TEN;
  const fresh = [...combinations(newQuestions, QUESTION_FRAMES), ...combinations(newClauses, CLAUSE_FRAMES)];
  const taught = [...usual, ...[...all].filter((template) => !isHeldOut(template))];
  // `above the dog` fills both slots of relations: what one of them teaches is not held out by the other.
  const alike = (template: string) => template.replaceAll('{long}', '{of}');
  const known = new Set(taught.map(alike));
  const heldOut = [...all].filter((template) => isHeldOut(template) && !known.has(alike(template)));
  const combined = new Set([...all].map(alike));
  const newCore = [...new Set(fresh)].filter((template) => {
    return !combined.has(alike(template)) && !known.has(alike(template));
  });
  return { taught, heldOut, newCore };
}

const TEMPLATES = Object.fromEntries(TEMPLATE_KINDS.map((kind) => [kind, templatesOf(kind)])) as Record<
  TemplateKind,
  ReturnType<typeof templatesOf>
>;

/** Templates of a kind of question, with slots in braces. */
export function templates(kind: TemplateKind, set: WordingSet): readonly string[] {
  return TEMPLATES[kind][set];
}

/** The wordings most often asked, which stand first among the taught ones. */
export function usualTemplates(kind: TemplateKind): readonly string[] {
  return CORES[kind].usual;
}

/** The template with its slots filled. */
export function fill(template: string, slots: Readonly<Record<string, string>>): string {
  return template.replace(/\{(\w+)\}/g, (_, slot: string) => slots[slot] ?? `{${slot}}`);
}

/** Ways to type one and the same question: letter case, final marks and spaces do not change what is asked. */
export const TYPING = [
  'lower-initial',
  'no-mark',
  'lower-no-mark',
  'lower',
  'upper',
  'double-mark',
  'space-before-mark',
  'double-space',
] as const;
export type Typing = (typeof TYPING)[number];

/** The question as someone types it. */
export function typed(question: string, typing: Typing): string {
  const lowerInitial = question.charAt(0).toLowerCase() + question.slice(1);
  switch (typing) {
    case 'lower-initial':
      return lowerInitial;
    case 'no-mark':
      return question.replace(/[?.]$/, '');
    case 'lower-no-mark':
      return lowerInitial.replace(/[?.]$/, '');
    case 'lower':
      return question.toLowerCase();
    case 'upper':
      return question.toUpperCase();
    case 'double-mark':
      return question.replace(/([?.])$/, '$1$1');
    case 'space-before-mark':
      return question.replace(/([?.])$/, ' $1');
    case 'double-space':
      return question.replaceAll(' ', '  ');
  }
}
