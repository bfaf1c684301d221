// What is different: what is looked at against the same an hour, a day or a week before, or one host against the others.
import { clean, el, id, keyed, name, say, set } from './dom.js';
import { clock, number, share } from './format.js';
import { into, matcher, search } from './state.js';
import { link } from './links.js';
import { head, keysOf, keyValue } from './tops.js';

export const rows = 10;
const against = [['1h', 'an hour before'], ['yesterday', 'yesterday'], ['last-week', 'last week'], ['peers', 'its peers']];

/** oneHost is whether what is looked at is one host, which has peers. */
const oneHost = (state) => state.path.filter((p) => p.key === 'host').length === 1;

/** parameters are those with which the API is asked. */
export const parameters = (state) => ({ limit: rows, ...(state.against === 'peers' ? { peers: 'true' } : { against: state.against }) });

const sign = (n) => (n > 0 ? '+' : n < 0 ? '−' : '');

/** ratio writes a change; what was not there before, or is there no more, has none. */
function ratio(r) {
  if (!r.then) return 'new';
  if (!r.hits) return 'gone';
  const f = r.change_ratio;
  if (f >= 9.995) return `×${number(Math.round(f + 1))}`;
  return sign(f) + share(Math.abs(f));
}

const columns = [
  { name: 'hits', head: 'Now', write: (r, of) => of.write(r.hits) },
  { name: 'then', head: 'Then', write: (r, of) => of.write(r.then) },
  { head: 'Change', write: (r, of) => sign(r.change) + of.write(Math.abs(r.change)), change: true },
  { head: '%', write: ratio, change: true },
];

function panel(c) {
  return el('section', { class: 'card list', 'aria-labelledby': `compare-${c.dimension}` },
    el('header', {}, el('h2', { id: `compare-${c.dimension}` }, clean(c.title)), el('span', { class: 'note' })),
    el('div', { class: 'scroll' }, el('table', {}, el('thead', {}, el('tr')), el('tbody'))), el('p', { class: 'foot' }));
}

function fill(box, c, state, dims, amount) {
  const matches = matcher(state.text);
  const keys = keysOf(c, dims);
  const found = c.rows.filter((r) => matches(keys.map((k) => keyValue(r, k)).join(' ')));
  const most = Math.max(1, ...c.rows.map((r) => Math.abs(r.change)));
  const bounded = c.rows.some((r) => r.error > 0 || r.then_error > 0);
  const delta = c.then_total > 0 ? ` (${ratio({ hits: c.total, then: c.then_total, change_ratio: (c.total - c.then_total) / c.then_total })})` : '';
  const peers = state.against === 'peers';
  say(box.querySelector('.note'), `${amount.write(c.total)} in all, ${peers ? 'peers' : 'then'} ${amount.write(c.then_total)}${delta}`);
  const heads = columns.map((x) => (peers ? { ...x, head: x.head.replace('Then', 'Peers') } : x));
  keyed(box.querySelector('thead tr'), [...keys.map((k) => ({ head: head(k), key: true })), ...heads], (h) => `${h.key} ${h.head}`,
    (h) => el('th', { scope: 'col', class: h.key ? 'key' : 'number', 'data-column': h.name }, h.head), () => {});
  keyed(box.querySelector('tbody'), found, (r) => keys.map((k) => keyValue(r, k)).join('\u0000'), (r) => el('tr', {},
    ...keys.map((k, i) => (i ? el('td', { class: 'key' }, name(keyValue(r, k)))
      : el('th', { class: 'key', scope: 'row' }, el('span', { class: 'bar', 'aria-hidden': 'true' }), link('', { class: 'row' }, name(keyValue(r, k)))))),
    ...columns.map((x) => el('td', { class: x.change ? 'number change' : 'number', 'data-column': x.name }))), (e, r) => {
    set(e, 'data-change', r.change > 0 ? 'more' : 'less');
    e.querySelector('.bar').style.setProperty('width', `${(100 * Math.abs(r.change)) / most}%`);
    set(e.querySelector('a.row'), 'href', search(into(state, keys, (k) => keyValue(r, k))));
    columns.forEach((x, i) => say(e.children[keys.length + i], x.write(r, amount)));
  });
  set(box.querySelector('table'), 'hidden', found.length === 0);
  const foot = [];
  if (!c.rows.length) foot.push('No difference that is larger than the error bounds');
  else if (!found.length) foot.push('None matches');
  if (c.more > 0) foot.push(c.more === 1 ? '1 other key differs less' : `${number(c.more)} other keys differ less`);
  if (bounded) foot.push('ranked by the part of the change that no error bound explains');
  say(box.querySelector('.foot'), foot.join('; '));
}

/** draw shows an answer; null while it is on its way. fault says why there is none, amountOf(list) how its numbers are written. */
export function draw(x, fault, state, dims, amountOf) {
  const box = id('view-compare');
  keyed(box.querySelector('.against'), against.filter(([k]) => k !== 'peers' || oneHost(state)), ([k]) => k, ([, text]) => el('li', {}, link('', {}, text)), (e, [k]) => {
    set(e.firstElementChild, 'href', search({ ...state, against: k }));
    set(e.firstElementChild, 'aria-current', state.against === k ? 'true' : null);
  });
  const first = x?.comparisons[0];
  const stretch = (a, b) => `${clock(a)} to ${clock(b)}`;
  say(box.querySelector('.range'), fault ? clean(fault) : !x ? 'Comparing …' : !first ? 'There is nothing to compare' : state.against === 'peers'
    ? `${clean(first.now)} against ${clean(first.against)}, ${stretch(first.since, first.until)}`
    : `${stretch(first.since, first.until)}, against ${stretch(first.then_since, first.then_until)}`);
  set(box.querySelector('.range'), 'data-tone', fault ? 'bad' : null);
  keyed(box.querySelector('.notes'), x?.notes || [], (t) => t, (t) => el('li', { 'data-tone': 'warn' }, clean(t)), () => {});
  keyed(id('compared'), x?.comparisons || [], (c) => c.dimension, panel, (e, c) => fill(e, c, state, dims, amountOf(c.dimension)));
  return first && state.against !== 'peers' ? first : null;
}
