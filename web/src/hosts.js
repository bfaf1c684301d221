// The hosts with their health, those in trouble first: a panel of some, and a page of all.
import { el, id, keyed, name, say, set, clean } from './dom.js';
import { clock, counters, number, rate } from './format.js';
import { matcher, overview, search } from './state.js';
import { link } from './links.js';

/** Rows that are drawn at once: a fleet of thousands is leafed through. */
const page = 50;
const few = 10;

const trouble = { gone: 0, late: 1, unknown: 2, reporting: 3 };
const signs = { reporting: '●', late: '◐', gone: '○', unknown: '?' };

export const sum = (loss) => Object.values(loss || {}).reduce((a, b) => a + b, 0);

const columns = [
  { key: 'name', head: 'Host', text: true, order: (a, b) => a.name.localeCompare(b.name) },
  { key: 'health', head: 'Health', text: true, order: (a, b) => trouble[a.health] - trouble[b.health] },
  { key: 'rate', head: 'Rate', write: (h) => rate(h.rate), order: (a, b) => b.rate - a.rate },
  { key: 'requests', head: 'Requests', write: (h) => number(h.requests), order: (a, b) => b.requests - a.requests },
  { key: 'loss', head: 'Not seen', text: true, write: (h) => counters(h.loss).join(', ') || 'nothing', order: (a, b) => sum(b.loss) - sum(a.loss) },
  { key: 'covered_through', head: 'Covered through', write: (h) => clock(h.covered_through), order: (a, b) => String(a.covered_through).localeCompare(String(b.covered_through)), wide: true },
  { key: 'open', head: 'Open', write: (h) => number(h.open), order: (a, b) => b.open - a.open, wide: true },
  { key: 'backlog', head: 'Backlog', write: (h) => number(h.backlog), order: (a, b) => b.backlog - a.backlog, wide: true },
  { key: 'connected', head: 'Connected', text: true, write: (h) => (h.connected ? 'yes' : 'no'), order: (a, b) => Number(a.connected) - Number(b.connected), wide: true },
  { key: 'version', head: 'Version', text: true, write: (h) => clean(h.version || '–'), order: (a, b) => a.version.localeCompare(b.version), wide: true },
];

/** How the page of all hosts is sorted, and which part of it is shown. */
const shown = { by: 'health', down: false, page: 0 };

export const byTrouble = (a, b) => trouble[a.health] - trouble[b.health] || b.rate - a.rate || a.name.localeCompare(b.name);

function cell(c) {
  if (c.key === 'name') return el('th', { scope: 'row', class: 'key' }, el('span', { class: 'bar', 'aria-hidden': 'true' }), link('', { class: 'row' }));
  return el('td', { class: c.text ? `text ${c.key}` : 'number' }, c.key === 'requests' ? link('', { class: 'why', tabindex: -1, title: 'Where this number comes from (e)' }) : null);
}

function row(h, cols) {
  const e = el('tr', {}, ...cols.map(cell));
  e.querySelector('a.row').append(name(h.name || h.id));
  return e;
}

function fill(e, h, cols, state, most) {
  const path = [...state.path.filter((p) => p.key !== 'host'), { key: 'host', value: h.name || h.id }];
  set(e.querySelector('a.row'), 'href', search(overview(state, path)));
  set(e.querySelector('a.why'), 'href', search({ ...overview(state, path), view: 'explain', list: 'method' }));
  e.querySelector('.bar').style.setProperty('width', `${most > 0 ? (100 * h.rate) / most : 0}%`);
  cols.forEach((c, i) => {
    const to = e.children[i];
    if (c.key === 'name') return;
    if (c.key === 'health') healthCell(to, h.health);
    else {
      say(to.firstElementChild || to, c.write(h));
      if (c.key === 'loss') {
        set(to, 'title', c.write(h));
        set(to, 'data-loss', sum(h.loss) > 0);
      }
    }
  });
}

/** healthCell writes a health, with a sign. */
export function healthCell(cell, health) {
  set(cell, 'data-health', health);
  say(cell, `${signs[health] || '?'} ${health}`);
}

/** draw shows the first hosts in their panel. all is how many there are. */
export function draw(d, state, all) {
  const cols = columns.slice(0, 5);
  const box = id('hosts-panel');
  const matches = matcher(state.text);
  const hosts = d.hosts.filter((h) => matches(h.name)).sort(byTrouble);
  const most = Math.max(0, ...hosts.map((h) => h.rate));
  keyed(box.querySelector('thead tr'), cols, (c) => c.key, (c) => el('th', { scope: 'col', class: c.text ? 'key' : 'number' }, c.head), () => {});
  keyed(box.querySelector('tbody'), hosts.slice(0, few), (h) => h.id, (h) => row(h, cols), (e, h) => fill(e, h, cols, state, most));
  set(box.querySelector('table'), 'hidden', hosts.length === 0);
  const more = box.querySelector('.all');
  set(more, 'href', search({ ...state, view: 'hosts' }));
  say(more, all > few ? `All ${number(all)} hosts` : 'Hosts');
  const empty = box.querySelector('.empty');
  empty.hidden = hosts.length > 0;
  say(empty, state.text && d.hosts.length ? `None of ${number(d.hosts.length)} matches` : 'No agent has reported yet');
}

/** build makes the page of all hosts; again() draws it anew. */
export function build(again) {
  const box = id('hosts-page');
  for (const [cls, by] of [['prev', -1], ['next', 1]]) {
    box.querySelector(`.${cls}`).addEventListener('click', () => {
      shown.page += by;
      again();
    });
  }
  box.querySelector('thead tr').append(...columns.map((c) => el('th', { scope: 'col', class: c.text ? 'key' : 'number', 'data-key': c.key },
    el('button', {
      type: 'button', class: 'sort', onclick() {
        shown.down = shown.by === c.key && !shown.down;
        shown.by = c.key;
        shown.page = 0;
        again();
      },
    }, c.head, el('span', { 'aria-hidden': 'true', class: 'arrow' })))));
}

/** drawAll shows a page of all hosts; null while they are on their way. */
export function drawAll(hosts, state) {
  const box = id('hosts-page');
  const matches = matcher(state.text);
  const found = (hosts || []).filter((h) => matches(h.name));
  const by = columns.find((c) => c.key === shown.by);
  found.sort((a, b) => (shown.down ? -1 : 1) * by.order(a, b) || byTrouble(a, b));
  const pages = Math.max(1, Math.ceil(found.length / page));
  shown.page = Math.min(Math.max(0, shown.page), pages - 1);
  for (const th of box.querySelectorAll('thead th')) {
    const own = th.dataset.key === shown.by;
    set(th, 'aria-sort', own ? (shown.down ? 'descending' : 'ascending') : null);
    say(th.querySelector('.arrow'), own ? (shown.down ? ' ▼' : ' ▲') : '');
  }
  const most = Math.max(0, ...found.map((h) => h.rate));
  const part = found.slice(shown.page * page, (shown.page + 1) * page);
  keyed(box.querySelector('tbody'), part, (h) => h.id, (h) => row(h, columns), (e, h) => fill(e, h, columns, state, most));
  const counts = ['gone', 'late', 'reporting'].map((k) => [k, (hosts || []).filter((h) => h.health === k).length]).filter(([, n]) => n > 0);
  say(box.querySelector('.note'), hosts ? counts.map(([k, n]) => `${number(n)} ${k}`).join(', ') : 'on their way …');
  set(box.querySelector('.pager'), 'hidden', pages === 1);
  say(box.querySelector('.where'), `${number(shown.page * page + 1)} to ${number(shown.page * page + part.length)} of ${number(found.length)}`);
  box.querySelector('.prev').disabled = shown.page === 0;
  box.querySelector('.next').disabled = shown.page === pages - 1;
  const empty = box.querySelector('.empty');
  empty.hidden = !hosts || found.length > 0;
  say(empty, state.text && hosts?.length ? `None of ${number(hosts.length)} matches` : 'No agent has reported yet');
}
