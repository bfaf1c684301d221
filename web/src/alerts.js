// The alert history: a line of time on which each alert has its place and length, and a table.
import { clean, el, id, keyed, say, set } from './dom.js';
import { clock, number, plural, rate, share, span } from './format.js';
import { iso, overview, range, search } from './state.js';
import { link } from './links.js';

const seconds = (t) => Date.parse(t) / 1000;

/** sentence says how long those that are over lasted. */
function sentence(a) {
  const over = a.alerts.filter((x) => x.end).length;
  if (!over) return a.alerts.length ? 'None was dismissed yet' : '';
  return `${plural(over, 'alert')} dismissed, after ${span(a.max_duration_seconds)} at most, ${span(a.average_duration_seconds)} on average`;
}

/** peak is the window with most requests. */
const peak = (a) => a.entries.reduce((m, e) => Math.max(m, e.hits), 0);

/** around is the state that looks at the time of an alert. */
function around(state, a, now) {
  const begin = seconds(a.start), end = a.end ? seconds(a.end) : now;
  const margin = Math.max(300, (end - begin) / 2);
  return { ...overview(state), since: iso(begin - margin), until: a.end && end + margin < now ? iso(end + margin) : '' };
}

/** draw shows the line of time, and where it is on a page of its own the table too. now is in seconds. */
export function draw(alerts, state, now, per) {
  line(id('alerts-line'), alerts, state, now);
  const box = id('alerts-page');
  const list = alerts.alerts;
  keyed(box.querySelector('tbody'), list, (a) => a.scope + a.start, (a) => el('tr', {},
    el('td', { class: 'text state' }), el('th', { scope: 'row', class: 'key' }, link('', { class: 'row' })), el('td', { class: 'text' }), el('td', { class: 'number' }),
    el('td', { class: 'number' }), el('td', { class: 'number' }), el('td', { class: 'text windows' })), (e, a) => {
    set(e, 'data-open', a.end == null);
    const [state_, start, end, lasted, most, normal, windows] = e.children;
    say(state_, a.end ? '▽ dismissed' : '▲ alert');
    set(start.firstElementChild, 'href', search(around(state, a, now)));
    say(start.firstElementChild, clock(a.start));
    say(end, a.end ? clock(a.end) : 'lasts');
    say(lasted, span(a.end ? a.duration_seconds : now - seconds(a.start)));
    const over = a.baseline > 0 ? (peak(a) - a.baseline) / a.baseline : null;
    say(most, over == null ? number(peak(a)) : `${number(peak(a))} (+${share(over)})`);
    say(normal, `${number(a.baseline)}${per > 0 ? ` (${rate(a.baseline / per)})` : ''}`);
    const wins = a.entries.slice().reverse().slice(0, 12);
    const items = wins.map((w) => ({ key: w.time, text: number(w.hits) + (w.late_hits ? ` +${number(w.late_hits)} late` : '') + (w.incomplete ? ' (incomplete)' : '') }));
    if (a.joined_hosts?.length) items.push({ key: 'joined', text: `joined after the baseline was learned: ${a.joined_hosts.map(clean).join(', ')}` });
    keyed(windows, items, (w) => w.key, (w) => el('span', { class: w.key === 'joined' ? 'joined' : 'win', title: w.key === 'joined' ? null : clock(w.key) }), (s, w) => say(s, w.text));
  });
  set(box.querySelector('table'), 'hidden', list.length === 0);
  box.querySelector('.empty').hidden = list.length > 0;
}

/** line places the alerts on a line of the time that is looked at, and from where the first of them began, if that is before. */
function line(box, alerts, state, now) {
  const list = alerts.alerts;
  const shown = range(state, now), past = Boolean(state.until);
  const until = past ? Math.max(shown.end, ...list.map((a) => (a.end ? seconds(a.end) : shown.end))) : now;
  const first = Math.min(shown.begin, ...list.map((a) => seconds(a.start)));
  const begin = first - (until - first) * 0.02, length = Math.max(1, until - begin);
  const track = box.querySelector('.track');
  keyed(track, list, (a) => a.scope + a.start, () => link('', { class: 'mark' }), (e, a) => {
    const from = seconds(a.start), to = a.end ? seconds(a.end) : until;
    e.style.setProperty('left', `${(100 * (from - begin)) / length}%`);
    e.style.setProperty('width', `${(100 * (to - from)) / length}%`);
    set(e, 'data-open', a.end == null);
    set(e, 'href', search(around(state, a, now)));
    const text = `${a.end ? 'Alert' : 'Alert that lasts'} from ${clock(a.start)}, ${span(to - from)}`;
    set(e, 'aria-label', text);
    set(e, 'title', text);
  });
  say(box.querySelector('.from'), clock(begin * 1000));
  say(box.querySelector('.to'), past ? clock(until * 1000) : 'now');
  say(box.querySelector('.sum'), list.length ? sentence(alerts) : 'No alert in this time');
}
