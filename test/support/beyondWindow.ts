/** @file What of a page lies beyond its window's edge. */
import type { Page } from 'playwright-core';

/** The beginnings of controls' and pictures' markup; what scrolls by itself, or is there for screen readers alone, may lie there. */
export function beyondWindow(page: Page): Promise<string[]> {
  return page.evaluate(() =>
    [...document.querySelectorAll('button, a, input, textarea, select, svg, canvas')]
      .filter(
        (element) =>
          element.closest('.chips, .list, .unseen, dialog, [popover]') === null && element.checkVisibility(),
      )
      .map((element) => ({ name: element.outerHTML.slice(0, 90), box: element.getBoundingClientRect() }))
      .filter(({ box }) => box.right > innerWidth || box.left < 0)
      .map(({ name }) => name),
  );
}
