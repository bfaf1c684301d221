// The range of time: live, the usual ones, or any.
import { el, id, say, set } from './dom.js';
import { clock, span, zone } from './format.js';
import { ago, defaultSince, iso, range, search } from './state.js';
import { link } from './links.js';

const usual = [['15m', 'Last 15 minutes'], ['1h', 'Last hour'], ['6h', 'Last 6 hours'], ['24h', 'Last 24 hours'], ['7d', 'Last 7 days'], ['30d', 'Last 30 days']];

/** local writes a time, in ms, as datetime-local fields take it. */
function local(t) {
  const d = new Date(t);
  return new Date(d.getTime() - d.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

const read = (text) => iso(Date.parse(text) / 1000);

/** title says which range it is. */
export function title(s, now) {
  const found = usual.find(([since]) => since === s.since);
  if (!s.until) {
    if (found) return found[1];
    const back = ago(s.since);
    return back != null ? `Last ${span(back)}` : `Since ${clock(s.since)}`;
  }
  const { begin, end } = range(s, now);
  return `${clock(begin * 1000)} to ${clock(end * 1000)}`;
}

/** build makes the dialog. current() is the state, go(state) goes to another. */
export function build(current, now, go) {
  const dialog = id('times');
  const list = dialog.querySelector('ul');
  for (const [since, text] of usual) {
    list.append(el('li', {}, link('', { 'data-since': since }, text)));
  }
  const [from, to] = dialog.querySelectorAll('input');
  const fault = dialog.querySelector('.fault');
  dialog.querySelector('form').addEventListener('submit', (e) => {
    e.preventDefault();
    if (!from.value || (to.value && from.value >= to.value)) {
      say(fault, from.value ? 'The range ends before it begins.' : 'From is missing.');
      from.focus();
      return;
    }
    dialog.close();
    go({ ...current(), since: read(from.value), until: to.value ? read(to.value) : '' });
  });
  dialog.addEventListener('click', (e) => {
    if (e.target === dialog || e.target.closest('a')) dialog.close();
  });
  id('when').addEventListener('click', () => {
    const s = current();
    const r = range(s, now());
    say(fault, '');
    from.value = local(r.begin * 1000);
    to.value = s.until ? local(r.end * 1000) : '';
    say(dialog.querySelector('.zone'), `Times are in ${zone()}. Without an end the range goes on.`);
    for (const a of list.querySelectorAll('a')) {
      set(a, 'href', search({ ...s, since: a.dataset.since, until: '' }));
      set(a, 'aria-current', a.dataset.since === s.since && !s.until ? 'true' : null);
    }
    dialog.showModal();
  });
}

/** moved is the state whose range lies by a part of its length earlier or later; at the present it is live again. */
export function moved(s, part, now) {
  const { begin, end } = range(s, now);
  const by = (end - begin) * part;
  if (end + by >= now) return { ...s, since: ago(s.since) != null && !s.until ? s.since : nearest(end - begin), until: '' };
  return { ...s, since: iso(begin + by), until: iso(end + by) };
}

/** nearest is a range of so many seconds that ends now. */
function nearest(seconds) {
  const m = Math.max(1, Math.round(seconds / 60));
  return m === 60 ? defaultSince : m % 1440 === 0 ? `${m / 1440}d` : m % 60 === 0 ? `${m / 60}h` : `${m}m`;
}
