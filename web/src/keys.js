// The keys, as those of the live view where there is the same to do, and moving in lists.
import { el, id } from './dom.js';

export const keys = [
  ['/', 'filter rows by a text or regular expression; !text: those without'],
  ['t', 'another time'],
  ['a', 'the alert history'],
  ['h', 'the hosts with their health'],
  ['c', 'compare with before, or a host with its peers'],
  ['o', 'the overview'],
  ['e', 'where the number of the row comes from'],
  ['↑ ↓', 'a row up, down; Home and End the first and last'],
  ['← →', 'the list before, the next'],
  ['Enter', 'into the row: all lists and charts show only what belongs to it'],
  ['Esc', 'one step back'],
  ['Space', 'stop the clock, to look at what there is; go on'],
  ['[ ]', 'back and forth by half of the time that is shown; { } by all of it'],
  ['d', 'light or dark'],
  ['?', 'these keys'],
];

const rows = (table) => [...table.querySelectorAll('tbody a.row')];

/** rove leaves one row of each table in the order of Tab; arrows move it. */
export function rove() {
  for (const table of document.querySelectorAll('table.rows, .list table')) {
    const list = rows(table);
    if (!list.length) continue;
    const at = list.includes(document.activeElement) ? document.activeElement : list.find((a) => a.tabIndex === 0) || list[0];
    for (const a of list) {
      const want = a === at ? 0 : -1;
      if (a.tabIndex !== want) a.tabIndex = want;
    }
  }
}

function move(to) {
  if (!to) return;
  for (const a of rows(to.closest('table'))) a.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
  to.scrollIntoView({ block: 'nearest' });
}

function arrow(e) {
  const here = document.activeElement?.closest?.('a.row');
  if (!here) return false;
  const table = here.closest('table');
  const list = rows(table), at = list.indexOf(here);
  const tables = [...document.querySelectorAll('main table')].filter((t) => t.offsetParent && rows(t).length);
  const beside = (by) => {
    const t = tables[tables.indexOf(table) + by];
    return t && (rows(t).find((a) => a.tabIndex === 0) || rows(t)[0]);
  };
  const to = { ArrowDown: () => list[at + 1], j: () => list[at + 1], ArrowUp: () => list[at - 1], k: () => list[at - 1], Home: () => list[0], End: () => list.at(-1),
    ArrowRight: () => beside(1), ArrowLeft: () => beside(-1) }[e.key];
  if (!to) return false;
  move(to());
  return true;
}

/** why follows the link of the row's number to where it comes from. */
const why = () => document.activeElement?.closest?.('tr')?.querySelector('a.why')?.click();

/** build listens. actions has a function for each of: filter time alerts hosts compare overview back pause shift(part) theme help. */
export function build(actions) {
  const help = id('keys');
  help.querySelector('dl').append(...keys.flatMap(([k, text]) => [
    el('dt', {}, ...k.split(' ').map((x) => el('kbd', {}, x))), el('dd', {}, text)]));
  help.addEventListener('click', (e) => {
    if (e.target === help) help.close();
  });
  id('help').addEventListener('click', () => help.showModal());
  const named = {
    '/': actions.filter, t: actions.time, a: actions.alerts, h: actions.hosts, c: actions.compare, o: actions.overview, e: why, d: actions.theme, '?': () => help.showModal(),
    Escape: actions.back, '[': () => actions.shift(-0.5), ']': () => actions.shift(0.5), '{': () => actions.shift(-1), '}': () => actions.shift(1),
  };
  document.addEventListener('keydown', (e) => {
    if (e.defaultPrevented || e.ctrlKey || e.metaKey || e.altKey || document.querySelector('dialog[open]')) return;
    const typing = e.target.closest?.('input, select, textarea');
    if (typing) {
      if (e.key === 'Escape' && e.target.id === 'filter') {
        e.preventDefault();
        actions.leaveFilter();
      } else if ((e.key === 'ArrowDown' || e.key === 'Enter') && e.target.id === 'filter') {
        e.preventDefault();
        move(document.querySelector('main a.row[tabindex="0"]'));
      }
      return;
    }
    if (arrow(e)) return e.preventDefault();
    if (e.key === ' ' && !e.target.closest?.('a, button, summary')) {
      e.preventDefault();
      return actions.pause();
    }
    if (named[e.key]) {
      e.preventDefault();
      named[e.key]();
    }
  });
}
