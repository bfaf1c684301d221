// The top lists: a panel for each that the aggregator has, a plug-in's too, with bars; each row leads into what it is of.
import { el, id, keyed, name, say, set, clean } from './dom.js';
import { bytes, clock, latency, number, plural, share } from './format.js';
import { into, matcher, search } from './state.js';
import { link } from './links.js';
import * as explain from './explain.js';
import { sign } from './trends.js';

/** Rows of a panel, and of a list that has the page for itself. */
const few = 10;
export const many = 500;

/** kind of a column, by its name: names are stable, and say their unit. */
function kind(column, dimension) {
  if (column === 'share') return share;
  if (column.endsWith('_seconds')) return latency;
  if (column === 'bytes' || column.endsWith('_bytes')) return bytes;
  if (column.endsWith('_seen')) return (v) => clock(v);
  return (v) => (typeof v === 'number' ? number(v) : v == null ? '–' : clean(v));
}

const heads = {
  hits: 'Hits', share: 'Share', bytes: 'Bytes', error: 'Error', last_seen: 'Last seen', volume_bytes: 'Volume', upload_bytes: 'Up', download_bytes: 'Down',
  ttfb_average_seconds: 'Average', ttfb_p50_seconds: 'p50', ttfb_p95_seconds: 'p95', ttfb_p99_seconds: 'p99', ttfb_max_seconds: 'Max', ttfb_count: 'Measured', client_ip: 'Client IP',
};

export const head = (c) => heads[c] || clean(c.replace(/_(seconds|bytes)$/, '').replaceAll('_', ' ')).replace(/^./, (x) => x.toUpperCase());

/** keysOf names the key columns of a list, from the lists that there are; before these have come, of its rows: their texts. */
export function keysOf(top, dims) {
  const d = dims.find((x) => x.dimension === top.dimension);
  if (d) return d.keys;
  const row = top.rows[0] || { key: '' };
  return 'key' in row ? [top.dimension] : Object.keys(row).filter((c) => typeof row[c] === 'string' && !c.endsWith('_seen'));
}

export const keyValue = (row, key) => String(row[key] ?? row.key ?? '');

/** ranking is the column that a list is sorted by: its first value. */
function ranking(top, keys) {
  return Object.keys(top.rows[0] || {}).find((c) => c !== 'rank' && c !== 'key' && !keys.includes(c)) || 'hits';
}

/** amounts says how the numbers are written that a list is sorted by, hits of most: write alone, all with what they are of. */
export function amounts(tops, dimension, dims) {
  const top = tops.find((t) => t.dimension === dimension);
  const inBytes = top && kind(ranking(top, keysOf(top, dims)), dimension) === bytes;
  return inBytes ? { write: bytes, all: bytes } : { write: number, all: (n) => plural(n, 'hit') };
}

/** columns of the values of a list: those that tell most in a panel, all in a page of its own. */
function columns(top, keys, wide) {
  const row = top.rows[0] || {};
  const skip = new Set(['rank', 'key', ...keys]);
  const all = Object.keys(row).filter((c) => !skip.has(c) && (c !== 'error' || top.floor > 0 || top.rows.some((r) => r.error > 0)));
  if (wide) return all;
  const by = ranking(top, keys);
  const shown = [by, 'share'];
  if ('ttfb_p95_seconds' in row) shown.push('ttfb_p95_seconds');
  if (all.includes('error')) shown.splice(1, 0, 'error');
  return shown.filter((c) => all.includes(c));
}

/** canFollow: some list can be filtered by all of these keys. */
const canFollow = (keys, dims) => dims.length === 0 || keys.every((k) => dims.some((d) => d.filters.includes(k)));

function panel(top, wide) {
  const title = wide ? el('span', {}) : link('', { class: 'more' });
  return el('section', { class: wide ? 'card list wide' : 'card list', 'aria-labelledby': `list-${top.dimension}` },
    el('header', {}, el('h2', { id: `list-${top.dimension}` }, title), el('span', { class: 'note' }, wide ? link('', { title: 'Where this number comes from' }) : null)),
    el('div', { class: 'scroll' }, el('table', {}, el('thead', {}, el('tr')), el('tbody'))),
    el('p', { class: 'empty' }), el('p', { class: 'foot' }));
}

function fillPanel(box, top, context) {
  const { state, dims, notes, wide, recent } = context;
  const keys = keysOf(top, dims);
  const title = box.querySelector('h2').firstElementChild;
  say(title, clean(top.title || top.dimension));
  if (!wide) set(title, 'href', search({ ...state, view: 'list', list: top.dimension }));
  const matches = matcher(state.text);
  const whole = top.rows.filter((r) => matches(keys.map((k) => keyValue(r, k)).join(' ')));
  const rows = whole.slice(0, wide ? many : few);
  const shown = columns(top, keys, wide);
  const note = notes.find((n) => n.startsWith(top.dimension + ':'));
  if (wide) {
    const all = box.querySelector('.note').firstElementChild;
    say(all, `${amounts([top], top.dimension, dims).all(top.total)} in all`);
    set(all, 'href', search(explain.question(state, top.dimension, keys, [])));
  } else say(box.querySelector('.note'), note ? clean(note.slice(top.dimension.length + 2)) : '');

  const standing = note?.match(/: from (\w+),/)?.[1]; // the list that answers instead
  const trend = recent?.get(top.dimension);

  const headings = [...keys.map((k) => ({ text: head(k), key: true })), ...shown.map((c) => ({ text: head(c), column: c }))];
  keyed(box.querySelector('thead tr'), headings, (h) => `${h.key} ${h.text}`, (h) => el('th', { scope: 'col', class: h.key ? 'key' : 'number', 'data-column': h.column }, h.text), () => {});
  const by = ranking(top, keys);
  const most = Math.max(1, ...top.rows.map((r) => r[by] || 0));
  const follow = canFollow(keys, dims);
  set(box, 'data-keys', keys.length);
  const body = box.querySelector('tbody');
  const cols = [shown.length, ...keys].join();
  if (body.dataset.cols !== cols) {
    body.replaceChildren();
    body.dataset.cols = cols;
  }
  keyed(body, rows, (r) => keys.map((k) => keyValue(r, k)).join('\u0000'), (r) => {
    const first = keyValue(r, keys[0]);
    const label = follow ? link('', { class: 'row' }, name(first)) : name(first);
    return el('tr', {},
      ...keys.map((k, i) => el(i === 0 ? 'th' : 'td', { scope: i === 0 ? 'row' : null, class: 'key' },
        i === 0 ? el('span', { class: 'bar', 'aria-hidden': 'true' }) : null, i === 0 ? label : name(keyValue(r, k)))),
      ...shown.map((c) => el('td', { class: 'number', 'data-column': c }, c === by ? link('', { class: 'why', tabindex: -1, title: 'Where this number comes from (e)' }) : null,
        c === 'share' ? el('span') : null, c === 'share' ? el('span', { class: 'trend' }) : null)));
  }, (e, r) => {
    e.querySelector('.bar').style.setProperty('width', `${(100 * (r[by] || 0)) / most}%`);
    if (follow) set(e.querySelector('a.row'), 'href', search(into(state, keys, (k) => keyValue(r, k))));
    shown.forEach((c, i) => {
      const cell = e.children[keys.length + i];
      say(cell.firstElementChild || cell, kind(c)(r[c]));
      if (c === by) set(cell.firstElementChild, 'href', search(explain.question(state, top.dimension, keys, keys.map((k) => keyValue(r, k)), standing)));
      if (c === 'share') sign(cell.lastElementChild, trend, keys.map((k) => keyValue(r, k)), r);
    });
  });
  set(body.parentElement, 'hidden', rows.length === 0);
  const empty = box.querySelector('.empty');
  empty.hidden = rows.length > 0;
  say(empty, top.rows.length && state.text ? `None of ${number(top.rows.length)} matches` : 'Nothing yet');
  const foot = [];
  const left = whole.length - rows.length;
  if (top.other && top.other.hits > 0 && !state.text) foot.push(`${number(top.other.hits + rest(top, rows))} hits of others`);
  else if (left > 0) foot.push(`${number(left)} more`);
  if (top.floor > 0) foot.push(`a key that is not listed has at most ${number(top.floor)}`);
  if (top.damaged_intervals > 0) foot.push(`${number(top.damaged_intervals)} damaged intervals left out`);
  if (top.skipped_buckets > 0) foot.push(`${number(top.skipped_buckets)} buckets with another version of this statistic left out`);
  say(box.querySelector('.foot'), foot.join('; '));
}

/** rest is what rows hold that came and are not shown. */
const rest = (top, rows) => top.rows.slice(rows.length).reduce((n, r) => n + r.hits, 0);

/** draw shows the lists of a dashboard. */
export function draw(d, state, dims, recent) {
  const context = { state, dims, notes: d.notes || [], wide: false, recent };
  keyed(id('tops'), d.tops, (t) => t.dimension, (t) => panel(t, false), (box, t) => fillPanel(box, t, context));
}

/** drawOne shows one list on a page of its own; null while it is on its way. */
export function drawOne(top, state, dims) {
  keyed(id('list'), top ? [top] : [], (t) => t.dimension, (t) => panel(t, true), (box, t) => fillPanel(box, t, { state, dims, notes: [], wide: true }));
}
