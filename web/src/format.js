// Numbers as the commands write them: three digits, and always a unit.

const thousands = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

export const number = (n) => (n == null ? '–' : thousands.format(n));

function significant(f) {
  if (f < 9.995) return f.toFixed(2);
  return f.toFixed(f < 99.95 ? 1 : 0);
}

/** rate writes requests per second. */
export function rate(f) {
  if (f == null) return '–';
  return (f >= 99.95 || f === 0 ? number(Math.round(f)) : significant(f)) + '/s';
}

/** share writes a part, 1 being all. */
export function share(f) {
  if (f == null || !Number.isFinite(f)) return '–';
  if (f > 0 && f < 0.0005) return '<0.1%';
  return (f * 100).toFixed(1) + '%';
}

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'];

export function bytes(n) {
  if (n == null) return '–';
  let u = 0;
  for (; Math.abs(n) >= 1023.5 && u < units.length - 1; u++) n /= 1024;
  return (u === 0 ? String(n) : significant(n)) + ' ' + units[u];
}

/** latency writes a short time, given in seconds. */
export function latency(s) {
  if (s == null) return '–';
  if (s < 1e-6) return Math.round(s * 1e9) + ' ns';
  if (s < 1e-3) return significant(s * 1e6) + ' µs';
  if (s < 1) return significant(s * 1e3) + ' ms';
  return s < 60 ? significant(s) + ' s' : span(s);
}

/** tick writes a short time without digits that say nothing, for axes. */
export function tick(s) {
  const whole = (f) => String(Number(f.toPrecision(3)));
  if (s < 1e-3) return whole(s * 1e6) + ' µs';
  return s < 1 ? whole(s * 1e3) + ' ms' : whole(s) + ' s';
}

/** span writes a long time, given in seconds, in its two largest units. */
export function span(s) {
  if (s == null) return '–';
  s = Math.max(0, Math.round(s));
  const two = (n) => String(n).padStart(2, '0');
  if (s < 60) return `${s}s`;
  if (s < 3600) return s % 60 ? `${Math.floor(s / 60)}m${two(s % 60)}s` : `${s / 60}m`;
  if (s < 86400) return s % 3600 < 60 ? `${Math.floor(s / 3600)}h` : `${Math.floor(s / 3600)}h${two(Math.floor((s % 3600) / 60))}m`;
  const hours = Math.floor((s % 86400) / 3600);
  return `${Math.floor(s / 86400)}d` + (hours ? `${hours}h` : '');
}

const time = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const dated = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit', second: '2-digit' });
const yearly = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', year: 'numeric', hour: '2-digit', minute: '2-digit' });

/** clock writes a time in the browser's zone, without the date where it is that of now. */
export function clock(t, now = new Date()) {
  if (!t) return '–';
  const d = new Date(t);
  if (d.toDateString() === now.toDateString()) return time.format(d);
  return (d.getFullYear() === now.getFullYear() ? dated : yearly).format(d);
}

/** zone names the browser's time zone. */
export function zone(now = new Date()) {
  const part = new Intl.DateTimeFormat('en-GB', { timeZoneName: 'short' }).formatToParts(now).find((p) => p.type === 'timeZoneName');
  return part ? part.value : '';
}

/** counters writes what was not seen: 12 kernel drops, 1.43 KiB gap bytes. */
export function counters(loss) {
  const parts = Object.entries(loss || {}).filter(([, n]) => n > 0);
  return parts.map(([name, n]) => `${number(n)} ${name.replaceAll('_', ' ')}`);
}

export const plural = (n, one, many = one + 's') => `${number(n)} ${n === 1 ? one : many}`;
