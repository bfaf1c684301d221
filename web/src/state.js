// What is looked at lives in the page's address, so that it can be shared, and so that back and forward work.

/** Filters that the API has a parameter for; any other key goes into `filter`. */
const own = ['host', 'domain', 'section', 'method', 'status', 'role'];

export const views = ['overview', 'hosts', 'alerts', 'compare', 'list', 'explain'];
export const defaultSince = '1h';
export const defaultAgainst = 'yesterday';

/**
 * parse reads the query of an address. The path keeps the order in which one went.
 * @returns {{path: {key: string, value: string}[], since: string, until: string, view: string, list: string, keys: string[],
 *   against: string, text: string}}
 */
export function parse(search) {
  const s = { path: [], since: defaultSince, until: '', view: 'overview', list: '', keys: [], against: defaultAgainst, text: '' };
  for (const [k, v] of new URLSearchParams(search)) {
    if (own.includes(k)) s.path.push({ key: k, value: v });
    else if (k === 'filter' && v.includes('=')) s.path.push({ key: v.slice(0, v.indexOf('=')), value: v.slice(v.indexOf('=') + 1) });
    else if (k === 'since' && v) s.since = v;
    else if (k === 'until') s.until = v;
    else if (k === 'view' && views.includes(v)) s.view = v;
    else if (k === 'list') s.list = v;
    else if (k === 'key') s.keys.push(v);
    else if (k === 'against' && v) s.against = v;
    else if (k === 'find') s.text = v;
  }
  if (ofList(s) && !s.list) s.view = 'overview';
  return s;
}

const ofList = (s) => s.view === 'list' || s.view === 'explain';

function put(q, path) {
  for (const { key, value } of path) {
    if (own.includes(key)) q.append(key, value);
    else q.append('filter', `${key}=${value}`);
  }
}

/** search writes the query of an address, without what is as by default. */
export function search(s) {
  const q = new URLSearchParams();
  put(q, s.path);
  if (s.since !== defaultSince) q.set('since', s.since);
  if (s.until) q.set('until', s.until);
  if (s.view !== 'overview') q.set('view', s.view);
  if (ofList(s)) q.set('list', s.list);
  if (s.view === 'explain') for (const k of s.keys) q.append('key', k);
  if (s.view === 'compare' && s.against !== defaultAgainst) q.set('against', s.against);
  if (s.text) q.set('find', s.text);
  const text = q.toString();
  return text ? '?' + text : '?';
}

/** overview is the state that looks at a path, without what belongs to other pages. */
export const overview = (s, path = s.path) => ({ ...s, path, view: 'overview', list: '', keys: [], text: '' });

/** into is the state after one goes into a row of a list with these keys. */
export function into(s, keys, valueOf) {
  const path = s.path.slice();
  for (const key of keys) {
    const at = path.findIndex((p) => p.key === key);
    path[at < 0 ? path.length : at] = { key, value: valueOf(key) };
  }
  return overview(s, path);
}

/** iso writes a time, in seconds since 1970, as addresses and the API take it. */
export const iso = (t) => new Date(Math.round(t) * 1000).toISOString().replace('.000', '');

/** question writes the parameters with which the API is asked about what is looked at. */
export function question(s, more = {}) {
  const q = new URLSearchParams();
  for (const { key, value } of s.path) q.append('filter', `${key}=${value}`); // which no comma divides, as it does those of a name
  q.set('since', s.since);
  if (s.until) q.set('until', s.until);
  for (const [k, v] of Object.entries(more)) for (const one of [v].flat()) q.append(k, one);
  return q.toString();
}

/** Filters other than by host: rates and baseline do not follow them. */
export const narrowed = (s) => s.path.some((p) => p.key !== 'host');

const unitSeconds = { s: 1, m: 60, h: 3600, d: 86400, w: 604800 };

/** ago reads 90m, 2d or 1h30m as seconds; other texts are null. */
export function ago(text) {
  if (!/^(\d+(\.\d+)?[smhdw])+$/.test(text)) return null;
  let sum = 0;
  for (const [, n, u] of text.matchAll(/([\d.]+)([smhdw])/g)) sum += Number(n) * unitSeconds[u];
  return sum;
}

/** range is the stretch that is looked at, in seconds since 1970, as far as it can be told without the aggregator. */
export function range(s, now) {
  const end = s.until ? Date.parse(s.until) / 1000 : now;
  const back = ago(s.since);
  const begin = back != null ? now - back : Date.parse(s.since) / 1000;
  return { begin: Number.isFinite(begin) ? begin : end - 3600, end: Number.isFinite(end) ? end : now };
}

/** step is how much time one point of the charts sums up, in a range of so many seconds. */
export function step(seconds) {
  if (seconds <= 2 * 3600) return 'finest'; // by interval, or in a large fleet by the minute
  if (seconds <= 3 * 3600) return '1m';
  if (seconds <= 30 * 3600) return '10m';
  if (seconds <= 8 * 86400) return '1h';
  return seconds <= 120 * 86400 ? '1d' : '1w';
}

/**
 * matcher reads what is typed into the filter: a text or a regular expression, after ! those without. Without a capital
 * letter case does not matter. What is not an expression is a text.
 */
export function matcher(text) {
  const not = text.startsWith('!');
  const want = not ? text.slice(1) : text;
  if (!want) return () => true;
  const flags = want === want.toLowerCase() ? 'i' : '';
  let match;
  try {
    const re = new RegExp(want, flags);
    match = (t) => re.test(t);
  } catch {
    match = (t) => (flags ? t.toLowerCase() : t).includes(want);
  }
  return (t) => match(t) !== not;
}
