// Charts over time: the rate with what is normal and the alerts, how exchanges ended, how long responses took.
// They share one cursor, and dragging over one looks at that stretch.
import uPlot from 'uplot';
import { colour, el, id, keyed, say, set } from './dom.js';
import { clock, latency, number, rate, share, span, tick } from './format.js';
import { narrowed } from './state.js';
import { cells, drawCells } from './heat.js';

const sync = uPlot.sync('time');
const charts = {};

/** scale is by how much larger than on a desk everything is drawn: walls are read from afar. */
const scale = () => parseFloat(getComputedStyle(document.documentElement).fontSize) / 14;

/** What the charts are of: kept for the hooks that draw. */
let view = { begin: 0, end: 0, alerts: [], normal: [], now: 0 };
let onZoom = () => {}, onScale = () => {};

/** Begin and end of what is compared. */
let compared = [0, 1];

const axis = (more = {}) => ({
  stroke: () => colour('--muted'), font: `${Math.round(12 * scale())}px ${getComputedStyle(document.body).fontFamily}`, grid: { stroke: () => colour('--grid'), width: 1 },
  ticks: { stroke: () => colour('--grid'), width: 1, size: 4 }, gap: 6, ...more,
});

const timeAxis = () => axis({
  space: 72 * scale(), size: 30 * scale(),
  values: (u, splits, _, __, step) => {
    const long = u.scales.x.max - u.scales.x.min > 36 * 3600;
    const options = step >= 86400 ? { day: 'numeric', month: 'short' } : long ? { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' }
      : step < 60 ? { hour: '2-digit', minute: '2-digit', second: '2-digit' } : { hour: '2-digit', minute: '2-digit' };
    const f = new Intl.DateTimeFormat('en-GB', options);
    return splits.map((t) => f.format(t * 1000));
  },
});

/** ticks are the splits of a logarithmic axis: tenfolds, and where there are few of them also what is between. */
function ticks(u, _, low, high) {
  const out = [], parts = high / low < 101 ? [1, 2, 5] : [1];
  for (let k = Math.floor(Math.log10(low)); k <= Math.ceil(Math.log10(high)); k++) {
    for (const n of parts) {
      const at = n * 10 ** k;
      if (at >= low * 0.999 && at <= high * 1.001) out.push(at);
    }
  }
  return out;
}

/** round is the nearest of 1, 2 and 5 of a tenfold that is not above, or with up not below. */
function round(v, up) {
  const ten = 10 ** Math.floor(Math.log10(v) + 1e-9), n = v / ten;
  return ten * (up ? [1, 2, 5, 10].find((x) => x >= n * 0.999) : [5, 2, 1].find((x) => x <= n * 1.001) || 1);
}

/** line is a series of a chart. */
const line = (label, property, write, more = {}) => ({
  label, write, property, stroke: () => colour(property), width: 1.5, points: { show: false }, spanGaps: false, ...more,
});

/** The charts: what they show, and how their values are written. */
const kinds = {
  rate: {
    height: 240,
    series: [line('Requests', '--line', rate, { fill: () => colour('--line-fill') })],
    y: { range: (u, low, high) => [0, Math.max(...view.normal.map((n) => n.threshold * 1.15), (high || 0) * 1.1) || 1] },
    values: (u, splits) => splits.map((v) => (v === 0 ? '0' : rate(v))),
    size: 64,
    hooks: { drawClear: [drawNormal, drawAlerts] },
  },
  outcomes: {
    height: 190,
    series: [line('5xx', '--bad', share), line('4xx', '--warn', share, { dash: [6, 3] }), line('No answer', '--muted', share, { dash: [2, 3] })],
    y: { range: (u, low, high) => [0, Math.min(1, Math.max(0.01, (high || 0) * 1.15))] },
    values: (u, splits) => splits.map((v) => (v === 0 ? '0' : String(Number((v * 100).toPrecision(3))) + '%')),
    size: 52,
    hooks: { drawClear: [drawAlerts] },
  },
  times: {
    height: 190,
    series: [line('p99', '--p99', latency, { dash: [2, 3] }), line('p95', '--p95', latency, { dash: [6, 3] }), line('p50', '--p50', latency)],
    y: { distr: 3, range: (u, low, high) => (low > 0 ? [round(low), Math.max(round(high * 1.05, true), round(low) * 2)] : [0.001, 1]) },
    values: (u, splits) => splits.map((v) => tick(v)),
    splits: ticks,
    size: 60,
    hooks: { drawClear: [drawAlerts] },
  },
  compare: {
    height: 240,
    series: [line('Now', '--line', rate, { fill: () => colour('--line-fill') }), line('Then', '--p95', rate, { dash: [6, 3] })],
    y: { range: (u, low, high) => [0, (high || 0) * 1.1 || 1] },
    values: (u, splits) => splits.map((v) => (v === 0 ? '0' : rate(v))),
    size: 64,
    hooks: {},
  },
  heat: {
    height: 190,
    series: [line('Responses', '--line', number, { width: 0, stroke: null })],
    y: { distr: 3, range: () => heatRange() },
    values: (u, splits) => splits.map((v) => tick(v)),
    splits: ticks,
    size: 60,
    hooks: { draw: [(u) => drawCells(u, heat)] },
  },
};

/** The cells of the heat map. */
let heat = { cells: [], low: 0.001, high: 1, most: 0 };
const heatRange = () => [heat.low, heat.high];

/** drawNormal shades what is normal, or was: from the baseline to where alerts begin. */
function drawNormal(u) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  for (const n of view.normal) {
    const x = (t) => Math.min(bbox.left + bbox.width, Math.max(bbox.left, u.valToPos(t, 'x', true)));
    const y = (v) => Math.round(u.valToPos(v, 'y', true));
    const from = x(n.from), to = x(n.to), base = y(n.baseline), limit = y(n.threshold);
    if (from >= to) continue;
    ctx.fillStyle = colour('--band');
    ctx.fillRect(from, limit, to - from, Math.max(1, base - limit));
    ctx.lineWidth = uPlot.pxRatio;
    for (const [at, stroke, dash] of [[base, '--baseline', [2, 3]], [limit, '--bad', [6, 4]]]) {
      ctx.strokeStyle = colour(stroke);
      ctx.setLineDash(dash.map((n) => n * uPlot.pxRatio));
      ctx.beginPath();
      ctx.moveTo(from, at + 0.5);
      ctx.lineTo(to, at + 0.5);
      ctx.stroke();
    }
  }
  ctx.restore();
}

/** normals are the baselines, as rates, and the stretches in which they held: the one of now since it was learned, and those by which alerts before it were judged. */
function normals(a, alerts, per, end) {
  if (!(per > 0)) return [];
  const out = [];
  const since = a.learning_end ? Date.parse(a.learning_end) / 1000 : 0;
  for (const x of alerts) {
    const from = Date.parse(x.start) / 1000 - per; // which is the end of its first window
    if (from < since || a.baseline == null) out.push({ from, to: x.end ? Date.parse(x.end) / 1000 : end, baseline: x.baseline / per, threshold: (x.baseline * (1 + x.threshold_percent / 100)) / per });
  }
  if (a.baseline != null) out.push({ from: since, to: end, baseline: a.baseline / per, threshold: a.threshold_requests / per });
  return out;
}

/** drawAlerts marks alerts as regions, with a line above them. */
function drawAlerts(u) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  for (const a of view.alerts) {
    const from = u.valToPos(a.start, 'x', true), to = u.valToPos(a.end, 'x', true);
    if (to < bbox.left || from > bbox.left + bbox.width) continue;
    ctx.fillStyle = colour('--alert-fill');
    ctx.fillRect(from, bbox.top, Math.max(1, to - from), bbox.height);
    ctx.fillStyle = colour('--bad');
    ctx.fillRect(from, bbox.top, Math.max(2, to - from), 3 * uPlot.pxRatio);
  }
  ctx.restore();
}

function make(key) {
  const k = kinds[key];
  const box = id(`chart-${key}`);
  const tip = el('div', { class: 'tip', hidden: true });
  const legend = box.parentElement.querySelector('.legend');
  const height = k.height * scale();
  const u = new uPlot({
    width: Math.max(200, box.clientWidth), height, padding: [8 * scale(), 18 * scale(), 0, 0],
    legend: { show: false },
    scales: { x: { time: true, range: () => (key === 'compare' ? compared : [view.begin, view.end]) }, y: { auto: true, ...k.y } },
    axes: [timeAxis(), axis({ values: k.values, size: k.size * scale(), space: 34 * scale(), ...(k.splits ? { splits: k.splits, filter: (u, splits) => splits } : {}) })],
    series: [{}, ...k.series.map((s) => ({ ...s, width: s.width * Math.max(1, scale() * 0.8) }))],
    cursor: { sync: { key: sync.key }, drag: { x: true, y: false, setScale: false }, y: false, points: { size: 6 } },
    hooks: {
      ...k.hooks,
      setSelect: [(u) => {
        if (u.select.width < 8) return;
        const [from, to] = [u.select.left, u.select.left + u.select.width].map((x) => u.posToVal(x, 'x'));
        u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
        onZoom(from, to);
      }],
      setCursor: [(u) => point(u, key, tip)],
    },
  }, [[], ...k.series.map(() => [])], box);
  u.over.append(tip);
  if (key !== 'heat') {
    keyed(legend, k.series, (s) => s.label, (s) => {
      const mark = el('span', { class: 'swatch', 'aria-hidden': 'true' });
      mark.style.setProperty('border-top', `2px ${s.dash ? (s.dash[0] > 3 ? 'dashed' : 'dotted') : 'solid'} var(${s.property})`);
      return el('li', {}, mark, s.label, el('b', {}));
    }, () => {});
  }
  const observer = new ResizeObserver(() => {
    const width = box.clientWidth;
    if (height !== k.height * scale()) { // another screen
      observer.disconnect();
      u.destroy();
      charts[key] = make(key);
      onScale();
    } else if (width > 0 && width !== u.width) u.setSize({ width, height });
  });
  observer.observe(box);
  return { u, tip, box, legend };
}

/** point writes what is under the cursor. */
function point(u, key, tip) {
  const { idx, left, top } = u.cursor;
  tip.hidden = idx == null || left < 0 || u.data[0].length === 0;
  if (tip.hidden) return;
  const t = u.data[0][idx];
  const rows = [el('b', {}, clock(t * 1000))];
  if (key === 'heat') {
    const v = top >= 0 ? u.posToVal(top, 'y') : null;
    const cell = heat.cells.find((c) => c.start <= t && t < c.end && v != null && c.low <= v && v < c.high);
    if (!cell) {
      tip.hidden = true;
      return;
    }
    rows.push(`${tick(cell.low)} to ${tick(cell.high)}: ${number(cell.count)}`);
  } else {
    kinds[key].series.forEach((s, i) => {
      const v = u.data[i + 1][idx];
      rows.push(v == null ? `${s.label} –` : `${s.label} ${s.write(v)}`);
    });
    const a = view.alerts.find((a) => a.start <= t && t <= a.end);
    if (a) rows.push(`▲ alert for ${span(a.end - a.start)}`);
  }
  tip.replaceChildren(...rows.map((r) => el('span', {}, r)));
  const right = left > u.over.clientWidth / 2;
  tip.style.setProperty('transform', `translate(${Math.round(left + (right ? -12 : 12))}px, 8px)${right ? ' translateX(-100%)' : ''}`);
}

/** build makes the charts. zoom(from, to) is called with a stretch, in seconds, that was dragged over, again() when they have to be drawn anew. */
export function build(zoom, again) {
  onZoom = zoom;
  onScale = again;
  for (const key of Object.keys(kinds)) charts[key] = make(key);
  for (const b of document.querySelectorAll('button.as-table')) {
    b.addEventListener('click', () => {
      const box = b.closest('.card').querySelector('.points');
      box.hidden = !box.hidden;
      b.setAttribute('aria-expanded', String(!box.hidden));
    });
  }
}

/** repaint draws everything again, in the colours of now. */
export function repaint() {
  for (const { u } of Object.values(charts)) u.redraw(false, true);
}

const seconds = (t) => Date.parse(t) / 1000;

/** newest is when the last point of a series begins of which there is something; null if there is none. */
export function newest(series) {
  const p = series.points.findLast((p) => p.rate != null);
  return p ? seconds(p.start) : null;
}

/** extend puts the points of before, from begin on, in front of those of a series that begins later. */
export function extend(series, before, begin) {
  const from = series.points.length ? seconds(series.points[0].start) : Infinity;
  series.points = [...before.points.filter((p) => seconds(p.end) > begin && seconds(p.start) < from), ...series.points];
}

/** whole leaves out the last points as long as they lack hosts that those before have: these are still to come. */
function whole(points) {
  let n = points.length;
  while (n > 1 && points.length - n < 3 && (points[n - 1].rate == null || points[n - 1].hosts < points[n - 2].hosts)) n--;
  return points.slice(0, n);
}

/**
 * joined adds up neighbours, where points stand closer than three pixels, so that shares of few exchanges are no noise. Groups begin at fixed times,
 * so that only the last one changes.
 */
function joined(points, pixels) {
  const first = points[0], width = first ? seconds(first.end) - seconds(first.start) : 0;
  const each = Math.ceil((3 * points.length) / Math.max(1, pixels)) * width;
  if (!(width > 0) || each <= width) return points;
  const out = [];
  for (const p of points) {
    const at = Math.floor(seconds(p.start) / each), last = out.at(-1);
    if (last?.at !== at) out.push({ ...p, at, ttfb_histogram_seconds: { ...p.ttfb_histogram_seconds } });
    else {
      last.end = p.end;
      for (const name of ['outcomes', 'errors_5xx', 'errors_4xx', 'no_answer', 'ttfb_count']) last[name] += p[name] || 0;
      for (const [bound, n] of Object.entries(p.ttfb_histogram_seconds || {})) last.ttfb_histogram_seconds[bound] = (last.ttfb_histogram_seconds[bound] || 0) + n;
    }
  }
  return out;
}

const middle = (p) => (Date.parse(p.start) + Date.parse(p.end)) / 2000;

/** rates joins the points of a series, of a step, with the newest intervals, which are finer and come with each dashboard. */
export function rates(points, step, d, state, live) {
  const xs = [], ys = [];
  const s = d?.status;
  let history = [];
  if (live && s && !narrowed(state) && s.interval_start && ['interval', 'minute'].includes(step)) {
    const first = Date.parse(s.interval_start) / 1000 - (d.rate_history.length - 1) * s.interval_seconds;
    history = d.rate_history.map((n, i) => [first + (i + 0.5) * s.interval_seconds, n / s.interval_seconds]);
    // The interval under way has only begun: its rate is known from the status.
    if (history.length) history[history.length - 1][1] = s.rate_now;
  }
  const from = history.length ? history[0][0] - s.interval_seconds / 2 : Infinity;
  for (const p of points) {
    if (Date.parse(p.end) / 1000 > from) break;
    xs.push(middle(p));
    ys.push(p.rate);
  }
  for (const [x, y] of history) {
    xs.push(x);
    ys.push(y);
  }
  return [xs, ys];
}

/** draw fills the charts. */
export function draw({ series, fault, dashboard: d, state, live, begin, end, now }) {
  const a = d?.status.alert, per = d?.status.window_seconds;
  view = {
    begin, end, now,
    alerts: (d?.alerts.alerts || []).map((x) => ({ start: Date.parse(x.start) / 1000, end: x.end ? Date.parse(x.end) / 1000 : now })),
    normal: a && state.path.length === 0 ? normals(a, d.alerts.alerts, per, end).filter((n) => n.from < end && n.to > begin) : [],
  };
  const points = live ? whole(series?.points || []) : series?.points || [];
  const few = joined(points, charts.outcomes.box.clientWidth), xs = few.map(middle);
  const part = (name) => few.map((p) => (p.outcomes > 0 ? p[name] / p.outcomes : null));
  const time = (name) => points.map((p) => (p.ttfb_count > 0 ? p[name] || null : null));
  const none = (what) => fault || (series ? `No ${what} in this range` : 'Asking …');
  put('rate', rates(points, series?.step, d, state, live), none('requests'));
  put('outcomes', [xs, part('errors_5xx'), part('errors_4xx'), part('no_answer')], none('ended exchanges'));
  put('times', [points.map(middle), time('ttfb_p99_seconds'), time('ttfb_p95_seconds'), time('ttfb_p50_seconds')], none('response times'));
  heat = cells(few);
  put('heat', [xs, few.map((p) => (p.ttfb_count > 0 ? heat.low : null))], none('response times'));
  say(id('chart-rate').parentElement.querySelector('.note'), view.normal.length ? 'shaded: from the baseline to where alerts begin' : state.path.length ? 'the baseline is that of the whole fleet' : '');
  const scale = id('chart-heat').parentElement.querySelector('.note');
  say(scale, heat.most > 0 ? `darkest: ${number(heat.most)} responses` : '');
}

/** drawCompared fills the chart of a comparison: rates at a time, and of as long before. x is null until they are known. */
export function drawCompared(x, fault, against) {
  id('chart-compare').parentElement.hidden = against === 'peers';
  const points = x?.at.points || [];
  if (x) compared = [Date.parse(x.at.since) / 1000, Date.parse(x.at.until) / 1000];
  put('compare', [points.map(middle), points.map((p) => p.rate), points.map((p, i) => x.then.points[i]?.rate)], fault || (x ? 'No requests in either' : 'Asking …'));
}

function put(key, data, empty) {
  const { u, box, legend } = charts[key];
  u.setData(data, true);
  const some = data.slice(1).some((ys) => ys.some((y) => y != null));
  set(box, 'data-empty', some ? null : empty);
  const k = kinds[key];
  const texts = [];
  k.series.forEach((s, i) => {
    const ys = data[i + 1].filter((y) => y != null);
    if (key === 'heat' || !ys.length) {
      if (key !== 'heat') say(legend.children[i].querySelector('b'), '');
      return;
    }
    say(legend.children[i].querySelector('b'), s.write(ys.at(-1)));
    texts.push(`${s.label}: ${s.write(ys.at(-1))} at the end, between ${s.write(Math.min(...ys))} and ${s.write(Math.max(...ys))}`);
  });
  if (key === 'heat') texts.push(some ? `${plotted()} response times between ${tick(heat.low)} and ${tick(heat.high)}` : '');
  set(box.firstElementChild, 'role', 'img');
  set(box.firstElementChild, 'aria-label', some ? texts.join('; ') : empty);
  if (key !== 'heat') points(box.parentElement, k, data);
}

const plotted = () => number(heat.cells.reduce((n, c) => n + c.count, 0));

/** points writes a chart as a table, for who does not see it, newest first. */
function points(card, k, data) {
  const box = card.querySelector('.points');
  if (box.hidden) return;
  const rows = data[0].map((t, i) => [t, ...data.slice(1).map((ys) => ys[i])]).reverse().slice(0, 200);
  box.replaceChildren(el('table', {},
    el('thead', {}, el('tr', {}, el('th', { scope: 'col' }, 'Time'), ...k.series.map((s) => el('th', { scope: 'col', class: 'number' }, s.label)))),
    el('tbody', {}, ...rows.map(([t, ...ys]) => el('tr', {}, el('th', { scope: 'row' }, clock(t * 1000)),
      ...ys.map((y, i) => el('td', { class: 'number' }, y == null ? '–' : k.series[i].write(y))))))));
}
