/**
 * @file The page's state, wired in one place.
 */
import type { Connection } from '../backend.ts';
import { Attribution } from './attribution.svelte.ts';
import { Benchmarks } from './benchmarks.svelte.ts';
import { Changes } from './changes.ts';
import { Comparing } from './comparing.svelte.ts';
import { Condition } from './condition.svelte.ts';
import { EditLibrary } from './editLibrary.svelte.ts';
import { EndpointControl } from './endpoint.svelte.ts';
import { Health } from './health.svelte.ts';
import { Imports } from './imports.svelte.ts';
import { Jobs } from './jobs.svelte.ts';
import { Models } from './models.svelte.ts';
import { Navigation } from './navigation.svelte.ts';
import { Pictures } from './pictures.svelte.ts';
import { Preferences } from './preferences.svelte.ts';
import { Review } from './review.svelte.ts';
import { Toasts } from './toasts.svelte.ts';
import { Trainings } from './trainings.svelte.ts';
import { Workbench } from './workbench.svelte.ts';

export class Application {
  readonly navigation = new Navigation();
  readonly toasts = new Toasts();
  readonly changes: Changes;
  readonly jobs: Jobs;
  readonly condition: Condition;
  readonly preferences: Preferences;
  readonly pictures: Pictures;
  readonly models: Models;
  readonly library: EditLibrary;
  readonly workbench: Workbench;
  readonly review: Review;
  readonly health: Health;
  readonly imports: Imports;
  readonly attribution: Attribution;
  readonly comparing: Comparing;
  readonly endpoint: EndpointControl;
  readonly trainings: Trainings;
  readonly benchmarks: Benchmarks;

  constructor(connection: Connection) {
    const jobs = new Jobs(connection);
    this.jobs = jobs;
    this.changes = new Changes(connection, this.toasts);
    this.condition = new Condition(connection);
    this.preferences = new Preferences(connection);
    this.pictures = new Pictures(connection);
    this.models = new Models(connection, jobs, this.condition);
    this.library = new EditLibrary(connection, jobs, this.pictures, this.toasts, this.changes);
    this.workbench = new Workbench(
      connection,
      jobs,
      this.pictures,
      this.condition,
      this.toasts,
      this.changes,
      this.preferences,
    );
    this.review = new Review(connection, this.library, this.workbench, this.navigation);
    this.health = new Health(connection, jobs, this.library, this.toasts);
    this.imports = new Imports(connection, jobs, this.changes);
    this.attribution = new Attribution(connection, jobs, this.pictures, this.condition);
    this.comparing = new Comparing(jobs, this.pictures, this.condition);
    this.endpoint = new EndpointControl(connection);
    this.trainings = new Trainings(connection, jobs, this.condition, this.models, this.toasts);
    this.benchmarks = new Benchmarks(connection, jobs, this.toasts);
    let lost = false;
    connection.onConnection((up) => {
      if (up && lost) this.#readAgain();
      lost = !up;
    });
  }

  /** What was told while nobody listened is read anew; the condition sees to itself. */
  #readAgain(): void {
    void this.preferences.read();
    void this.models.readRecent();
    void this.library.read();
    void this.jobs.read();
    void this.workbench.readAgain();
  }

  /** Reads what every screen needs. Each part shows its own error. */
  async start(): Promise<void> {
    await Promise.all([
      this.condition.read(),
      this.preferences.read(),
      this.pictures.readSamples(),
      this.models.readRecent(),
      this.library.read(),
      this.jobs.read(),
    ]);
  }

  /** Goes to the workbench for a new edit: the one begun before an edit was opened, else an empty one. */
  newEdit(): void {
    if (!this.workbench.edit) this.workbench.startAnew();
    this.navigation.go('workbench');
  }

  /** Opens an edit on the workbench. */
  openEdit(id: number): void {
    this.navigation.go('workbench', id);
  }
}
