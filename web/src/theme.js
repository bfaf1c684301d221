// Light or dark: as the system says, until someone chooses.
import { id, recolour, set } from './dom.js';

const dark = matchMedia('(prefers-color-scheme: dark)');
const where = 'httpctl-theme';

function stored() {
  try {
    const v = localStorage.getItem(where);
    return v === 'light' || v === 'dark' ? v : null;
  } catch {
    return null; // no storage: the choice lasts as long as the page
  }
}

let chosen = stored();
let changed = () => {};

function apply() {
  const now = chosen || (dark.matches ? 'dark' : 'light');
  set(document.documentElement, 'data-theme', chosen);
  set(id('theme'), 'aria-label', now === 'dark' ? 'Light colours' : 'Dark colours');
  set(id('theme'), 'data-now', now);
  recolour();
  changed();
}

/** build applies the theme; repaint() is called when it changes. */
export function build(repaint) {
  apply();
  changed = repaint;
  dark.addEventListener('change', apply);
  id('theme').addEventListener('click', toggle);
}

/** toggle changes between light and dark. What the system says is not kept as a choice. */
export function toggle() {
  const now = chosen || (dark.matches ? 'dark' : 'light');
  const next = now === 'dark' ? 'light' : 'dark';
  chosen = next === (dark.matches ? 'dark' : 'light') ? null : next;
  try {
    if (chosen) localStorage.setItem(where, chosen);
    else localStorage.removeItem(where);
  } catch {
    // as above
  }
  apply();
}
