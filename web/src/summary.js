// The state and what is most important beside it: is it fine, since when not, how much was not seen.
import { el, id, keyed, name, say, set, clean } from './dom.js';
import { bytes, clock, latency, number, plural, rate, share, span } from './format.js';
import { narrowed } from './state.js';

const words = {
  normal: ['●', 'Normal', 'good'],
  alert: ['▲', 'Alert', 'bad'],
  dismissed: ['▽', 'Dismissed', 'good'],
  learning: ['◌', 'Learning', 'accent'],
  unknown: ['?', 'Unknown', 'warn'],
};

export const stateWord = (state) => words[state] || words.unknown;

/** seconds between two times; times may be text. */
const between = (a, b) => (Date.parse(b) - (typeof a === 'number' ? a : Date.parse(a))) / 1000;

/** stateText says in words what the state means. now is the aggregator's clock, in ms. */
export function stateText(d, now) {
  const a = d.status.alert;
  const since = a.since ? `since ${clock(a.since)} (${span((now - Date.parse(a.since)) / 1000)})` : '';
  switch (a.state) {
    case 'learning':
      if (!a.learning_end) return 'waits for the first intervals of an agent';
      return `${span(between(now, a.learning_end))} left, until ${clock(a.learning_end)}`;
    case 'alert':
      if (a.last_requests != null && a.baseline > 0) {
        const above = (a.last_requests - a.baseline) / a.baseline;
        return `${since}: ${number(a.last_requests)} requests in the last window, ${share(above)} above baseline`;
      }
      return since;
    case 'dismissed':
      return `${since}: requests are back within the threshold`;
    default:
      return since;
  }
}

/** outcomes adds up how exchanges ended, and how long responses took, from the list of status codes. */
export function outcomes(d) {
  const top = d.tops.find((t) => t.dimension === 'status');
  if (!top || !(top.total > 0 || top.classes)) return null;
  const of = { '5xx': 0, '4xx': 0, '-': 0, ...(top.classes || {}) };
  if (!top.classes) {
    for (const r of top.rows) {
      const c = r.key === '-' ? '-' : r.key[0] + 'xx';
      of[c] = (of[c] || 0) + r.hits;
    }
  }
  const total = top.classes ? Object.values(top.classes).reduce((a, b) => a + b, 0) : top.total;
  return { total, of, latency: top.latency || null };
}

/** notSeen counts what was not seen: each as [amount, of what]. */
export function notSeen(loss) {
  return Object.entries(loss || {}).filter(([, n]) => n > 0).map(([counter, n]) => {
    const what = counter.replaceAll('_', ' ');
    if (counter === 'unobserved_seconds') return [span(n), 'not watched'];
    return counter.endsWith('_bytes') ? [bytes(n), what] : [number(n), what];
  });
}

/** unread says how many connections are of other protocols than HTTP/1, and so not looked into; '' if there are none. */
export function unread(others) {
  const { tls = 0, http2 = 0, ...rest } = others || {};
  const other = Object.values(rest).reduce((a, b) => a + b, 0);
  const parts = [[tls, 'TLS'], [http2, 'HTTP/2'], [other, 'other']].filter(([n]) => n > 0).map(([n, what]) => `${number(n)} ${what}`);
  return parts.length ? `not read: ${parts.join(', ')}` : '';
}

/** noData says so where nobody watched in the range, so that its zeros are no quiet; '' where there is data, and where that is not told. */
export function noData(d) {
  const s = d.status, told = d.tops.filter((t) => t.coverage);
  if (s.requests > 0 || Object.keys(s.loss).length || !s.interval_start || !told.length || told.some((t) => t.coverage.covered_seconds > 0)) return '';
  const first = d.hosts.map((h) => h.first_seen).filter(Boolean).sort()[0];
  return first && Date.parse(first) >= Date.parse(s.until) ? `no data for this time, it begins at ${clock(first)}` : 'no data for this time';
}

/** whyNothing says why there is no request, as far as it can be told from what was captured; '' where there are some, or it is too early. */
export function whyNothing(s) {
  if (s.requests > 0 || s.packets == null || s.hosts_reporting === 0 || !s.interval_start) return '';
  if (s.packets === 0) return 'No packets came: is it the right interface? sudo httpctl-agent --check-capture -i any looks at all';
  const came = `${plural(s.packets, 'packet')} came, none of HTTP/1`;
  return s.other_protocols.tls || s.other_protocols.http2 ? `${came} in clear text: capture behind what ends TLS` : `${came} yet`;
}

function tile(key, title) {
  return el('div', { class: 'tile', 'data-key': key },
    el('dt', {}, title), el('dd', { class: 'value' }), el('dd', { class: 'detail' }));
}

function fill(t, value, detail, tone) {
  say(t.children[1], value);
  say(t.children[2], detail);
  set(t.children[2], 'title', detail);
  set(t, 'data-tone', tone);
}

const tiles = {};

/** build makes the tiles. */
export function build() {
  for (const [key, title] of [['rate', 'Requests'], ['errors', 'Server errors'], ['times', 'Response time'],
    ['hosts', 'Hosts'], ['unseen', 'Not seen'], ['window', 'Window']]) {
    tiles[key] = tile(key, title);
    id('tiles').append(tiles[key]);
  }
}

/** draw fills state, tiles and notices. series is that of the charts, or null; live says that what is shown goes on. */
export function draw(d, state, now, series, live) {
  const s = d.status, a = s.alert;
  const [sign, word, tone] = stateWord(a.state);
  const banner = id('state');
  set(banner, 'data-tone', tone);
  say(banner.querySelector('.sign'), sign);
  const label = banner.querySelector('.word');
  if (label.textContent !== word) {
    say(label, word);
    say(id('spoken'), `State: ${word}. ${stateText(d, now)}`);
  }
  say(banner.querySelector('.since'), stateText(d, now));
  document.title = `${sign} ${word} · ${rate(s.rate_now)} · httpctl`;

  const per = s.window_seconds > 0 ? s.window_seconds : 1;
  const fleet = state.path.length === 0;
  const limit = a.threshold_requests != null && fleet ? a.threshold_requests / per : null;
  if (narrowed(state)) {
    const last = lastPoint(series);
    fill(tiles.rate, last ? rate(last.rate) : '–', last ? `in the last ${series.step === 'minute' ? 'minute' : series.step} of what is selected` : 'of what is selected');
  } else {
    const normal = a.baseline != null && fleet ? `normal ${rate(a.baseline / per)}, alert above ${rate(limit)}` : noData(d) ? 'on average –' : `${rate(s.rate_average)} on average`;
    const age = s.interval_start ? (now - Date.parse(s.interval_start)) / 1000 - s.interval_seconds : 0;
    const old = live && age > Math.max(30, 4 * s.interval_seconds); // nobody has told of anything since
    fill(tiles.rate, rate(s.rate_now), old ? `at ${clock(s.interval_start)}, ${span(age)} ago: nothing newer has come` : normal,
      old ? 'warn' : limit != null && s.rate_now > limit ? 'bad' : null);
  }

  const o = outcomes(d);
  if (o) {
    const part = (c) => (o.of[c] || 0) / o.total;
    fill(tiles.errors, share(part('5xx')), `4xx ${share(part('4xx'))}, no answer ${share(part('-'))}, of ${number(o.total)}`, part('5xx') > 0.01 ? 'warn' : null);
  } else fill(tiles.errors, '–', 'no exchange has ended yet');
  const l = o?.latency;
  if (l && l.count > 0) {
    fill(tiles.times, latency(l.p95_seconds), `p50 ${latency(l.p50_seconds)}, p99 ${latency(l.p99_seconds)}`);
    say(tiles.times.children[0], 'Response time, p95');
  } else fill(tiles.times, '–', 'none was measured yet');

  const troubled = d.hosts.filter((h) => h.health === 'late' || h.health === 'gone');
  const names = troubled.map((h) => `${clean(h.name)} is ${h.health}`).join(', ');
  const all = s.hosts_reporting + s.hosts_late + s.hosts_gone;
  fill(tiles.hosts, all ? `${number(s.hosts_reporting)} of ${number(all)}` : '0',
    troubled.length && s.hosts_late + s.hosts_gone <= 2 ? names : s.hosts_late + s.hosts_gone > 0 ? `${number(s.hosts_late)} late, ${number(s.hosts_gone)} gone` : all ? 'reporting' : 'none yet',
    s.hosts_gone > 0 ? 'bad' : s.hosts_late > 0 ? 'warn' : null);

  const unseen = notSeen(s.loss);
  const nobody = all === 0 && s.requests === 0;
  const none = nobody ? 'nobody has watched yet' : noData(d);
  const others = unread(s.other_protocols);
  const seen = others ? `of HTTP/1; ${others}` : 'all traffic was counted';
  fill(tiles.unseen, unseen.length ? unseen[0][0] : none ? '–' : 'Nothing',
    none ? none : unseen.length ? [unseen[0][1], ...unseen.slice(1).map((u) => u.join(' ')), ...(others ? [others] : [])].join(', ') : seen, unseen.length || (none && !nobody) ? 'warn' : null);

  const reach = a.threshold_requests != null ? `alert above ${number(a.threshold_requests)}` : a.window_end ? 'requests' : 'not begun';
  const last = a.last_requests != null ? `, last ${number(a.last_requests)}${a.last_incomplete ? ' (incomplete)' : ''}` : '';
  fill(tiles.window, number(a.window_requests), `${reach}${a.window_end ? `, check in ${span(between(now, a.window_end))}` : ''}${last}`);

  learning(d, now);
  id('nobody').hidden = !nobody;
  const why = live && !none ? whyNothing(s) : '';
  const notices = [
    ...(why ? [['warn', why]] : []),
    ...s.warnings.map((t) => ['warn', t]),
    ...(a.joined_hosts?.length ? [['warn', `${a.joined_hosts.join(', ')} joined since the baseline was learned`]] : []),
    ...d.hosts.filter((h) => h.same_id?.length).map((h) => ['warn', `${h.name}: several agents have its host id: ${h.same_id.join(', ')}`]),
    ...(fleet ? [] : [['plain', ofFleet(state)]]),
  ];
  keyed(id('notices'), notices, ([, t]) => t, ([tone, t]) => el('li', { 'data-tone': tone }, name(t, { title: null })), () => {});
}

/** ofFleet says which of the numbers do not follow the path. */
function ofFleet(state) {
  if (!narrowed(state)) return 'State and window are those of the whole fleet.';
  return state.path.some((p) => p.key === 'host') ? 'State and window are those of the whole fleet; what was not seen is all of the host.'
    : 'State, window, hosts and what was not seen are those of the whole fleet.';
}

function lastPoint(series) {
  const points = (series?.points || []).filter((p) => p.rate != null);
  return points.at(-1) || null;
}

/** learning shows how long it takes until it is known what is normal. */
function learning(d, now) {
  const a = d.status.alert, box = id('learning');
  box.hidden = a.state !== 'learning' || !a.learning_end;
  if (box.hidden) return;
  const whole = between(a.learning_start, a.learning_end);
  const done = whole > 0 ? Math.min(1, Math.max(0, 1 - between(now, a.learning_end) / whole)) : 0;
  const bar = box.querySelector('progress');
  bar.value = done;
  say(box.querySelector('.left'), `${span(between(now, a.learning_end))} left`);
  const per = d.status.window_seconds;
  const estimate = a.estimated_baseline > 0 && per > 0
    ? `Estimate so far: ${number(a.estimated_baseline)} requests per ${span(per)}, which is ${rate(a.estimated_baseline / per)}. Alerts would begin above ${rate((a.estimated_baseline / per) * (1 + a.threshold_percent / 100))}.`
    : 'No estimate yet.';
  say(box.querySelector('.estimate'), estimate);
}

