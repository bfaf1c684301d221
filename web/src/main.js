// The page: what is looked at is in its address, what there is comes as a stream, and both are drawn here.
import 'uplot/dist/uPlot.min.css';
import './app.css';
import * as alerts from './alerts.js';
import * as api from './api.js';
import * as charts from './charts.js';
import * as compare from './compare.js';
import { clean, el, id, keyed, name, say, set } from './dom.js';
import * as explain from './explain.js';
import { clock, number, zone } from './format.js';
import * as hosts from './hosts.js';
import * as keys from './keys.js';
import { handle, link } from './links.js';
import * as picker from './picker.js';
import { ago, iso, overview, parse, question, range, search, step, views } from './state.js';
import * as summary from './summary.js';
import * as theme from './theme.js';
import * as tops from './tops.js';
import * as trends from './trends.js';

/** Hosts that come with each picture; a page of all asks for them itself. */
const hostsInPicture = 12;
const rowsInPicture = 10;

let state = parse(location.search);
let answers = empty(null);
let stream = null; // while what is looked at goes on
let asked = new AbortController();
let paused = false;
let ahead = 0; // the aggregator's clock minus this one, ms

/** What came of the questions about what is looked at. */
function empty(before) {
  return { dashboard: null, series: null, faults: {}, hosts: null, list: null, explained: null, compared: null, then: null, recent: null, dims: before?.dims || [], away: null, refused: null, was: before?.dashboard || before?.was || null };
}

const now = () => Date.now() + ahead;
const live = () => !state.until;

// ---- questions

/** ask begins anew: for another place, range or filter. */
function ask() {
  stream?.stop();
  stream = null;
  asked.abort();
  asked = new AbortController();
  const signal = asked.signal;
  answers = empty(answers);
  render();
  const rows = state.text ? 200 : rowsInPicture;
  const q = question(state, { hosts: state.text ? 500 : hostsInPicture, limit: rows });
  if (live() && !paused) {
    stream = api.follow(q, {
      dashboard: (d) => {
        if (signal.aborted) return;
        const back = answers.away != null;
        took(d);
        if (back) again();
      },
      away: (why) => {
        if (!signal.aborted && !answers.away) answers.away = { since: Date.now(), why };
        else if (answers.away) answers.away.why = why;
        render();
      },
      refused: (why) => refuse(why, signal),
    });
  } else {
    once('dashboard', q, took, signal);
  }
  again();
}

function took(d) {
  ahead = Date.parse(d.status.time) - Date.now();
  answers.dashboard = d;
  answers.away = answers.refused = null;
  render();
  if (d.tops.some((t) => !answers.dims.some((x) => x.dimension === t.dimension))) lists();
}

function refuse(why, signal) {
  if (signal.aborted) return;
  answers.refused = why;
  render();
}

/** Questions whose failure is told where their answer would stand; the rest of the page has its own. */
const own = ['series', 'explain', 'compare'];

/** once asks a question whose answer is shown when it comes. */
async function once(what, query, then, signal) {
  try {
    const a = await api.get(what, query, signal);
    if (signal.aborted) return;
    delete answers.faults[what];
    then(a);
  } catch (e) {
    if (signal.aborted) return;
    if (own.includes(what)) answers.faults[what] = e.message;
    else if (e instanceof api.Refused && e.status < 500) refuse(e.message, signal);
    else if (!stream) answers.away ||= { since: Date.now(), why: e.message };
    render();
  }
}

let listsAsked = 0;

/** lists asks which lists there are, when one is seen that is not known. */
async function lists() {
  if (Date.now() - listsAsked < 10_000) return;
  listsAsked = Date.now();
  try {
    answers.dims = (await api.get('lists', '')).dimensions;
    render();
  } catch {
    // asked again with the next picture
  }
}

/** again asks for what does not come with the stream: the charts, all hosts, one list in full, where a number comes from. */
function again() {
  const signal = asked.signal;
  const keep = (what) => (a) => {
    answers[what] = a;
    render();
  };
  const { begin, end } = range(state, now() / 1000);
  switch (state.view) {
    case 'overview':
      charted(begin, end, signal);
      if (live() && end - begin >= 2 * trends.over) recently(signal);
      break;
    case 'hosts':
      once('hosts', range_(), (h) => keep('hosts')(h.hosts), signal);
      break;
    case 'list':
      once('top', question(state, { list: state.list, limit: tops.many }), keep('list'), signal);
      break;
    case 'explain':
      once('explain', question(state, { list: state.list, key: state.keys }), keep('explained'), signal);
      break;
    case 'compare': // two lists of each kind in full: once, and when it is asked for
      if (!answers.compared) once('compare', question(state, compare.parameters(state)), (a) => overlaid(a, signal), signal);
  }
}

/** When the charts were last asked for as a whole, and when again for what is new, in ms of the aggregator's clock. */
let lastCharted = { whole: 0, next: Infinity };
const wholeEvery = 300_000;

/** charted asks for the charts' points; where there are those of intervals, for the newest only: what is older seldom changes. */
function charted(begin, end, signal) {
  const before = answers.series, t = now();
  const newest = before?.step === 'interval' && live() && t - lastCharted.whole < wholeEvery ? charts.newest(before) : null;
  const since = newest ? { since: iso(Math.max(begin, newest - 60)) } : {};
  lastCharted.next = Infinity;
  if (!newest) lastCharted.whole = t;
  once('series', question({ ...state, ...since }, { step: step(end - begin), outcomes: 'true' }), (s) => {
    if (newest && s.step === before.step) charts.extend(s, before, begin);
    else if (newest) lastCharted.whole = 0; // another width, or another fleet
    if (s.step === 'interval' && live()) lastCharted.next = now() + Math.max(2, answers.dashboard?.status.interval_seconds || 10) * 1000;
    answers.series = s;
    render();
  }, signal);
}

/** recently asks which shares rows have of the newest minutes; without an answer there are no arrows. */
async function recently(signal) {
  try {
    const q = question({ ...state, since: iso(now() / 1000 - trends.over) }, { hosts: 0, limit: 200 });
    const d = await api.get('dashboard', q, signal);
    if (!signal.aborted) answers.recent = trends.read(d, (t) => tops.keysOf(t, answers.dims), tops.keyValue);
  } catch {
    // the stream says what is wrong
  }
}

/** overlaid keeps a comparison, and asks for the rates on both sides. */
async function overlaid(a, signal) {
  answers.compared = a;
  render();
  const c = a.comparisons[0];
  if (!c || state.against === 'peers') return;
  const { begin, end } = { begin: Date.parse(c.since) / 1000, end: Date.parse(c.until) / 1000 };
  const of = (since, until) => api.get('series', question({ ...state, since, until }, { step: step(end - begin) }), signal);
  try {
    const [at, then] = await Promise.all([of(c.since, c.until), of(c.then_since, c.then_until)]);
    if (signal.aborted) return;
    answers.then = { at, then, by: begin - Date.parse(c.then_since) / 1000 };
    render();
  } catch (e) {
    if (!signal.aborted) answers.faults.series = e.message;
    render();
  }
}

/** range_ is the question of the range alone: all hosts are shown, whatever the path. */
const range_ = () => question({ ...state, path: [] });

// ---- moves

function go(to) {
  history.pushState(null, '', to);
  moved();
}

const goState = (s) => go(search(s));

function moved() {
  const before = state;
  state = parse(location.search);
  if (id('filter').value !== state.text) id('filter').value = state.text;
  const same = question(before) === question(state) && before.view === state.view && before.list === state.list && before.keys.join('\u0000') === state.keys.join('\u0000') &&
    before.against === state.against && !!before.text === !!state.text;
  if (same) return render();
  paused = false;
  ask();
  if (before.view !== state.view || before.path.length !== state.path.length) {
    scrollTo({ top: 0 });
    say(id('spoken'), heading());
    id('main').focus({ preventScroll: true });
  }
}

/** back undoes the last step: the filter, the page, the place, the time. */
function back() {
  if (state.text) return goState({ ...state, text: '' });
  if (state.view !== 'overview') return goState(overview(state));
  if (state.path.length) return goState({ ...state, path: state.path.slice(0, -1) });
  if (state.until) goState({ ...state, since: parse('').since, until: '' });
}

function pause() {
  if (!live()) return goState({ ...state, until: '', since: ago(state.since) != null ? state.since : parse('').since });
  paused = !paused;
  if (!paused) return ask();
  stream?.stop();
  stream = null;
  render();
}

// ---- drawing

let due = false;

/** render draws soon, once. */
function render() {
  if (due) return;
  due = true;
  requestAnimationFrame(() => {
    due = false;
    draw();
  });
}

function heading() {
  const of = state.path.length ? state.path.map((p) => clean(p.value)).join(', ') : 'the fleet';
  return { overview: `Overview of ${of}`, hosts: 'Hosts', alerts: 'Alerts', compare: `Comparison of ${of}`, list: `List ${clean(state.list)} of ${of}`,
    explain: `Where a number of ${clean(state.list)} comes from` }[state.view];
}

function draw() {
  const d = answers.dashboard, shown = d || answers.was;
  const t = now();
  say(id('heading'), heading());
  for (const v of views) id(`view-${v}`).hidden = state.view !== v;
  for (const a of document.querySelectorAll('nav a')) {
    set(a, 'href', search({ ...state, view: a.dataset.view }));
    set(a, 'aria-current', a.dataset.view === state.view || (['list', 'explain'].includes(state.view) && a.dataset.view === 'overview') ? 'page' : null);
  }
  drawPath();
  drawConnection(d);
  say(id('when-text'), picker.title(state, t / 1000));
  say(id('time'), `${clock(t)} ${zone()}`);
  document.body.classList.toggle('stale', !d || answers.away != null);
  id('loading').hidden = shown != null || answers.refused != null;
  say(id('loading'), answers.away ? `No answer yet: ${clean(answers.away.why)}` : 'Asking the aggregator …');
  id('content').hidden = shown == null;
  if (!shown) return;
  summary.draw(shown, state, t, answers.series, live());
  const all = shown.status.hosts_reporting + shown.status.hosts_late + shown.status.hosts_gone;
  say(id('count-hosts'), all ? number(all) : '');
  const open = shown.alerts.alerts.length;
  say(id('count-alerts'), open ? number(open) : '');
  const per = shown.status.window_seconds;
  const line = id('alerts-line'), place = state.view === 'alerts' ? id('view-alerts') : id('line-overview');
  if (line.parentElement !== place) place.prepend(line);
  if (state.view === 'overview') {
    const { begin, end } = range(state, t / 1000);
    charts.draw({ series: answers.series, fault: answers.faults.series && clean(answers.faults.series), dashboard: shown, state, live: live() && !!d, begin, end, now: t / 1000 });
    alerts.draw(shown.alerts, state, t / 1000, per);
    hosts.draw(shown, state, all);
    tops.draw(shown, state, answers.dims, answers.recent);
  } else if (state.view === 'hosts') hosts.drawAll(answers.hosts, state);
  else if (state.view === 'alerts') alerts.draw(shown.alerts, state, t / 1000, per);
  else if (state.view === 'explain') explain.draw(answers.explained, answers.faults.explain, state, answers.dims, tops.amounts(shown.tops, state.list, answers.dims));
  else if (state.view === 'compare') {
    compare.draw(answers.compared, answers.faults.compare, state, answers.dims, (list) => tops.amounts(shown.tops, list, answers.dims));
    charts.drawCompared(answers.then, answers.faults.series && clean(answers.faults.series), state.against);
  } else tops.drawOne(answers.list || shown.tops.find((x) => x.dimension === state.list), state, answers.dims);
  say(id('version'), `httpctl ${clean(shown.status.version)}`);
  keys.rove();
}

/** drawPath shows how one came here; each part leads back to it. */
function drawPath() {
  const parts = [{ key: '', value: 'Fleet', path: [] }, ...state.path.map((p, i) => ({ ...p, path: state.path.slice(0, i + 1) }))];
  keyed(id('path'), parts, (p) => JSON.stringify([p.key, p.value]), () => el('li', {}, link('', {})), (e, p) => {
    const a = e.firstElementChild;
    if (!a.firstChild) a.append(...(p.key ? [el('span', { class: 'of' }, clean(p.key)), name(p.value)] : [p.value]));
    set(a, 'href', search({ ...state, path: p.path, view: p.path.length === state.path.length ? state.view : 'overview' }));
    set(a, 'aria-current', p.path.length === state.path.length ? 'true' : null);
  });
}

function drawConnection(d) {
  const box = id('connection');
  const [tone, text] = answers.refused ? ['bad', clean(answers.refused)]
    : answers.away ? ['warn', `Not connected since ${clock(answers.away.since)}: ${clean(answers.away.why)}. Trying again`]
      : paused ? ['plain', 'Paused'] : !d ? ['plain', 'Asking …'] : live() ? ['good', 'Live'] : ['plain', 'History'];
  set(box, 'data-tone', tone);
  say(box.querySelector('.text'), text);
  const toggle = id('pause');
  say(toggle, live() ? (paused ? 'Go on' : 'Pause') : 'Go live');
}

// ---- the beginning

handle(go);
summary.build();
hosts.build(render);
charts.build((from, to) => goState({ ...state, since: iso(from), until: iso(to) }), render);
theme.build(charts.repaint);
picker.build(() => state, () => now() / 1000, goState);
id('pause').addEventListener('click', pause);
document.querySelector('#view-compare .anew').addEventListener('click', () => {
  answers.compared = null;
  render();
  again();
});

const filter = id('filter');
filter.value = state.text;
filter.addEventListener('input', () => {
  const first = !state.text !== !filter.value;
  state = { ...state, text: filter.value };
  history.replaceState(null, '', search(state)); // one step back for all that is typed
  if (first) ask();
  else render();
});
const toggle = (view) => goState({ ...state, view: state.view === view ? 'overview' : view });
const leaveFilter = () => {
  filter.value = '';
  filter.dispatchEvent(new Event('input'));
  id('main').focus({ preventScroll: true });
};

keys.build({
  filter: () => filter.focus(),
  leaveFilter,
  time: () => id('when').click(),
  alerts: () => toggle('alerts'),
  hosts: () => toggle('hosts'),
  compare: () => toggle('compare'),
  overview: () => goState({ ...state, view: 'overview' }),
  back, pause, theme: theme.toggle,
  shift: (part) => goState(picker.moved(state, part, now() / 1000)),
});
for (const a of document.querySelectorAll('nav a')) {
  a.addEventListener('click', (e) => {
    if (e.button !== 0 || e.metaKey || e.ctrlKey || e.shiftKey || e.altKey) return;
    e.preventDefault();
    go(a.getAttribute('href'));
  });
}
addEventListener('popstate', moved);
document.addEventListener('visibilitychange', () => {
  // Nobody looks: agents need not send more for it.
  if (document.hidden) {
    stream?.stop();
    stream = null;
  } else if (live() && !paused && !stream) ask();
});
// Clocks go on between pictures, and charts get their next minute.
setInterval(() => {
  if (document.hidden || paused || !answers.dashboard) return;
  render();
  if (now() >= lastCharted.next && state.view === 'overview' && !answers.away) {
    const { begin, end } = range(state, now() / 1000);
    charted(begin, end, asked.signal);
  }
}, 1000);
setInterval(() => {
  if (!document.hidden && !paused && live() && !answers.away) again();
}, 30_000);
ask();
