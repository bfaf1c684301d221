// Where a number of a list comes from: which hosts gave what to it, which part of the time they saw, and what they did not see.
import { clean, el, id, keyed, name, say, set } from './dom.js';
import { clock, counters, number, plural, share, span } from './format.js';
import { overview, search } from './state.js';
import { link } from './links.js';
import { healthCell, sum } from './hosts.js';

/** Rows that are drawn; the sums are of all. */
const most = 200;

const columns = [
  { key: 'host', head: 'Host', text: true },
  { key: 'health', head: 'Health', text: true },
  { key: 'hits', head: 'Hits', write: (h, of) => of.write(h.hits) },
  { key: 'error', head: 'At most more', write: (h, of) => of.write(h.error), there: (h) => h.error > 0 },
  { key: 'share', head: 'Share', write: (h) => share(h.share) },
  { key: 'pending', head: 'Under way', write: (h, of) => of.write(h.pending), there: (h) => h.pending > 0 },
  { key: 'buckets', head: 'Buckets', write: (h) => number(h.buckets) },
  { key: 'skipped', head: 'Left out', write: (h) => number(h.skipped), there: (h) => h.skipped > 0 },
  { key: 'covered', head: 'Covered', write: (h) => span(h.covered_seconds) },
  { key: 'unobserved', head: 'Not watched', write: (h) => span(h.unobserved_seconds), there: (h) => h.unobserved_seconds > 0 },
  { key: 'loss', head: 'Not seen', text: true, write: (h) => counters(h.loss).join(', ') || 'nothing' },
];

/**
 * question is the state that explains a row of a list; without keys, the list's total. standing names the list that answers
 * instead, where this one cannot be filtered so.
 */
export function question(state, list, keys, values, standing) {
  if (!standing) return { ...state, view: 'explain', list, keys: values, text: '' };
  const path = state.path.slice();
  keys.forEach((key, i) => {
    if (values.length && !path.some((p) => p.key === key)) path.push({ key, value: values[i] });
  });
  return { ...state, view: 'explain', list: standing, keys: [], path, text: '' };
}

/** sentences say how far the number can be believed. */
function sentences(x, amount) {
  const out = [x.error > 0
    ? `There may be up to ${amount.write(x.error)} more: hosts whose lists were full folded this key into the rest for a while.`
    : 'The number is exact for what was seen.'];
  if (x.pending > 0) out.push(`A live list shows ${amount.all(x.pending)} more: of intervals that are under way.`);
  if (x.mirrored_left_out) out.push('What another monitored host counts too is counted once.');
  if (x.damaged_intervals > 0) out.push(`${plural(x.damaged_intervals, 'interval')} failed their checksum and are left out, the first at ${clock(x.damaged[0])}.`);
  if (x.hosts.some((h) => h.skipped > 0)) out.push('Buckets with another version of this statistic are left out.');
  return out;
}

/** draw shows an answer; null while it is on its way. fault says why there is none, amount how its numbers are written. */
export function draw(x, fault, state, dims, amount) {
  const box = id('view-explain');
  const list = dims.find((d) => d.dimension === state.list);
  const title = list?.title || x?.dimension || state.list;
  const of = box.querySelector('.of');
  const what = JSON.stringify([state.keys, state.path.length > 0]);
  if (of.dataset.what !== what) {
    of.dataset.what = what;
    of.replaceChildren(...(state.keys.length ? state.keys.map((k) => name(k)) : [state.path.length ? 'all of what is selected' : 'all of it']));
  }
  say(box.querySelector('.kind'), clean(title));
  say(box.querySelector('.value'), x ? amount.all(x.hits) : fault ? '–' : 'Asking …');
  say(box.querySelector('.range'), x ? `${clock(x.since)} to ${clock(x.until)}` : '');
  keyed(box.querySelector('.notes'), fault ? [clean(fault)] : x ? sentences(x, amount) : [], (t) => t, (t) => el('li', {}, t), () => {});
  const into = list && state.keys.length ? list.keys.map((key, i) => ({ key, value: state.keys[i] })).filter((p) => p.value != null) : [];
  const path = [...state.path.filter((p) => !into.some((i) => i.key === p.key)), ...into];
  keyed(box.querySelector('.on'), [['Look at it', 'overview'], ['Compare it', 'compare']], ([t]) => t, ([t]) => link('', {}, t),
    (a, [, view]) => set(a, 'href', search({ ...overview(state, path), view })));

  const hosts = (x?.hosts || []).slice().sort((a, b) => b.hits - a.hits || a.host.localeCompare(b.host));
  const shown = columns.filter((c) => !c.there || hosts.some(c.there));
  const table = box.querySelector('table');
  const body = table.tBodies[0], kind = shown.map((c) => c.key).join();
  if (body.dataset.cols !== kind) {
    body.replaceChildren();
    body.dataset.cols = kind;
  }
  keyed(table.tHead.rows[0], shown, (c) => c.key, (c) => el('th', { scope: 'col', class: c.text ? 'key' : 'number' }, c.head), () => {});
  keyed(body, hosts.slice(0, most), (h) => h.id, (h) => el('tr', {}, ...shown.map((c) => (c.key === 'host'
    ? el('th', { scope: 'row', class: 'key' }, el('span', { class: 'bar', 'aria-hidden': 'true' }), link('', { class: 'row' }, name(h.host || h.id)))
    : el('td', { class: c.text ? `text ${c.key}` : 'number' })))), (e, h) => {
    e.querySelector('.bar').style.setProperty('width', `${hosts[0].hits > 0 ? (100 * h.hits) / hosts[0].hits : 0}%`);
    set(e.querySelector('a.row'), 'href', search(overview(state, [...path.filter((p) => p.key !== 'host'), { key: 'host', value: h.host || h.id }])));
    shown.forEach((c, i) => {
      if (c.key === 'health') healthCell(e.children[i], h.health);
      else if (c.write) say(e.children[i], c.write(h, amount));
      if (c.key === 'loss') set(e.children[i], 'data-loss', sum(h.loss) > 0);
    });
  });
  table.hidden = hosts.length === 0;
  const foot = box.querySelector('.foot');
  say(foot, !x ? '' : hosts.length > most ? `${number(hosts.length - most)} more hosts` : hosts.length ? '' : 'No host has anything of this range.');
}
