// Which rows have more, or less, of the newest minutes than of all that is looked at: as the live view tells it.
import { set, say } from './dom.js';
import { share } from './format.js';

/** What the stretch that is shown is compared with, in seconds: its newest part. */
export const over = 300;

// Shares that differ by less than a quarter, or are below a percent of either, are noise, and so is any of fewer hits.
const factor = 1.25, leastShare = 0.01, leastHits = 100;

const id = (values) => values.join('\u0000');

/** read keeps the shares of rows in a dashboard of the newest part, by list. keysOf names the keys of a list. */
export function read(d, keysOf, keyValue) {
  const out = new Map();
  for (const t of d.tops) {
    if (t.total < leastHits) continue;
    const keys = keysOf(t);
    out.set(t.dimension, { all: !t.other || t.other.hits === 0, of: new Map(t.rows.map((r) => [id(keys.map((k) => keyValue(r, k))), r.share || 0])) });
  }
  return out;
}

/** sign writes a trend into an element: an arrow, or nothing. */
export function sign(e, trend, values, row) {
  const newest = trend?.of.get(id(values)) ?? (trend?.all ? 0 : null), whole = row.share || 0;
  const noise = newest == null || Math.max(newest, whole) < leastShare;
  const way = noise ? 0 : newest > whole * factor ? 1 : newest < whole / factor ? -1 : 0;
  say(e, ['↓', '', '↑'][way + 1]);
  const text = way ? `${way > 0 ? 'rising' : 'falling'}: ${share(newest)} in the last ${over / 60} minutes` : null;
  set(e, 'role', way ? 'img' : null);
  set(e, 'aria-label', text);
  set(e, 'title', text);
}
