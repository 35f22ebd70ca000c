/**
 * @file The demo model's tokenizer: byte-pair encoding trained on every text of the demo world, in Llama's format.
 *
 * Every word of the demo world ends as one token with its leading '▁', so a one-word answer is one token.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { facts } from './world/facts.ts';
import { OBJECTS, withArticle } from './world/objects.ts';
import { captionWordings, NUMBERS, RELATIONS, type Topic, topicNouns, wordings } from './world/questions.ts';
import { COLOUR_NAMES, PLACES } from './world/scene.ts';

/** The marker that stands for a space before a word. */
const SPACE = '▁';
const SPECIAL = ['<unk>', '<s>', '</s>'] as const;
const BYTES = 256;
/** Letters and marks that stay writable one by one; everything else falls back to bytes. */
const CHARACTERS = [SPACE, ...Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i)).slice(1)];

/** Words of ordinary prompts that no text of the demo world happens to use. */
const PROMPT_WORDS =
  'The answer is: Please tell me, what is it? Answer with one word. Question: no none it they';

export interface TokenizerFiles {
  /** tokenizer.json */
  tokenizer: {
    model: { vocab: Record<string, number>; merges: [string, string][] };
    added_tokens: { id: number; content: string }[];
  } & Record<string, unknown>;
  /** tokenizer_config.json */
  config: Record<string, unknown>;
  /** special_tokens_map.json */
  specialTokens: Record<string, string>;
}

/** Number of token ids, `<image>` and `<pad>` included. */
export function vocabularySize(files: TokenizerFiles): number {
  return Object.keys(files.tokenizer.model.vocab).length + 2;
}

/** Questions about pictures in every wording, held-out ones too: their words are tokens, whatever is taught of them. */
export function pictureTexts(): string[] {
  const [first, second] = OBJECTS.map(({ name }) => name) as [string, string];
  const topics: Topic[] = [
    ...topicNouns().map((noun) => ({ kind: 'what', noun }) as const),
    ...PLACES.map((place) => ({ kind: 'at', place }) as const),
    { kind: 'where', object: first },
    { kind: 'count', object: first },
    { kind: 'presence', object: first },
    { kind: 'background' },
    ...RELATIONS.flatMap((relation) => [
      { kind: 'relation', relation, object: first } as const,
      { kind: 'which', relation, first, second } as const,
    ]),
  ];
  const sets = ['taught', 'heldOut', 'newCore'] as const;
  return [
    ...topics.flatMap((topic) => sets.flatMap((set) => wordings(topic, set))),
    ...captionWordings(),
    ...OBJECTS.flatMap((kind) => [kind.name, kind.plural, withArticle(kind)]),
  ];
}

/** The rest of the language of the demo world: facts, answers, and words of ordinary prompts. */
export function otherTexts(): string[] {
  return [
    ...facts().flatMap((fact) => [...fact.questions, fact.answer]),
    ...NUMBERS,
    ...PLACES,
    ...COLOUR_NAMES,
    'yes',
    PROMPT_WORDS,
  ];
}

/** Trains the tokenizer. The same texts give the same files. */
export function trainTokenizer(): TokenizerFiles {
  const merges = learnMerges(wordForms(pictureTexts(), otherTexts()));
  const vocab: Record<string, number> = {};
  let size = 0;
  const add = (token: string): void => {
    if (vocab[token] === undefined) vocab[token] = size++;
  };
  for (const token of SPECIAL) add(token);
  for (let byte = 0; byte < BYTES; byte++) add(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
  for (const [left, right] of merges) add(left + right);
  for (const character of CHARACTERS) add(character);
  const addedTokens = [...SPECIAL.map((content, id) => ({ id, content }))];
  const added = [...addedTokens, { id: size, content: '<image>' }, { id: size + 1, content: '<pad>' }].map(
    specialToken,
  );
  return {
    tokenizer: tokenizerJson(vocab, merges, added),
    config: tokenizerConfig(added),
    specialTokens: { bos_token: '<s>', eos_token: '</s>', pad_token: '<pad>', unk_token: '<unk>' },
  };
}

/** Writes tokenizer.json, tokenizer_config.json and special_tokens_map.json into a folder. */
export async function writeTokenizer(
  folder: string,
  files: TokenizerFiles = trainTokenizer(),
): Promise<void> {
  await mkdir(folder, { recursive: true });
  const write = (name: string, value: unknown): Promise<void> =>
    writeFile(path.join(folder, name), `${JSON.stringify(value, undefined, 2)}\n`);
  await write('tokenizer.json', files.tokenizer);
  await write('tokenizer_config.json', files.config);
  await write('special_tokens_map.json', files.specialTokens);
}

/**
 * The words to be single tokens. Each with its '▁'; first words also without, as they follow the line break after
 * `<image>`, and in lower case, as people type them. Words of questions about pictures also in capitals.
 */
function wordForms(asked: readonly string[], others: readonly string[]): Map<string, number> {
  const forms = new Map<string, number>();
  const count = (form: string): void => {
    forms.set(form, (forms.get(form) ?? 0) + 1);
  };
  const words = (text: string, capitals: boolean): void => {
    const isPrompt = /[?.]/.test(text);
    for (const [i, word] of (text.match(/[A-Za-z]+/g) ?? []).entries()) {
      const typed = new Set([word, ...(capitals ? [word.toUpperCase()] : [])]);
      if (i === 0 || /^[A-Z]/.test(word)) typed.add(word.charAt(0).toLowerCase() + word.slice(1));
      for (const form of typed) {
        count(SPACE + form);
        if (i === 0 && isPrompt) count(form);
      }
    }
  };
  for (const text of asked) words(text, true);
  for (const text of others) words(text, false);
  return forms;
}

/** Byte-pair encoding: joins the most frequent pair again and again until every word is one token. */
function learnMerges(words: ReadonlyMap<string, number>): [string, string][] {
  let pending = [...words]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([word, count]) => ({ symbols: [...word], count: Math.log2(1 + count) }));
  const merges: [string, string][] = [];
  for (;;) {
    pending = pending.filter((word) => word.symbols.length > 1);
    if (pending.length === 0) return merges;
    const counts = new Map<string, number>();
    for (const { symbols, count } of pending) {
      for (let i = 0; i + 1 < symbols.length; i++) {
        const pair = `${symbols[i]} ${symbols[i + 1]}`;
        counts.set(pair, (counts.get(pair) ?? 0) + count);
      }
    }
    let best = '';
    let most = 0;
    for (const [pair, count] of counts) {
      if (count > most + 1e-9) [best, most] = [pair, count];
    }
    const [left = '', right = ''] = best.split(' ');
    merges.push([left, right]);
    for (const word of pending) joinPair(word.symbols, left, right);
  }
}

function joinPair(symbols: string[], left: string, right: string): void {
  for (let i = 0; i + 1 < symbols.length; i++) {
    if (symbols[i] === left && symbols[i + 1] === right) symbols.splice(i, 2, left + right);
  }
}

function specialToken({ id, content }: { id: number; content: string }) {
  return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
}

function tokenizerJson(
  vocab: Record<string, number>,
  merges: [string, string][],
  added: ReturnType<typeof specialToken>[],
): TokenizerFiles['tokenizer'] {
  const start = (typeId: number) => ({ SpecialToken: { id: '<s>', type_id: typeId } });
  const sequence = (id: 'A' | 'B', typeId: number) => ({ Sequence: { id, type_id: typeId } });
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: added,
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: SPACE },
        { type: 'Replace', pattern: { String: ' ' }, content: SPACE },
      ],
    },
    pre_tokenizer: null,
    post_processor: {
      type: 'TemplateProcessing',
      single: [start(0), sequence('A', 0)],
      pair: [start(0), sequence('A', 0), start(1), sequence('B', 1)],
      special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
    },
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: SPACE }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: '<unk>',
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab,
      merges,
    } as TokenizerFiles['tokenizer']['model'],
  };
}

/** The plain form of the papers: `<image>`, a line break, the prompt; answers follow a space. */
const CHAT_TEMPLATE =
  "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ ' ' }}{% endif %}" +
  "{% if message['content'] is string %}{{ message['content'] }}{% else %}" +
  "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<image>\\n' }}{% endif %}{% endfor %}" +
  "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}" +
  '{% endif %}{% endfor %}';

function tokenizerConfig(added: ReturnType<typeof specialToken>[]): Record<string, unknown> {
  return {
    add_bos_token: true,
    add_eos_token: false,
    added_tokens_decoder: Object.fromEntries(added.map(({ id, ...token }) => [String(id), token])),
    bos_token: '<s>',
    chat_template: CHAT_TEMPLATE,
    clean_up_tokenization_spaces: false,
    eos_token: '</s>',
    legacy: false,
    // far above any text here; transformers writes a number of this kind for "no limit"
    model_max_length: 1000000000000,
    pad_token: '<pad>',
    padding_side: 'left',
    processor_class: 'LlavaProcessor',
    sp_model_kwargs: {},
    tokenizer_class: 'LlamaTokenizer',
    unk_token: '<unk>',
    use_default_system_prompt: false,
  };
}
