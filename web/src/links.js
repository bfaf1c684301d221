// Links that stay on the page: they have an address like any other, for a new tab or to be sent to someone.
import { el } from './dom.js';

let go = () => {};

/** handle says what happens when such a link is followed. */
export function handle(f) {
  go = f;
}

/** link makes a link into another state of the page. */
export function link(href, attributes, ...children) {
  return el('a', {
    href: href || null,
    ...attributes,
    onclick(e) {
      if (e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
      const at = e.currentTarget.getAttribute('href');
      if (at == null) return;
      e.preventDefault();
      go(at);
    },
  }, ...children);
}
