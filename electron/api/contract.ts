/**
 * @file The contract: every call and every event once, with its schema. The window, the loopback page and the
 * command line all speak it and nothing else. Imports nothing of Node, so that the page can use it too.
 */
import { z } from 'zod';

/** sha256 of the picture file's bytes, in hex. */
export const PictureId = z.string().regex(/^[0-9a-f]{64}$/);
export const EditId = z.number().int().positive();
export const JobId = z.string().min(1).max(64);
const Prompt = z.string().trim().min(1).max(4000);
const Moment = z.string(); // ISO 8601, UTC

export const Picture = z.object({
  id: PictureId,
  width: z.number().int(),
  height: z.number().int(),
  bytes: z.number().int(),
  /** 'image/png', 'image/jpeg', … */
  mime: z.string(),
});
export type Picture = z.infer<typeof Picture>;

export const Alternative = z.object({ id: z.number().int(), text: z.string(), probability: z.number() });
export const AnswerToken = Alternative.extend({ alternatives: z.array(Alternative) });
export type AnswerToken = z.infer<typeof AnswerToken>;

/** How far an edit goes: its own picture and its like, or wherever the thing it is about is shown and asked about alike. */
export const Reach = z.enum(['picture', 'thing']);
export type Reach = z.infer<typeof Reach>;

/** An edit that came near an input, as the scope compared them. */
export const ScopeMatch = z.object({
  edit: EditId,
  reach: Reach,
  /** of the keys, −1..1 */
  similarity: z.number(),
  /** log odds that the edit should act */
  score: z.number(),
  /** the score from which an edit of this reach acts in a library of this size */
  threshold: z.number(),
  /** score − threshold */
  margin: z.number(),
});
export type ScopeMatch = z.infer<typeof ScopeMatch>;

/**
 * What decides where edits act: `learned`, or the `cosine` similarity at the last prompt token where none was trained; `everywhere`: nothing,
 * all act on every input together; `own`: the editor itself.
 */
export const ScopeForm = z.enum(['learned', 'cosine', 'everywhere', 'own']);
export type ScopeForm = z.infer<typeof ScopeForm>;

/** The scope of an open model. */
export const ScopeSummary = z.object({
  form: ScopeForm,
  fingerprint: z.string(),
  /** what was measured on held-out inputs at sizes of a library; empty where it was not calibrated so */
  curve: z.array(
    z.object({
      /** committed edits */
      edits: z.number().int(),
      reach: Reach,
      threshold: z.number(),
      /** shares 0..1: inputs in an edit's reach answered by it, inputs out of every reach answered by one all the same */
      right: z.number(),
      harm: z.number(),
    }),
  ),
});
export type ScopeSummary = z.infer<typeof ScopeSummary>;

/** What the scope decided for one input. */
export const Routing = z.object({
  /** the edit that acted; null when none did */
  edit: EditId.nullable(),
  /** the match with the best margin, acting or not; null when no edit came near */
  closest: EditId.nullable(),
  score: z.number().nullable(),
  threshold: z.number().nullable(),
  margin: z.number().nullable(),
  /** those that were scored, best margin first */
  matches: z.array(ScopeMatch),
});
export type Routing = z.infer<typeof Routing>;

export const Answer = z.object({
  text: z.string(),
  tokens: z.array(AnswerToken),
  /** why generation ended */
  ended: z.enum(['stop-token', 'stop-text', 'length']),
  provider: z.string(),
  /** milliseconds */
  times: z.object({ picture: z.number(), prompt: z.number(), generation: z.number(), total: z.number() }),
  routing: Routing.nullable(),
  /** how many committed edits acted together, where they act everywhere and none is chosen */
  together: z.number().int().optional(),
  /** what was asked in place of the question, where an edit changes that */
  asked: z.string().optional(),
});
export type Answer = z.infer<typeof Answer>;

/** An answer in a conversation. */
export const ChatAnswer = Answer.extend({
  /** rows of the prompt, the pictures' included */
  promptTokens: z.number().int(),
  /** which of the conversation's pictures the edit acted on, from 0; null when none acted */
  picture: z.number().int().nullable(),
});
export type ChatAnswer = z.infer<typeof ChatAnswer>;

export const ChatTurn = z.object({
  role: z.enum(['system', 'user', 'assistant']),
  text: z.string().max(100_000),
  /** come before the text */
  pictures: z.array(PictureId).max(16).default([]),
});
export type ChatTurn = z.infer<typeof ChatTurn>;

/** The unedited model's answer to an edit's prompt, and the answer with the edit. */
export const PreviewAnswers = z.object({ before: Answer, after: Answer });
export type PreviewAnswers = z.infer<typeof PreviewAnswers>;

export const InfluenceMap = z.object({
  /** grid of visual tokens */
  rows: z.number().int(),
  columns: z.number().int(),
  /** row by row, 0..1 */
  values: z.array(z.number()),
  /** false: cells have no place in the picture but are a line of rows that each see all of it (Q-Former) */
  placed: z.boolean().optional(),
  /** decoder layer whose output the adapter changes, from 0 */
  layer: z.number().int(),
  /** the part of the picture the model sees after resize and crop, in fractions of the picture */
  window: z.object({ left: z.number(), top: z.number(), width: z.number(), height: z.number() }),
});
export type InfluenceMap = z.infer<typeof InfluenceMap>;

/** Bars of module contribution by layer, -1..1: attention, MLP, and the layer's output. */
const ModuleBars = z.object({
  attention: z.array(z.number()),
  mlp: z.array(z.number()),
  layer: z.array(z.number()),
});
/** Contribution of every layer's attention and MLP to a key token (VisEdit eqs. 1–5), mean over inputs. */
export const ModuleReport = z.object({
  variant: z.enum(['code', 'paper']),
  /** the first hundred: key and wrong key token as text; wrong: null where there was none */
  inputs: z.array(z.object({ prompt: z.string(), key: z.string(), wrong: z.string().nullable() })),
  count: z.number().int(),
  contribution: ModuleBars,
  /** the same on wrong key tokens; null where there were none */
  control: ModuleBars.extend({ count: z.number().int() }).nullable(),
  /** with the edit acting, and the key tokens it then predicts unless one was typed; null without an edit */
  edited: ModuleBars.extend({ keys: z.array(z.string()) }).nullable(),
  seconds: z.number(),
});
export type ModuleReport = z.infer<typeof ModuleReport>;

/** Contribution of visual rows to the attention output at the last prompt token (VisEdit eqs. 6–8), as maps of a picture. */
export const VisualReport = z.object({
  rows: InfluenceMap.shape.rows,
  columns: InfluenceMap.shape.columns,
  placed: InfluenceMap.shape.placed,
  window: InfluenceMap.shape.window,
  /** cell by cell, 0..1 in the papers' variant and 0..2 in the code's; `after`: with the edit acting */
  layers: z.array(
    z.object({
      layer: z.number().int(),
      before: z.array(z.number()),
      after: z.array(z.number()).nullable(),
    }),
  ),
  /** of the edit on this input; null without one */
  influence: InfluenceMap.nullable(),
  /** what the model says first, before and with the edit */
  keys: z.object({ before: z.string(), after: z.string().nullable() }),
  seconds: z.number(),
});
export type VisualReport = z.infer<typeof VisualReport>;

/** DualEdit's Figures 1 and 2, means over inputs; each array by layer. */
export const ModalityReport = z.object({
  count: z.number().int(),
  /** attention weights of the last prompt token: per row of text, per visual row, of the three that get most, and the picture's sum */
  attention: z.object({
    text: z.array(z.number()),
    visual: z.array(z.number()),
    topVisual: z.array(z.number()),
    visualShare: z.array(z.number()),
  }),
  /** KL divergence in nats of the next token when noise is put on rows at a layer's output; null where it was not asked for */
  noise: z
    .object({
      visual: z.array(z.number()),
      text: z.array(z.number()),
      both: z.array(z.number()),
      level: z.number(),
      draws: z.number().int(),
    })
    .nullable(),
  seconds: z.number(),
});
export type ModalityReport = z.infer<typeof ModalityReport>;

/** Kinds of inputs beside edits: these should act on the first two, and not on the others. */
export const GateKind = z.enum([
  'text-generality',
  'image-generality',
  'text-locality',
  'image-locality',
  'same-picture',
  'same-question',
]);
export type GateKind = z.infer<typeof GateKind>;
/** What of an edit and of an input is compared at a layer's output; the last two as DualEdit's published code does. */
export const GateRepresentation = z.enum([
  'visual',
  'textual',
  'lastPromptToken',
  'lastToken',
  'lastTokenAsked',
]);
export type GateRepresentation = z.infer<typeof GateRepresentation>;
/** Cosine similarities of edits with inputs, and how well one threshold tells apart where edits should act (DualEdit eq. 4, Fig. 4). */
export const GateReport = z.object({
  emend: z.string(),
  model: z.object({ name: z.string(), fingerprint: z.string() }),
  data: z.object({ name: z.string(), sha256: z.string(), edits: z.number().int() }),
  /** the command that measures it again */
  command: z.string(),
  findings: z.array(
    z.object({
      layer: z.number().int(),
      representation: GateRepresentation,
      /** null where there are no generality or no locality inputs */
      separation: z
        .object({
          threshold: z.number(),
          /** shares of generality inputs at or above it and of locality inputs below it, and their mean, 0..1 */
          acts: z.number(),
          staysOut: z.number(),
          balancedAccuracy: z.number(),
          /** probability that a generality input is more similar to its edit than a locality input to its */
          auc: z.number(),
        })
        .nullable(),
      /** the similarities that the bars go from and to */
      histogram: z.object({ from: z.number(), to: z.number() }),
      kinds: z.partialRecord(
        GateKind,
        z.object({
          count: z.number().int(),
          mean: z.number(),
          /** 5, 25, 50, 75 and 95 % */
          quantiles: z.array(z.number()),
          /** share at or above the threshold, 0..1 */
          letThrough: z.number().nullable(),
          /** inputs in each bar */
          histogram: z.array(z.number()),
        }),
      ),
    }),
  ),
});
export type GateReport = z.infer<typeof GateReport>;

/** A layer to edit on the open model, with what it is proposed from. */
export const LayerProposal = z.object({
  /** what an editor would change: the picture's rows or the question's */
  rows: z.enum(['visual', 'text']),
  layer: z.number().int(),
  /** by layer, the share of the reading that a change at its output comes before, 0..1 */
  readAbove: z.array(z.number()),
  highContributionLayers: z.array(z.number().int()),
  why: z.string(),
  count: z.number().int(),
  /** means over inputs, by layer */
  measures: z.object({
    attention: z.array(z.number()),
    mlp: z.array(z.number()),
    visual: z.array(z.number()),
    text: z.array(z.number()),
  }),
  seconds: z.number(),
});
export type LayerProposal = z.infer<typeof LayerProposal>;

export const AttributionId = z.string().regex(/^[a-z0-9-]{1,60}$/);
/** What an attribution over a set of inputs found. */
export const AttributionFound = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('modules'), report: ModuleReport }),
  z.object({ kind: z.literal('modality'), report: ModalityReport }),
  z.object({ kind: z.literal('gate'), report: GateReport }),
  z.object({ kind: z.literal('propose'), report: LayerProposal }),
]);
export type AttributionFound = z.infer<typeof AttributionFound>;
/** One that is kept. */
export const AttributionRun = z.object({
  id: AttributionId,
  kind: z.enum(['modules', 'modality', 'gate', 'propose']),
  /** the job that it was */
  job: JobId,
  model: z.object({ name: z.string(), fingerprint: z.string() }),
  /** what the inputs are of: the library's edits, or a data set's file; for people */
  set: z.string(),
  /** inputs; of a gate, edits */
  count: z.number().int(),
  /** what else was asked for, for people; '' for nothing */
  detail: z.string(),
  created: Moment,
  seconds: z.number(),
});
export type AttributionRun = z.infer<typeof AttributionRun>;

export const ProbeKind = z.enum([
  'reliability', // the edit itself
  'text-generality', // other wording, must also change
  'image-generality', // other picture, must also change
  'text-locality', // no picture, must not change
  'image-locality', // unrelated picture and question, must not change
  'same-picture', // the edit's own picture, another question, must not change
  'same-question', // the edit's question on an unrelated picture, must not change
  'committed', // a probe of an edit already committed, must still answer as it did
]);
export type ProbeKind = z.infer<typeof ProbeKind>;

export const Probe = z.object({
  id: z.number().int(),
  /** null for the standing set, which belongs to every edit */
  edit: EditId.nullable(),
  kind: ProbeKind,
  picture: PictureId.nullable(),
  prompt: z.string(),
  /** what a generality probe must answer; null when the answer must stay what it was */
  expected: z.string().nullable(),
});
export type Probe = z.infer<typeof Probe>;

/** A check's verdict in the field's words. */
export const Finding = z.object({
  kind: z.enum([
    'holds',
    'fails', // it does not answer its own question
    'under-generalises', // other wordings or pictures that must change do not
    'leaks', // what must stay changes
    'entangled', // it and another edit answer each other's probes
  ]),
  /** for `entangled`: the other edit */
  edit: EditId.nullable(),
});
export type Finding = z.infer<typeof Finding>;

export const EditStatus = z.enum(['draft', 'checked', 'failed', 'stale', 'committed', 'retired']);
export type EditStatus = z.infer<typeof EditStatus>;

export const Edit = z.object({
  id: EditId,
  picture: PictureId,
  prompt: z.string(),
  /** the right answer, typed by the curator */
  target: z.string(),
  /** the answer of the unedited model when the edit was made; null until it was asked */
  before: z.string().nullable(),
  /** the answer with the edit when last previewed or checked */
  after: z.string().nullable(),
  note: z.string(),
  reach: Reach,
  /** what its latest check found, stale or not; null before there was one */
  finding: Finding.nullable(),
  tags: z.array(z.string()),
  status: EditStatus,
  /** of the latest check, fresh or not; `none`: never checked */
  verdict: z.enum(['passes', 'fails', 'none']),
  /** fingerprints of the model and adapter the edit was made for */
  model: z.string(),
  adapter: z.string(),
  created: Moment,
  updated: Moment,
  committed: Moment.nullable(),
  /** the reason given when it was committed without a passing check */
  overrideReason: z.string().nullable(),
});
export type Edit = z.infer<typeof Edit>;

export const ProbeResult = z.object({
  probe: Probe,
  /** for kind `committed`: the edit whose probe this is */
  owner: EditId.nullable(),
  /** of the unedited model */
  unedited: z.string(),
  /** of the library without and with the edit, as it stood when the check ran */
  before: z.string(),
  after: z.string(),
  /** the edit that acted on each of the two; null for none, whose answer is the unedited model's */
  acting: z.object({ before: EditId.nullable(), after: EditId.nullable() }),
  /** where what must stay was changed by an edit committed earlier: not blamed on this one */
  drift: z.object({ edit: EditId.nullable() }).nullable(),
  /** what must change passes with the target, what must stay with `before` */
  passes: z.boolean(),
  /** the decision with the edit; its three best matches */
  routing: Routing.nullable(),
});
export type ProbeResult = z.infer<typeof ProbeResult>;

export const CheckGroup = z.object({
  kind: ProbeKind,
  passed: z.number().int(),
  total: z.number().int(),
  /** share that must pass, 0..1 */
  required: z.number(),
  passes: z.boolean(),
  /** set where the number holds by construction of the editor, with the reason in one sentence */
  byConstruction: z.string().nullable(),
});
/** What of the state a check belongs to can differ from now. `plan`: how probes are chosen, in another version of Emend. */
export const StaleReason = z.enum([
  'plan',
  'model',
  'adapter',
  'scope',
  'prompts',
  'policy',
  'standing-probes',
  'committed-edits',
  'edit',
  'probes',
]);
export type StaleReason = z.infer<typeof StaleReason>;

export const Check = z.object({
  id: z.number().int(),
  edit: EditId,
  /** the committed edit it was to replace: neither that edit nor its probes counted */
  supersede: EditId.nullable(),
  finished: Moment,
  seconds: z.number(),
  verdict: z.enum(['passes', 'fails']),
  finding: Finding,
  /** false as soon as model, adapter, edit, probes or policy differ from what was checked, or one of its probes would be answered otherwise */
  fresh: z.boolean(),
  /** what differs; empty while it is fresh */
  staleBecause: z.array(StaleReason),
  /** for `committed-edits`: those whose commit or retirement changes one of its answers, as far as known */
  staleBy: z.array(EditId),
  groups: z.array(CheckGroup),
  /** probes of committed edits on which this edit cannot act: not asked, counted as passed */
  unchanged: z.number().int(),
  /** whether all committed edits act on every input, so that every probe of every committed edit was asked */
  everywhere: z.boolean(),
  /** the edit's own probes, the standing set, and those probes of committed edits that it changes */
  results: z.array(ProbeResult),
});
export type Check = z.infer<typeof Check>;

/** How a check in a set of several ended. */
export const SetResult = z.object({
  edit: EditId,
  /** null when it could not be checked; `error` says why */
  verdict: z.enum(['passes', 'fails']).nullable(),
  finding: Finding.nullable(),
  error: z.string().nullable(),
});
export type SetResult = z.infer<typeof SetResult>;

/** Two edits of a set of which the first, once committed, changes answers to own probes of the second. */
export const DisturbingPair = z.object({
  edit: EditId,
  disturbs: EditId,
  /** probes of the second that would be answered otherwise */
  probes: z.number().int(),
});
export type DisturbingPair = z.infer<typeof DisturbingPair>;

export const HealthOutcome = z.enum([
  'holds',
  'not-needed', // the unedited model answers all that must change as the edit wants it
  'needs-work',
]);
export type HealthOutcome = z.infer<typeof HealthOutcome>;

/** A committed edit checked again, against the model and adapter open then. */
export const Health = z.object({
  edit: EditId,
  /** fingerprints */
  model: z.string(),
  adapter: z.string(),
  finished: Moment,
  outcome: HealthOutcome,
  /** answers to the edit's own question: of the unedited model, and with the edit */
  unedited: z.string(),
  answer: z.string(),
  /** its own probes */
  passed: z.number().int(),
  total: z.number().int(),
});
export type Health = z.infer<typeof Health>;

export const HistoryEntry = z.object({
  id: z.number().int(),
  edit: EditId,
  at: Moment,
  what: z.enum([
    'created',
    'changed',
    'previewed',
    'checked',
    'committed',
    'retired',
    'restored',
    'probe-added',
    'probe-removed',
    'tagged',
    'undone',
    'redone',
  ]),
  /** one sentence for people */
  detail: z.string(),
});
export type HistoryEntry = z.infer<typeof HistoryEntry>;

/** The form in which the weights of a model are held: as they are, or most of the decoder's matrices in blocks of 8 or 4 bits. */
export const WeightForm = z.enum(['dense', '8bit', '4bit']);
export type WeightForm = z.infer<typeof WeightForm>;

/** A way of opening a model, weighed before anything of it is loaded. */
export const OpeningWay = z.object({
  form: WeightForm,
  provider: z.string(),
  /** null where that is not known: a device with memory of its own */
  fits: z.boolean().nullable(),
  /** of memory, about */
  needsBytes: z.number(),
  /** of the packed file; 0 for `dense` */
  fileBytes: z.number(),
  /** the packed file is there; where it is not it is made as the model is opened, which takes minutes for large models */
  made: z.boolean(),
  /** a sentence for people */
  reason: z.string(),
});
export type OpeningWay = z.infer<typeof OpeningWay>;

/** Packed weights in the cache. */
export const PackedWeights = z.object({
  /** of the file; names it to `models.removePacked` */
  name: z.string(),
  bytes: z.number(),
  /** name of the model's folder; '' for a file that is damaged, as `source` is */
  model: z.string(),
  source: z.string(),
  form: WeightForm,
  used: Moment,
});

/** A value of an editor's setting; null: what the editor itself chooses. */
export const SettingValue = z.union([
  z.string().max(4096),
  z.number(),
  z.boolean(),
  z.null(),
  z.array(z.string().max(4096)).max(100),
]);
export type SettingValue = z.infer<typeof SettingValue>;

/** A setting of an editor as a form shows it. */
export const SettingField = z.object({
  key: z.string(),
  /** texts: a list, a line each */
  kind: z.enum(['integer', 'number', 'boolean', 'choice', 'string', 'texts', 'file']),
  label: z.string(),
  help: z.string(),
  default: SettingValue,
  /** whether it may be left to the editor (null) */
  optional: z.boolean(),
  /** of a choice */
  options: z.array(z.string()),
  least: z.number().nullable(),
  most: z.number().nullable(),
});
export type SettingField = z.infer<typeof SettingField>;

/** An editor that needs no training, chosen by name; settings that are not given are the published ones. */
export const EditorChoice = z.object({
  editor: z.string().max(100),
  settings: z.record(z.string().max(100), SettingValue).default({}),
});
export type EditorChoice = z.infer<typeof EditorChoice>;

/** What decides where edits act. */
export const ScopeChoice = z.object({
  /** without, what the editor proposes */
  form: ScopeForm.optional(),
  /** of a learned scope, for editors that have no folder; the one beside an adapter of the model otherwise */
  folder: z.string().max(4096).optional(),
});
export type ScopeChoice = z.infer<typeof ScopeChoice>;

/** An editor of the workbench. */
export const EditorSummary = z.object({
  name: z.string(),
  /** in a few words: what of the model it changes */
  acts: z.string(),
  /** whether it must be trained on a model before it can edit it */
  trains: z.boolean(),
  /** what decides where its edits act unless a person chooses: the best scope of the model, nothing, or the editor itself */
  scope: z.enum(['routed', 'everywhere', 'own']),
  settings: z.array(SettingField),
  /** how it is trained here: what may be set, and what a form begins with where that is not the published value; null: it is not */
  training: z
    .object({
      settings: z.array(SettingField),
      proposed: z.record(z.string(), SettingValue),
      /** learning rate */
      rate: z.number(),
    })
    .nullable(),
});
export type EditorSummary = z.infer<typeof EditorSummary>;

export const ModelSummary = z.object({
  path: z.string(),
  name: z.string(),
  fingerprint: z.string(),
  architecture: z.string(),
  /** decoder layers */
  layers: z.number().int(),
  hidden: z.number().int(),
  parameters: z.number().int(),
  visualTokens: z.number().int(),
  /** fewest and most rows a picture takes, under the limit of the settings; `limit`: what they lower it to, null where nothing */
  pictureRows: z.object({
    least: z.number().int(),
    most: z.number().int(),
    limit: z.number().int().nullable(),
  }),
  /** fingerprint of its files alone; `fingerprint` also tells another limit of rows apart */
  checkpoint: z.string(),
  /** what a conversation with it may have: several turns, for which it needs a chat template; several pictures */
  takes: z.object({ turns: z.boolean(), pictures: z.boolean() }),
  dtype: z.string(),
  /** the form they are held in */
  weights: WeightForm,
  adapter: z
    .object({
      name: z.string(),
      /** null where the editor needs no training and was chosen with settings */
      path: z.string().nullable(),
      fingerprint: z.string(),
      editor: z.string(),
      /** in a few words: what of the model it changes */
      acts: z.string(),
      /** the decoder layers it acts at, as its file or settings say, for people; empty where they name none */
      where: z.string(),
      /** null where they lie in its folder */
      settings: z.record(z.string(), SettingValue).nullable(),
      facts: z.array(z.object({ label: z.string(), value: z.string() })),
      /** whether it has a map of where an edit acts in a picture */
      map: z.boolean(),
      /** the form of the weights it was trained on */
      weights: WeightForm,
      scope: ScopeSummary,
    })
    .nullable(),
});
export type ModelSummary = z.infer<typeof ModelSummary>;

/** A model in the Hugging Face cache. */
export const FoundModel = z.object({
  /** the folder to open */
  path: z.string(),
  /** `org/name` */
  name: z.string(),
  state: z.enum(['opens', 'unsupported', 'incomplete', 'gguf', 'damaged']),
  /** why it does not open; empty where it does */
  reason: z.string(),
  /** of what it is; null where it does not open */
  family: z.string().nullable(),
  parameters: z.number().int().nullable(),
  dtype: z.string().nullable(),
  bytes: z.number(),
});
export type FoundModel = z.infer<typeof FoundModel>;

/** An adapter on this machine. */
export const FoundAdapter = z.object({
  path: z.string(),
  name: z.string(),
  editor: z.string(),
  /** the decoder layers it acts at, as it says itself, for people; empty where it names none */
  where: z.string(),
  fits: z.boolean(),
  /** why it does not fit the open model; empty where it does */
  reason: z.string(),
});
export type FoundAdapter = z.infer<typeof FoundAdapter>;

export const EngineState = z.object({
  state: z.enum(['starting', 'ready', 'busy', 'restarting', 'failed']),
  /** what happened, for people; empty when nothing did */
  message: z.string(),
  /** execution provider that loaded; null before a model is open */
  provider: z.string().nullable(),
  /** why better-liked providers were passed over */
  refusals: z.array(z.object({ provider: z.string(), reason: z.string() })),
  memoryBytes: z.number().nullable(),
});
export type EngineState = z.infer<typeof EngineState>;

export const Status = z.object({
  version: z.string(),
  /** readOnly: its file or folder may not be written, so every change is refused */
  library: z.object({ path: z.string(), name: z.string(), readOnly: z.boolean() }),
  engine: EngineState,
  model: ModelSummary.nullable(),
  counts: z.object({ draft: z.number(), checked: z.number(), committed: z.number(), retired: z.number() }),
  /** how many edits have each status */
  edits: z.record(EditStatus, z.number().int()),
});
export type Status = z.infer<typeof Status>;

/** One or several words people group edits by. */
export const Tag = z.string().trim().min(1).max(60);

/** Moments from `from` up to, not including, `to`; either may be missing. */
const Period = z.strictObject({ from: Moment.optional(), to: Moment.optional() });

/** Which edits; what is left out lets every edit through, and all that is given must hold. */
export const EditFilter = z.strictObject({
  status: z.array(EditStatus).optional(),
  verdict: z.array(Edit.shape.verdict).optional(),
  /** what the latest check found, stale or not */
  finding: z.array(Finding.shape.kind).optional(),
  reach: Reach.optional(),
  /** fingerprints, or how they begin */
  model: z.string().max(64).optional(),
  adapter: z.string().max(64).optional(),
  /** the edit has all of these */
  tags: z.array(Tag).max(20).optional(),
  /**
   * Every word begins a word of prompt, target, answers or note; case and accents make no difference. A number, with or
   * without `#`, also finds the edit that has it.
   */
  text: z.string().max(400).optional(),
  created: Period.optional(),
  updated: Period.optional(),
  committed: Period.optional(),
});
export type EditFilter = z.infer<typeof EditFilter>;

export const EditSort = z.strictObject({
  by: z.enum(['id', 'updated', 'created', 'committed', 'prompt', 'target', 'status']),
  descending: z.boolean(),
});
export type EditSort = z.infer<typeof EditSort>;

/** Edits named one by one, or all that a filter lets through. */
export const EditSelection = z.union([
  z.strictObject({ edits: z.array(EditId).min(1).max(100_000) }),
  z.strictObject({ filter: EditFilter, except: z.array(EditId).max(100_000).optional() }),
]);
export type EditSelection = z.infer<typeof EditSelection>;

/** A picture as small as tables show it. */
export const Thumbnail = z.object({ picture: PictureId, mime: z.string(), base64: z.string() });
export type Thumbnail = z.infer<typeof Thumbnail>;

/** An edit as a table shows it. */
export const EditRow = Edit.extend({
  /** null where it is not known, or was not asked for */
  influence: InfluenceMap.nullable(),
});
export type EditRow = z.infer<typeof EditRow>;

/** What is to come with the rows of a table. */
const RowOptions = z.object({
  /** thumbnails of the rows' pictures, each once */
  thumbnails: z.boolean().default(false),
  influence: z.boolean().default(false),
});
const Rows = z.object({
  rows: z.array(EditRow),
  /** those that are made already; `pictures.thumbnails` makes the others */
  thumbnails: z.array(Thumbnail),
});

/** What came of doing something to many edits at once. */
const Bulk = z.object({
  changed: z.number().int(),
  /** edits it could not be done to and why, the first hundred of them */
  refused: z.array(z.object({ edit: EditId, reason: z.string() })),
  /** how many in all */
  refusals: z.number().int(),
  /** stopped before the last; what was done stays, and is taken back as one */
  stopped: z.boolean(),
});

/** A filter and an order under a name. */
export const SavedView = z.object({
  name: z.string().trim().min(1).max(60),
  filter: EditFilter,
  sort: EditSort,
});
export type SavedView = z.infer<typeof SavedView>;

/** A change to the library that can be taken back. */
export const Operation = z.object({
  id: z.number().int(),
  at: Moment,
  /** what was done, for people, such as “Retired 12 edits” */
  label: z.string(),
  edits: z.number().int(),
});
export type Operation = z.infer<typeof Operation>;

/**
 * Formats of data sets that are read as they are: E-VQA, E-IC, VLKEB (with portability), MMKE-Bench, Emend's own export, and CSV with a
 * folder of pictures.
 */
export const EditingSetFormat = z.enum(['evqa', 'eic', 'vlkeb', 'mmke', 'emend', 'csv']);
export type EditingSetFormat = z.infer<typeof EditingSetFormat>;

export const TrainingId = z.string().regex(/^[a-z0-9-]{1,60}$/);

/** Means over the steps since the point before. */
export const TrainingPoint = z.object({
  step: z.number().int(),
  loss: z.number(),
  terms: z.record(z.string(), z.number()),
  gradientNorm: z.number(),
  editsPerSecond: z.number(),
});
export type TrainingPoint = z.infer<typeof TrainingPoint>;

/** Edits held out, measured alone without a scope: mean of the five, 0..1. */
export const TrainingValidation = z.object({
  step: z.number().int(),
  exactMatch: z.number(),
  teacherForced: z.number(),
});
export type TrainingValidation = z.infer<typeof TrainingValidation>;

/** What a training is asked for; the rest of its settings follow from the model and the editor. */
export const TrainingRequest = z.object({
  editor: z.string().max(100),
  /** of the adapter that comes of it */
  name: z.string().trim().min(1).max(100),
  /** editing set */
  data: z.string().min(1).max(4096),
  /** of the set; told from it otherwise */
  format: EditingSetFormat.optional(),
  /** folder that its pictures are relative to; the set's own otherwise */
  images: z.string().max(4096).optional(),
  /** of the editor's training; those that are not given are the published ones */
  settings: z.record(z.string().max(100), SettingValue),
  steps: z.number().int().min(1).max(10_000_000),
  /** edits a batch */
  batch: z.number().int().min(1).max(256),
  /** batches a step: the optimiser follows the mean of their gradients */
  accumulate: z.number().int().min(1).max(1024).default(1),
  /** peak learning rate */
  rate: z.number().gt(0).max(1),
  /** other questions about the edit's picture, and its question elsewhere, are trained to stay */
  extended: z.boolean(),
  seed: z
    .number()
    .int()
    .min(0)
    .max(2 ** 31 - 1),
  /** after every so many steps so many edits that are not trained on are measured; null: never, and the last weights are kept */
  validation: z
    .object({ edits: z.number().int().min(1).max(10_000), every: z.number().int().min(1).max(1_000_000) })
    .nullable(),
  /** adapter folder whose weights to start from */
  from: z.string().max(4096).optional(),
  /** disk that what the frozen model makes of the set's pictures may take, for all trainings; 0: nothing is kept */
  pictureCacheGb: z.number().min(0).max(100_000).default(10),
});
export type TrainingRequest = z.infer<typeof TrainingRequest>;

/** A training that is kept, running or not. */
export const Training = z.object({
  id: TrainingId,
  name: z.string(),
  editor: z.string(),
  /** folder of the model */
  model: z.string(),
  data: z.string(),
  /** what was set of it that is not as published, for people */
  settings: z.array(z.object({ label: z.string(), value: z.string() })),
  created: Moment,
  step: z.number().int(),
  steps: z.number().int(),
  /** running now; paused: it goes on from where it is; done: its adapter is made */
  state: z.enum(['running', 'paused', 'done']),
  /** the job that runs it; null when none does */
  job: JobId.nullable(),
  /** time it ran */
  seconds: z.number(),
  /** why it ended before its last step, where nobody stopped it; null otherwise */
  failed: z.string().nullable(),
  best: TrainingValidation.nullable(),
  /** folder of the adapter that was made of it; null before */
  adapter: z.string().nullable(),
  /** memory of the process that trains; null when none does, and where it is not known */
  memoryBytes: z.number().nullable(),
  /** the command that repeats it */
  command: z.string(),
});
export type Training = z.infer<typeof Training>;

export const BenchmarkId = z.string().regex(/^[a-z0-9-]{1,60}$/);

/** What an input of a measurement is to its edit. `fresh`: of another set, whose questions no edit is about. */
export const SampleKind = z.enum([
  'reliability',
  'text-generality',
  'image-generality',
  'text-locality',
  'image-locality',
  'same-picture',
  'same-question',
  'text-reliability',
  'image-reliability',
  'portability',
  'typed',
  'held-out',
  'new-core',
  'swapped',
  'elsewhere',
  'fresh',
]);
export type SampleKind = z.infer<typeof SampleKind>;

/** What a measured edit does as a whole, by exact match. */
export const EditVerdict = z.enum(['holds', 'under-generalises', 'leaks', 'entangled', 'fails']);
export type EditVerdict = z.infer<typeof EditVerdict>;

/** One input of a measurement, with the answers before and after. */
export const BenchmarkSample = z.object({
  /** row of its edit in the data set, from 1 */
  row: z.number().int(),
  kind: SampleKind,
  /** name of a picture file; null: asked without one */
  picture: z.string().nullable(),
  prompt: z.string(),
  expected: z.string(),
  /** whether the answer must stay what it was; else it must become what is expected */
  stays: z.boolean(),
  before: z.string(),
  after: z.string(),
  /** exact match */
  passes: z.boolean(),
  /** 0..1; null where there was nothing to force */
  teacherForced: z.number().nullable(),
  /** row of the edit that acted; all: every one did; null: none */
  acting: z.union([z.number().int(), z.literal('all')]).nullable(),
  /** of its edit as a whole */
  verdict: EditVerdict.nullable(),
});
export type BenchmarkSample = z.infer<typeof BenchmarkSample>;

/** Which samples; what is left out lets every one through. */
export const SampleFilter = z.strictObject({
  /** only those that the other measurement answers otherwise */
  differs: z.boolean().optional(),
  kinds: z.array(SampleKind).max(16).optional(),
  verdicts: z.array(EditVerdict).max(5).optional(),
  passes: z.boolean().optional(),
  /** every word is in a prompt or an answer */
  text: z.string().max(400).optional(),
});
export type SampleFilter = z.infer<typeof SampleFilter>;
export const SampleSort = z.strictObject({
  by: z.enum(['row', 'kind', 'prompt', 'after', 'teacherForced', 'passes']),
  descending: z.boolean(),
});
export type SampleSort = z.infer<typeof SampleSort>;

/** A mean with its 95 % interval. */
const Estimate = z.object({
  ...{ mean: z.number(), low: z.number(), high: z.number(), count: z.number() },
  /** of the means of several random draws of edits, where they were averaged */
  deviation: z.number().optional(),
});
/** A metric in both tellings; null where nothing could be scored. */
export const Told = z.object({ teacherForced: Estimate.nullable(), exactMatch: Estimate.nullable() });
export type Told = z.infer<typeof Told>;

/** An editor of a comparison. */
export const ComparedEditor = z.object({
  editor: z.string(),
  acts: z.string(),
  /** what decides where its edits act, in words */
  scope: z.string(),
  settings: z.string(),
  sizes: z.array(
    z.object({
      /** edits that act together; 1: each of the set alone */
      edits: z.number().int(),
      /** by metric */
      metrics: z.record(z.string(), Told),
      meanOfFive: Told,
      verdicts: z.partialRecord(EditVerdict, z.number()).optional(),
    }),
  ),
  /** of edits alone */
  verdicts: z.partialRecord(EditVerdict, z.number()).nullable(),
  cost: z.object({ seconds: z.number(), bytes: z.number() }).nullable(),
  /** memory of the process at most, bytes */
  peak: z.number().nullable(),
  /** why it could not be measured */
  failed: z.string().nullable(),
  /** whether its inputs were recorded, of edits alone and together */
  runs: z.object({ single: z.string().nullable(), many: z.string().nullable() }).optional(),
});
export type ComparedEditor = z.infer<typeof ComparedEditor>;

/** Editors compared on the same model, data and metrics. */
export const Comparison = z.object({
  emend: z.string(),
  /** of other rows than editors, such as layers */
  title: z.string().optional(),
  model: z.object({ name: z.string(), fingerprint: z.string() }),
  data: z.object({
    name: z.string(),
    sha256: z.string(),
    /** edits measured alone, and edits whose probes were asked with many together */
    single: z.number(),
    probes: z.number(),
    /** random draws of so many edits, where several were measured */
    seeds: z.number().int().optional(),
    images: z.string().optional(),
  }),
  sizes: z.array(z.number().int()),
  command: z.string(),
  editors: z.array(ComparedEditor),
});
export type Comparison = z.infer<typeof Comparison>;

/** A model that editors can be measured on. */
export const BenchmarkModel = z.object({
  path: z.string(),
  name: z.string(),
  /** whether it is the one that is open */
  open: z.boolean(),
  /** the form its weights are opened in: the open one's, or that last used with it */
  weights: WeightForm,
});
export type BenchmarkModel = z.infer<typeof BenchmarkModel>;

/** An editor that could be measured on a model, as often as there are adapters of it. */
export const BenchmarkCandidate = z.object({
  editor: z.string(),
  acts: z.string(),
  trains: z.boolean(),
  /** names of its adapters that fit the model; none for editors that need none */
  adapters: z.array(z.string()),
  /** why it cannot act on the model, and what to do; null where it can */
  refused: z.string().nullable(),
  /** its adapters that would fit and cannot be used, each with the reason */
  unusable: z.array(z.string()),
});
export type BenchmarkCandidate = z.infer<typeof BenchmarkCandidate>;

const DataSetFile = z.object({
  data: z.string().min(1).max(4096),
  format: EditingSetFormat.optional(),
  /** folder that its pictures are relative to; the set's own otherwise */
  images: z.string().max(4096).optional(),
});
/** Editors are compared on every model with every data set. */
export const BenchmarkRequest = z.object({
  /** names of editors */
  editors: z.array(z.string().max(100)).min(1).max(100),
  /** folders of models; the open one when absent */
  models: z.array(z.string().min(1).max(4096)).min(1).max(20).optional(),
  sets: z.array(DataSetFile).min(1).max(20),
  /** numbers of edits that act together, ascending; 1: each alone */
  at: z.array(z.number().int().min(1).max(1_000_000)).min(1).max(20),
  /** edits measured alone, and edits whose probes are asked with many together */
  limit: z.number().int().min(1).max(1_000_000),
  limitProbes: z.number().int().min(1).max(1_000_000),
  /** random draws of `limit` edits, measured alone; the first edits otherwise */
  seeds: z.number().int().min(2).max(100).optional(),
});
export type BenchmarkRequest = z.infer<typeof BenchmarkRequest>;

/** One of a benchmark's comparisons: of editors, on a model with a data set. */
export const BenchmarkPart = z.object({
  /** name of the model */
  model: z.string(),
  /** name of the data set's file */
  data: z.string(),
  /** rows that are there, of so many; null where that is not known */
  measured: z.number().int(),
  total: z.number().int().nullable(),
  /** rows of which not everything could be measured; the comparison says of each why */
  failedRows: z.number().int(),
  /** wrong rows of the data set that were left out */
  leftOut: z.number().int(),
  /** editors that were asked for and cannot act on this model, each with the reason */
  refused: z.array(z.object({ editor: z.string(), reason: z.string() })),
});
export type BenchmarkPart = z.infer<typeof BenchmarkPart>;

/** A benchmark that is kept, running or not. */
export const Benchmark = z.object({
  id: BenchmarkId,
  parts: z.array(BenchmarkPart),
  created: Moment,
  /** running now; stopped: it goes on from what was measured; done; opened: made elsewhere */
  state: z.enum(['running', 'stopped', 'done', 'opened']),
  /** why it ended before all was tried, where nobody stopped it; null otherwise */
  failed: z.string().nullable(),
  /** of all its parts, as theirs */
  failedRows: z.number().int(),
  job: JobId.nullable(),
  measured: z.number().int(),
  total: z.number().int().nullable(),
  sizes: z.array(z.number().int()),
  /** folder of the reports */
  folder: z.string(),
});
export type Benchmark = z.infer<typeof Benchmark>;

/** What a benchmark's comparisons come to: a part's rows with the mean of the papers' five at each size. */
export const BenchmarkOverview = z.array(
  z.object({
    ...{ model: z.string(), data: z.string() },
    rows: z.array(
      ComparedEditor.pick({ editor: true, scope: true, settings: true, failed: true }).extend({
        sizes: z.array(ComparedEditor.shape.sizes.element.pick({ edits: true, meanOfFive: true })),
      }),
    ),
  }),
);
export type BenchmarkOverview = z.infer<typeof BenchmarkOverview>;

/** A part of a benchmark, by its place. */
const PartOf = { benchmark: BenchmarkId, part: z.number().int().min(0).max(1000).default(0) };

/** One column of answers: an editor of the comparison, by its place, at a number of edits. */
export const MeasuredAt = z.strictObject({
  editor: z.number().int().min(0).max(1000),
  edits: z.number().int().min(1).max(1_000_000),
});
export type MeasuredAt = z.infer<typeof MeasuredAt>;
const SampleChoice = z.strictObject({
  ...PartOf,
  of: MeasuredAt,
  /** another measurement that it is seen beside */
  against: MeasuredAt.optional(),
  filter: SampleFilter.default({}),
  sort: SampleSort.default({ by: 'row', descending: false }),
});

/** A long call, running or ended. It belongs to the application: every page sees it and can stop it. */
export const JobRecord = z.object({
  id: JobId,
  /** the call's name, such as `checks.run` */
  kind: z.string(),
  /** what it works on, for people */
  subject: z.string(),
  /** the edit it works on, if it is one */
  edit: EditId.nullable(),
  /** whether it has an engine of its own, beside the one that answers; older records do not say */
  ownEngine: z.boolean().default(false),
  /** waiting: for another job, or for the model to open */
  state: z.enum(['waiting', 'running', 'done', 'failed', 'cancelled']),
  /** what it waits for, for people; null unless it waits */
  waitsFor: z.string().nullable(),
  stage: z.string(),
  /** done and total count `unit`s; total null when unknown */
  done: z.number(),
  total: z.number().nullable(),
  unit: z.string(),
  /** how much of the whole job is done, 0..1, where it has stages and knows; absent otherwise */
  share: z.number().optional(),
  /** an estimate of what is left of the job where it knows its share, else of the stage; null when there is none */
  secondsLeft: z.number().nullable(),
  started: Moment,
  ended: Moment.nullable(),
  /** what came of it in one sentence, or why it failed; null while it runs */
  outcome: z.string().nullable(),
  /** lines told while it ran, the first two hundred */
  log: z.array(z.string()),
});
export type JobRecord = z.infer<typeof JobRecord>;

export const CheckPolicy = z.object({
  /** share of each kind of probe that must pass, 0..1 */
  required: z.record(ProbeKind, z.number().min(0).max(1)),
});
export const Settings = z.object({
  /** execution providers to try, in order; empty means the platform's own order */
  providers: z.array(z.enum(['cuda', 'dml', 'coreml', 'webgpu', 'cpu'])),
  theme: z.enum(['system', 'light', 'dark']),
  maxNewTokens: z.number().int().min(1).max(1024),
  promptTemplate: z.enum(['plain', 'chat']),
  policy: CheckPolicy,
  /** how far a new edit goes unless it says */
  reach: Reach,
  /** folder of packed weights; '' is the usual one */
  packedFolder: z.string().max(4096),
  /** what they may take together on the disk, in GB */
  packedLimitGb: z.number().min(1).max(100_000),
  /** most rows a picture may take, where a model would give it more; null: as the model does */
  pictureRows: z.number().int().min(1).max(1_000_000).nullable(),
});
export type Settings = z.infer<typeof Settings>;

/** The endpoint for other programs, in OpenAI's form. */
export const EndpointState = z.object({
  /** whether it is served whenever the app runs */
  enabled: z.boolean(),
  port: z.number().int(),
  /** folders whose pictures other programs may name */
  folders: z.array(z.string()),
  /** of its bearer key, which is shown once; null before there was one */
  key: z.object({ hint: z.string(), created: Moment }).nullable(),
  /** the base URL while it is served */
  address: z.string().nullable(),
  /** why it is not served although it is enabled */
  problem: z.string().nullable(),
});
export type EndpointState = z.infer<typeof EndpointState>;

export const SamplePicture = z.object({
  picture: Picture,
  title: z.string(),
  /** prompts worth trying on it; the first is what the tray fills in */
  prompts: z.array(z.string()),
  /** what it truly shows, when the first prompt is known to be answered wrongly; else null */
  correction: z.string().nullable(),
});
export type SamplePicture = z.infer<typeof SamplePicture>;

export const Sampling = z.object({
  temperature: z.number().min(0).max(5),
  topP: z.number().gt(0).max(1),
  seed: z.number().int(),
});

const NewProbe = z.object({
  kind: ProbeKind.exclude(['committed', 'reliability']),
  picture: PictureId.nullable(),
  prompt: Prompt,
});

/** An input to attribute: a picture with a question; with `edit`, whose own they are where they are left out, also as it acts. */
const AttributedInput = z
  .strictObject({ picture: PictureId.optional(), prompt: Prompt.optional(), edit: EditId.optional() })
  .refine((of) => of.edit !== undefined || (of.picture !== undefined && of.prompt !== undefined), {
    message: 'needs a picture and a prompt, or an edit',
  });
/** One input, or several: of edits of the library, or of an editing set in E-VQA's form where the application runs. */
const AttributedInputs = z.union([
  AttributedInput,
  z.strictObject({ select: EditSelection }),
  z.strictObject({ file: z.string().min(1).max(4000), images: z.string().min(1).max(4000).optional() }),
]);
/** of a set, the first so many */
const MostInputs = z.number().int().min(1).max(1000).default(100);
const Seed = z.number().int().min(0).max(1_000_000).default(0);

const Nothing = z.object({});
const Done = z.object({});

/**
 * Calls marked `job` may take long: they take a job id of the caller's choosing, send `job.progress` under it and can be
 * stopped with `jobs.cancel`, upon which they fail with code `cancelled` and leave the library as it was. `library`: a job
 * that does not need the engine, and so waits for no other. `long`: one that has an engine process of its own, of which there are two at a
 * time; beyond them, and while another training (another measurement of a benchmark) runs, it waits. `long over sets`: this where it is over
 * several inputs, else of the engine that answers. `bulk`: as `library`, over at once as a rule: it is listed where it takes long; stopped,
 * what was done stays.
 */
export const calls = {
  'app.status': { input: Nothing, output: Status, job: false },
  'settings.get': { input: Nothing, output: Settings, job: false },
  'settings.set': { input: Settings.partial(), output: Settings, job: false },

  'models.recent': {
    input: Nothing,
    output: z.array(z.object({ path: z.string(), name: z.string(), opened: Moment })),
    job: false,
  },
  /** the models in the Hugging Face cache of this machine, and what Emend can do with each */
  'models.discover': {
    input: Nothing,
    output: z.object({
      /** folders that were looked into */
      caches: z.array(z.string()),
      models: z.array(FoundModel),
      /** repositories that were not looked at, as there are too many */
      more: z.number().int(),
    }),
    job: false,
  },
  /** adapters in and beside the open model's folder and those opened before, and whether they fit it */
  'models.adapters': { input: Nothing, output: z.array(FoundAdapter), job: false },
  /** the editors of the workbench, with the settings of those that need no training */
  'models.editors': { input: Nothing, output: z.array(EditorSummary), job: false },
  /** how many rows a picture of the library takes in the open model */
  'models.rows': {
    input: z.object({ picture: PictureId }),
    output: z.object({ rows: z.number().int() }),
    job: false,
  },
  'models.open': {
    /** adapter: without, the editor or adapter last used with the model; null: none */
    /** editor: one that needs no training, in place of an adapter */
    /** weights: without, the form last used with the model */
    input: z.object({
      path: z.string().min(1),
      adapter: z.string().nullish(),
      editor: EditorChoice.optional(),
      scope: ScopeChoice.optional(),
      weights: WeightForm.optional(),
    }),
    output: ModelSummary,
    job: true,
  },
  /** The ways of opening a model, from its config and headers alone, and the form that is proposed; null: it fits in none. */
  'models.ways': {
    input: z.object({ path: z.string().min(1) }),
    output: z.object({
      ways: z.array(OpeningWay),
      proposed: WeightForm.nullable(),
      availableBytes: z.number(),
    }),
    job: false,
  },
  'models.packed': {
    input: Nothing,
    output: z.object({ folder: z.string(), limitBytes: z.number(), packed: z.array(PackedWeights) }),
    job: false,
  },
  'models.removePacked': { input: z.object({ name: z.string().max(200) }), output: Nothing, job: false },
  'models.inspect': {
    input: z.object({ path: z.string().min(1) }),
    output: z.object({
      summary: ModelSummary,
      tensors: z.array(
        z.object({ name: z.string(), dtype: z.string(), shape: z.array(z.number()), file: z.string() }),
      ),
    }),
    job: true,
  },

  /** trainings, latest first */
  'training.list': { input: Nothing, output: z.array(Training), job: false },
  'training.curve': {
    input: z.object({ training: TrainingId }),
    output: z.object({ points: z.array(TrainingPoint), validations: z.array(TrainingValidation) }),
    job: false,
  },
  /** trains an adapter for the open model, in a process of its own; stopped, it is paused and goes on with `training.resume` */
  'training.start': { input: TrainingRequest, output: Training, job: 'long' },
  'training.resume': { input: z.object({ training: TrainingId }), output: Training, job: 'long' },
  /** makes an adapter of the best weights so far; those of a training that goes on later too */
  'training.keep': { input: z.object({ training: TrainingId }), output: Training, job: 'long' },
  /** forgets a training that does not run, with its state; the adapter that was made of it stays */
  'training.remove': { input: z.object({ training: TrainingId }), output: Nothing, job: false },

  /** benchmarks, latest first */
  'benchmarks.list': { input: Nothing, output: z.array(Benchmark), job: false },
  /** models of this machine that editors can be measured on: the open one first, the demo, those opened before, those fetched */
  'benchmarks.models': { input: Nothing, output: z.array(BenchmarkModel), job: false },
  /** from a model's files alone: editors that can be measured on it, and why others cannot */
  'benchmarks.candidates': {
    /** folder; the open one when absent */
    input: z.object({ model: z.string().min(1).max(4096).optional() }),
    output: z.object({
      editors: z.array(BenchmarkCandidate),
      /** what may keep it from being opened, for people: too little memory as things are; null for nothing */
      warning: z.string().nullable(),
    }),
    job: false,
  },
  /** what a data set is, from the file alone: rows that cannot be used are told by number */
  'benchmarks.dataSet': {
    input: DataSetFile.extend({
      /** edits that cannot be trained on count as left out where that is what it is for */
      use: z.enum(['measuring', 'training']).default('measuring'),
    }),
    output: z.object({
      format: EditingSetFormat,
      edits: z.number().int(),
      /** kinds of probes there are, and how many edits have each */
      probes: z.array(z.object({ kind: z.string(), edits: z.number().int() })),
      leftOut: z.number().int(),
      problems: z.array(z.object({ row: z.number().int(), reason: z.string() })),
    }),
    job: 'library',
  },
  /** the table of a part as far as it is made, null before its first row; and of all parts, empty where there is one */
  'benchmarks.read': {
    input: z.object(PartOf),
    output: z.object({
      benchmark: Benchmark,
      comparison: Comparison.nullable(),
      overview: BenchmarkOverview,
    }),
    job: false,
  },
  /**
   * Measures editors, one after the other on every model and data set, in a process of its own that holds one model at a time; stopped,
   * it goes on with `benchmarks.resume` from what was measured. An editor that cannot act on any of the models is refused.
   */
  'benchmarks.start': { input: BenchmarkRequest, output: Benchmark, job: 'long' },
  'benchmarks.resume': { input: z.object({ benchmark: BenchmarkId }), output: Benchmark, job: 'long' },
  /** lists a comparison that `emend bench --editor all` made: its folder, or the report in it */
  'benchmarks.open': {
    input: z.object({ path: z.string().min(1).max(4096) }),
    output: Benchmark,
    job: false,
  },
  /** forgets one that does not run, with its files; those of one that was made elsewhere stay */
  'benchmarks.remove': { input: z.object({ benchmark: BenchmarkId }), output: Nothing, job: false },
  /** inputs with their answers, `offset` up to `offset + limit` of all that match; total null where none were recorded */
  'benchmarks.samples': {
    input: SampleChoice.extend({
      offset: z.number().int().min(0).default(0),
      limit: z.number().int().min(1).max(500).default(100),
    }),
    output: z.object({
      total: z.number().int().nullable(),
      /** without the filter */
      all: z.number().int(),
      samples: z.array(z.object({ sample: BenchmarkSample, other: BenchmarkSample.nullable() })),
    }),
    job: false,
  },
  /** pictures of the data set as small as tables show them; without those that are gone */
  'benchmarks.thumbnails': {
    input: z.object({ ...PartOf, pictures: z.array(z.string().max(1000)).max(200) }),
    output: z.array(z.object({ picture: z.string(), mime: z.string(), base64: z.string() })),
    job: false,
  },
  /** writes a part's table, with `samples` the inputs that match, or for `part: null` the overview of all, to a new file */
  'benchmarks.export': {
    input: z.object({
      ...{ benchmark: BenchmarkId, part: PartOf.part.unwrap().nullable().default(0) },
      format: z.enum(['csv', 'json']),
      /** absolute path of a file that is not there yet, where the application runs */
      file: z.string().min(1).max(4000),
      samples: SampleChoice.omit({ benchmark: true, part: true }).optional(),
    }),
    output: z.object({ file: z.string(), lines: z.number().int() }),
    job: 'library',
  },

  /** base64 of a PNG, JPEG, WebP, … file; stored once by content */
  'pictures.add': { input: z.object({ base64: z.string().max(90_000_000) }), output: Picture, job: false },
  'pictures.read': {
    input: z.object({ id: PictureId }),
    /** base64 and mime: the picture as a page can show it; TIFF comes as PNG */
    output: z.object({ picture: Picture, base64: z.string(), mime: z.string() }),
    job: false,
  },
  /** made where they are missing; without those of pictures the library does not have or cannot read */
  'pictures.thumbnails': {
    input: z.object({ ids: z.array(PictureId).max(200) }),
    output: z.array(Thumbnail),
    job: false,
  },
  /** the demo pictures; adds them to the library when first asked for */
  'pictures.samples': { input: Nothing, output: z.array(SamplePicture), job: false },

  /** streams `answer.token` while it runs */
  'answers.ask': {
    input: z.object({
      picture: PictureId.nullable(),
      prompt: Prompt,
      /** `none`: the unedited model; `committed`: all committed edits, through the router */
      edits: z.enum(['none', 'committed']),
      sampling: Sampling.optional(),
      maxNewTokens: z.number().int().min(1).max(1024).optional(),
    }),
    output: Answer,
    job: true,
  },

  /**
   * The next turn of a conversation, which ends in a question; streams `answer.token` while it runs. A single question is asked in the
   * library's form of prompts, several turns in the checkpoint's chat template.
   */
  'answers.chat': {
    input: z.object({
      turns: z.array(ChatTurn).min(1).max(400),
      edits: z.enum(['none', 'committed']),
      sampling: Sampling.optional(),
      maxNewTokens: z.number().int().min(1).max(100_000).optional(),
      /** texts before which the answer ends */
      stop: z.array(z.string().min(1).max(400)).max(4).default([]),
      /** likeliest tokens told for each token */
      alternatives: z.number().int().min(0).max(20).default(5),
      /** the same turns are asked twice, with and without edits: what both have in common is computed once, and held until then */
      share: z.boolean().default(false),
    }),
    output: ChatAnswer,
    job: true,
  },

  'endpoint.state': { input: Nothing, output: EndpointState, job: false },
  /** `key`: made with the first switching on, and shown this once */
  'endpoint.set': {
    input: z.object({
      enabled: z.boolean().optional(),
      /** 0 takes any free one */
      port: z.number().int().min(0).max(65_535).optional(),
      folders: z.array(z.string().min(1).max(4000)).max(50).optional(),
    }),
    output: z.object({ state: EndpointState, key: z.string().nullable() }),
    job: false,
  },
  /** the old key is answered no more; the new one is shown this once */
  'endpoint.newKey': {
    input: Nothing,
    output: z.object({ state: EndpointState, key: z.string() }),
    job: false,
  },

  'attribution.modules': {
    input: z.strictObject({
      of: AttributedInputs,
      limit: MostInputs,
      /** the key token is its first token; without, what the model says next */
      token: z.string().trim().min(1).max(200).optional(),
      /** the wrong key token; without, one of the set, where there is one */
      control: z.string().trim().min(1).max(200).optional(),
      variant: ModuleReport.shape.variant.default('code'),
    }),
    output: ModuleReport,
    job: 'long over sets',
  },
  'attribution.visual': {
    input: z.strictObject({
      of: AttributedInput,
      /** ascending; all without */
      layers: z.array(z.number().int().min(0).max(1000)).min(1).max(1000).optional(),
      /** what is left out is as in the paper, or in the published code */
      variant: z.enum(['paper', 'code']).default('paper'),
      level: z.number().gt(0).max(1000).optional(),
      draws: z.number().int().min(1).max(1000).optional(),
      radius: z.number().int().min(0).max(100).optional(),
      seed: Seed,
    }),
    output: VisualReport,
    job: true,
  },
  'attribution.modality': {
    input: z.strictObject({
      of: AttributedInputs,
      limit: MostInputs,
      /** null: attention alone */
      noise: z
        .strictObject({
          /** in standard deviations of the rows it is put on */
          level: z.number().gt(0).max(1000).default(1),
          draws: z.number().int().min(1).max(100).default(3),
          seed: Seed,
        })
        .nullable(),
    }),
    output: ModalityReport,
    job: 'long over sets',
  },
  /** what a gate compares over an editing set, on the unedited open model, in a process of its own */
  'attribution.gate': {
    input: DataSetFile.extend({
      /** edits taken, from the first */
      limit: z.number().int().min(1).max(100_000).default(100),
      /** ascending; all without */
      layers: z.array(z.number().int().min(0).max(1000)).min(1).max(1000).optional(),
    }),
    output: z.object({ report: GateReport, seconds: z.number() }),
    job: 'long',
  },
  'attribution.propose': {
    input: z.strictObject({
      of: AttributedInputs,
      limit: MostInputs,
      rows: LayerProposal.shape.rows.default('visual'),
      seed: Seed,
    }),
    output: LayerProposal,
    job: 'long over sets',
  },
  /** attributions over sets that are kept, the last twenty, latest first */
  'attribution.runs': { input: Nothing, output: z.array(AttributionRun), job: false },
  'attribution.read': {
    input: z.object({ run: AttributionId }),
    output: z.object({ run: AttributionRun, found: AttributionFound }),
    job: false,
  },
  'attribution.remove': { input: z.object({ run: AttributionId }), output: Nothing, job: false },

  'edits.create': {
    input: z.object({
      picture: PictureId,
      prompt: Prompt,
      target: z.string().trim().min(1).max(1000),
      before: z.string().optional(),
      note: z.string().max(4000).optional(),
      /** without: as the settings say */
      reach: Reach.optional(),
      /** its probes from the beginning, all or none of them; as for probes.add */
      probes: z.array(NewProbe).max(1000).optional(),
    }),
    output: Edit,
    job: false,
  },
  /** drafts, checked and failed edits only; makes their check stale */
  'edits.update': {
    input: z.object({
      id: EditId,
      prompt: Prompt.optional(),
      target: z.string().trim().min(1).max(1000).optional(),
      note: z.string().max(4000).optional(),
      reach: Reach.optional(),
    }),
    output: Edit,
    job: false,
  },
  /** the rows `offset` up to `offset + limit` of all that match, and how many match; newest first without `sort` */
  'edits.find': {
    input: RowOptions.extend({
      filter: EditFilter.default({}),
      sort: EditSort.default({ by: 'id', descending: true }),
      offset: z.number().int().min(0).default(0),
      limit: z.number().int().min(1).max(500).default(100),
    }),
    output: Rows.extend({ total: z.number().int() }),
    job: false,
  },
  /** rows of edits that changed, to be put in the place of old ones; in the order asked, without those that are not there */
  'edits.rows': {
    input: RowOptions.extend({ edits: z.array(EditId).max(500) }),
    output: Rows,
    job: false,
  },
  /** numbers of the edits that match, in order */
  'edits.numbers': {
    input: z.object({
      filter: EditFilter.default({}),
      sort: EditSort.default({ by: 'id', descending: true }),
      offset: z.number().int().min(0).default(0),
      limit: z.number().int().min(1).max(100_000).default(100_000),
    }),
    output: z.array(EditId),
    job: false,
  },
  /** what comes before and after an edit in a list, whether or not the edit itself is still in it */
  'edits.neighbours': {
    input: z.object({ id: EditId, filter: EditFilter.default({}), sort: EditSort }),
    output: z.object({
      previous: EditId.nullable(),
      next: EditId.nullable(),
      /** place of the edit from 0, or where it would be */
      place: z.number().int(),
      total: z.number().int(),
    }),
    job: false,
  },
  /** the note of an edit, committed or not; nothing else of it changes */
  'edits.note': { input: z.object({ id: EditId, note: z.string().max(4000) }), output: Edit, job: false },
  'edits.tagMany': {
    input: z.object({
      select: EditSelection,
      add: z.array(Tag).max(20).default([]),
      remove: z.array(Tag).max(20).default([]),
    }),
    output: Bulk,
    job: 'bulk',
  },
  'edits.retireMany': {
    input: z.object({ select: EditSelection, reason: z.string().max(2000).optional() }),
    output: Bulk,
    job: 'bulk',
  },
  'edits.restoreMany': { input: z.object({ select: EditSelection }), output: Bulk, job: 'bulk' },
  /**
   * Drafts from a file: a flat JSON list in any published form or in Emend's own, or CSV with a line of column names. Rows that
   * cannot be used are told by number, the others are kept, a batch at a time; stopped, what was added stays.
   */
  'edits.import': {
    input: z.object({
      /** absolute path, where the application runs */
      file: z.string().min(1).max(4000),
      /** folder the pictures are in; the file's own otherwise */
      images: z.string().min(1).max(4000).optional(),
      /** told from the file's name and first row otherwise */
      format: EditingSetFormat.optional(),
      /** put on every edit added */
      tags: z.array(Tag).max(20).default([]),
      /** reads everything and adds nothing */
      dryRun: z.boolean().default(false),
    }),
    output: z.object({
      /** rows read, of which so many became, or would become, drafts */
      rows: z.number().int(),
      added: z.number().int(),
      /** rows the library has already, with the edit */
      known: z.number().int(),
      wrong: z.number().int(),
      /** the first thousand wrong rows, counted from 1 */
      problems: z.array(z.object({ row: z.number().int(), reason: z.string() })),
      stopped: z.boolean(),
    }),
    job: 'library',
  },
  /** a file of edits and a folder `pictures` beside it, in a new folder */
  'edits.exportMany': {
    input: z.object({
      select: EditSelection,
      format: z.enum(['emend', 'evqa', 'csv']),
      /** absolute path of a folder that is not there yet, where the application runs */
      folder: z.string().min(1).max(4000),
    }),
    output: z.object({
      file: z.string(),
      edits: z.number().int(),
      pictures: z.number().int(),
      /** edits left out, as E-VQA asks for probes they do not have; the first hundred */
      refused: z.array(z.object({ edit: EditId, reason: z.string() })),
      refusals: z.number().int(),
    }),
    job: 'library',
  },

  /**
   * Writes what all committed edits of an editor that changes weights do together: `checkpoint`, a copy of the model's folder with them, in
   * which only files with changes are written anew; `delta`, what is added alone, as safetensors under the tensors' own names.
   * They then act everywhere: no scope goes with a checkpoint.
   */
  'edits.exportWeights': {
    input: z.object({ path: z.string().min(1).max(4000), form: z.enum(['checkpoint', 'delta']) }),
    output: z.object({
      edits: z.number().int(),
      path: z.string(),
      written: z.array(z.string()),
      linked: z.array(z.string()),
    }),
    job: true,
  },

  /** each model and adapter that edits were made for, with how many were; names as they were last opened with this library */
  'edits.actors': {
    input: Nothing,
    output: z.array(
      z.object({
        model: z.string(),
        modelName: z.string().nullable(),
        /** '' where the edits were written without one */
        adapter: z.string(),
        adapterName: z.string().nullable(),
        edits: z.number().int(),
      }),
    ),
    job: false,
  },

  /** every tag in use, by name, with how many edits have it */
  'tags.list': {
    input: Nothing,
    output: z.array(z.object({ name: z.string(), edits: z.number().int() })),
    job: false,
  },
  'views.list': { input: Nothing, output: z.array(SavedView), job: false },
  /** puts a view in the place of one with the same name */
  'views.save': { input: SavedView, output: z.array(SavedView), job: false },
  'views.remove': { input: SavedView.pick({ name: true }), output: z.array(SavedView), job: false },

  /** the change `history.undo` would take back; null when there is none */
  'history.undoable': { input: Nothing, output: Operation.nullable(), job: false },
  /**
   * Takes back the last change that was not taken back yet, as a new change: nothing is removed from the history.
   * With an `operation`, fails with `conflict` unless that is the last one. Stopped in the middle, the same call goes on with it.
   */
  'history.undo': {
    input: z.object({ operation: z.number().int().optional() }),
    output: Operation.extend({ stopped: z.boolean() }),
    job: 'bulk',
  },
  /** does again what was taken back last, while nothing else was changed since; a commit only with a check that still holds */
  'history.redo': { input: Nothing, output: Operation.extend({ stopped: z.boolean() }), job: 'bulk' },
  'edits.show': {
    input: z.object({ id: EditId }),
    output: z.object({
      edit: Edit,
      probes: z.array(Probe),
      check: Check.nullable(),
      history: z.array(HistoryEntry),
      influence: InfluenceMap.nullable(),
      /** as last previewed under the open model and adapter; null where that was not done since the edit last changed */
      answers: PreviewAnswers.nullable(),
    }),
    job: false,
  },
  /** answers before and after this edit alone would act, and where it acts */
  'edits.preview': {
    input: z.object({ id: EditId }),
    output: z.object({
      edit: Edit,
      before: Answer,
      after: Answer,
      /** null: the editor has no map, or the input no picture */
      influence: InfluenceMap.nullable(),
      /** a committed edit that acts on this edit's input and answers otherwise: committing with `supersede` retires it */
      conflict: z.object({ edit: EditId, target: z.string() }).nullable(),
    }),
    job: true,
  },
  /**
   * Fails with `conflict` unless the latest check is fresh and passes, or a reason is given. `supersede`: a committed edit that is
   * retired with it, all or nothing; probes of that edit then do not count against it.
   */
  'edits.commit': {
    input: z.object({
      id: EditId,
      reason: z.string().trim().min(1).max(2000).optional(),
      supersede: EditId.optional(),
    }),
    output: Edit,
    job: false,
  },
  /** commits each edit as `edits.commit` does, one after the other; one that is refused leaves the others alone */
  'edits.commitSet': {
    input: z.object({ select: EditSelection, reason: z.string().trim().min(1).max(2000).optional() }),
    output: z.object({
      committed: z.array(EditId),
      refused: z.array(z.object({ edit: EditId, code: z.string(), message: z.string() })),
    }),
    job: true,
  },
  'edits.retire': {
    input: z.object({ id: EditId, reason: z.string().max(2000).optional() }),
    output: Edit,
    job: false,
  },
  /** undoes `retire`: the edit is a draft again and needs a check */
  'edits.restore': { input: z.object({ id: EditId }), output: Edit, job: false },

  'probes.add': {
    input: NewProbe.extend({ edit: EditId }),
    output: Probe,
    job: false,
  },
  'probes.remove': { input: z.object({ id: z.number().int() }), output: Done, job: false },
  'probes.standing': { input: Nothing, output: z.array(Probe), job: false },

  /** `supersede`: of the library as it would be when that committed edit is retired with the commit, as in `edits.commit` */
  'checks.run': {
    input: z.object({ edit: EditId, supersede: EditId.optional() }),
    output: Check,
    job: true,
  },
  /** checks drafts one after the other, each against the library as it is; what was checked stays when the job is stopped */
  'checks.runSet': {
    input: z.object({ select: EditSelection }),
    output: z.object({ results: z.array(SetResult), pairs: z.array(DisturbingPair), seconds: z.number() }),
    job: true,
  },
  /** checks committed edits again, all without `select`, against the open model and adapter */
  'checks.health': {
    input: z.object({ select: EditSelection.optional() }),
    output: z.object({ results: z.array(Health), seconds: z.number() }),
    job: true,
  },
  /** what `checks.health` found last under the open model and adapter, by edit */
  'checks.healthList': {
    input: z.object({
      outcome: z.array(HealthOutcome).optional(),
      offset: z.number().int().min(0).optional(),
      limit: z.number().int().min(1).max(10_000).optional(),
    }),
    output: z.object({
      results: z.array(Health),
      counts: z.object({ holds: z.number(), 'not-needed': z.number(), 'needs-work': z.number() }),
    }),
    job: false,
  },

  /** those that run, oldest first, then those that ended, latest first */
  'jobs.list': { input: Nothing, output: z.array(JobRecord), job: false },
  'jobs.cancel': { input: z.object({ job: JobId }), output: Done, job: false },
} as const;

export const events = {
  'app.status': Status,
  /** done and total count `unit`s; total null when unknown */
  'job.progress': z.object({
    job: JobId,
    stage: z.string(),
    done: z.number(),
    total: z.number().nullable(),
    unit: z.string(),
    /** how much of the whole job is done, 0..1, where it has stages and knows */
    share: z.number().min(0).max(1).optional(),
  }),
  /** a job began, went on (told a few times a second at most) or ended */
  'jobs.changed': z.object({ job: JobRecord }),
  /** `text`: what is certain of the answer's text by now and was not told before */
  'answer.token': z.object({
    job: JobId,
    side: z.enum(['before', 'after', 'answer']),
    token: AnswerToken,
    text: z.string(),
  }),
  /** one probe of a running check is done */
  'check.result': z.object({ job: JobId, result: ProbeResult }),
  /** one edit of a running `checks.runSet` or `checks.health` is done */
  'check.finished': z.object({ job: JobId, result: SetResult }),
  'health.result': z.object({ job: JobId, result: Health }),
  /** a training began, was validated, ended or is gone; lists should be read again */
  'training.changed': z.object({ training: TrainingId }),
  /** an attribution over a set is kept, or is gone; lists should be read again */
  'attribution.changed': z.object({ run: AttributionId }),
  /** a comparison began, has another row, ended or is gone; lists should be read again */
  'benchmark.changed': z.object({ benchmark: BenchmarkId }),
  'training.point': z.object({ training: TrainingId, point: TrainingPoint }),
  /**
   * The named edits changed, five hundred at most. None named: more than that did, or settings or the open model, which edits'
   * checks depend on; lists should be read again.
   */
  'library.changed': z.object({ edits: z.array(EditId) }),
} as const;

export type Calls = typeof calls;
export type CallName = keyof Calls;
export type CallInput<N extends CallName> = z.input<Calls[N]['input']>;
export type CallOutput<N extends CallName> = z.output<Calls[N]['output']>;
export type Events = typeof events;
export type EventName = keyof Events;
export type EventPayload<N extends EventName> = z.output<Events[N]>;

/** How an error looks on the wire. */
export const WireError = z.object({ code: z.string(), message: z.string() });
export type WireError = z.infer<typeof WireError>;

/** What a front end is given to talk through, whatever carries it. */
export interface Backend {
  /** Rejects with an EmendError-shaped `{ code, message }`. `job` names a long call so that it can be followed and cancelled. */
  call<N extends CallName>(name: N, input: CallInput<N>, options?: { job?: string }): Promise<CallOutput<N>>;
  /** Returns a function that stops listening. */
  on<N extends EventName>(name: N, listener: (payload: EventPayload<N>) => void): () => void;
}
