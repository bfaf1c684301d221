// Charts over time: the rate with what is normal and the alerts, how exchanges ended, how long responses took.
// They share one cursor, and dragging over one looks at that stretch.
import uPlot from 'uplot';
import { colour, el, id, keyed, say, set } from './dom.js';
import { clock, latency, number, rate, share, span, tick } from './format.js';
import { narrowed } from './state.js';
import { cells, drawCells } from './heat.js';

const sync = uPlot.sync('time');
const charts = {};
const font = () => `12px ${getComputedStyle(document.body).fontFamily}`;

/** What the charts are of: kept for the hooks that draw. */
let view = { begin: 0, end: 0, alerts: [], limits: null, now: 0 };
let onZoom = () => {};

const axis = (more = {}) => ({
  stroke: () => colour('--muted'), font: font(), grid: { stroke: () => colour('--grid'), width: 1 },
  ticks: { stroke: () => colour('--grid'), width: 1, size: 4 }, gap: 6, ...more,
});

const timeAxis = () => axis({
  space: 72, size: 30,
  values: (u, splits, _, __, step) => {
    const long = u.scales.x.max - u.scales.x.min > 36 * 3600;
    const options = step >= 86400 ? { day: 'numeric', month: 'short' } : long ? { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' }
      : step < 60 ? { hour: '2-digit', minute: '2-digit', second: '2-digit' } : { hour: '2-digit', minute: '2-digit' };
    const f = new Intl.DateTimeFormat('en-GB', options);
    return splits.map((t) => f.format(t * 1000));
  },
});

/** decades are the splits of an axis by tenfolds. */
function decades(u, _, low, high) {
  const out = [];
  for (let k = Math.ceil(Math.log10(low) - 1e-6); k <= Math.log10(high) + 1e-6; k++) out.push(10 ** k);
  return out;
}

/** line is a series of a chart. */
const line = (label, property, write, more = {}) => ({
  label, write, property, stroke: () => colour(property), width: 1.75, points: { show: false }, spanGaps: false, ...more,
});

/** The charts: what they show, and how their values are written. */
const kinds = {
  rate: {
    height: 240,
    series: [line('Requests', '--line', rate, { fill: () => colour('--line-fill') })],
    y: { range: (u, low, high) => [0, Math.max((view.limits?.threshold || 0) * 1.15, (high || 0) * 1.1) || 1] },
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
    y: { distr: 3, range: (u, low, high) => (low > 0 ? [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high * 1.01))] : [0.001, 1]) },
    values: (u, splits) => splits.map((v) => tick(v)),
    splits: decades,
    size: 60,
    hooks: { drawClear: [drawAlerts] },
  },
  heat: {
    height: 190,
    series: [line('Responses', '--line', number, { width: 0, stroke: null })],
    y: { distr: 3, range: () => heatRange() },
    values: (u, splits) => splits.map((v) => tick(v)),
    splits: decades,
    size: 60,
    hooks: { draw: [(u) => drawCells(u, heat)] },
  },
};

/** The cells of the heat map. */
let heat = { cells: [], low: 0.001, high: 1, most: 0 };
const heatRange = () => [heat.low, heat.high];

/** drawNormal shades what is normal: from the baseline to where alerts begin. */
function drawNormal(u) {
  if (!view.limits) return;
  const { ctx, bbox } = u;
  const y = (v) => Math.round(u.valToPos(v, 'y', true));
  const base = y(view.limits.baseline), limit = y(view.limits.threshold);
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.fillStyle = colour('--band');
  ctx.fillRect(bbox.left, limit, bbox.width, Math.max(1, base - limit));
  ctx.lineWidth = uPlot.pxRatio;
  for (const [at, stroke, dash] of [[base, '--baseline', [2, 3]], [limit, '--bad', [6, 4]]]) {
    ctx.strokeStyle = colour(stroke);
    ctx.setLineDash(dash.map((n) => n * uPlot.pxRatio));
    ctx.beginPath();
    ctx.moveTo(bbox.left, at + 0.5);
    ctx.lineTo(bbox.left + bbox.width, at + 0.5);
    ctx.stroke();
  }
  ctx.restore();
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
  const u = new uPlot({
    width: Math.max(200, box.clientWidth), height: k.height, padding: [8, 18, 0, 0],
    legend: { show: false },
    scales: { x: { time: true, range: () => [view.begin, view.end] }, y: { auto: true, ...k.y } },
    axes: [timeAxis(), axis({ values: k.values, size: k.size, space: 34, ...(k.splits ? { splits: k.splits } : {}) })],
    series: [{}, ...k.series],
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
  new ResizeObserver(() => {
    const width = box.clientWidth;
    if (width > 0 && width !== u.width) u.setSize({ width, height: k.height });
  }).observe(box);
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

/** build makes the charts. zoom(from, to) is called with a stretch, in seconds, that was dragged over. */
export function build(zoom) {
  onZoom = zoom;
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

const middle = (p) => (Date.parse(p.start) + Date.parse(p.end)) / 2000;

/** rates joins the points of a series with the newest intervals, which are finer and come with each dashboard. */
export function rates(series, d, state, live) {
  const xs = [], ys = [];
  const s = d?.status;
  let history = [];
  if (live && s && !narrowed(state) && s.interval_start && series?.step === 'minute') {
    const first = Date.parse(s.interval_start) / 1000 - (d.rate_history.length - 1) * s.interval_seconds;
    history = d.rate_history.map((n, i) => [first + (i + 0.5) * s.interval_seconds, n / s.interval_seconds]);
    // The interval under way has only begun: its rate is known from the status.
    if (history.length) history[history.length - 1][1] = s.rate_now;
  }
  const from = history.length ? history[0][0] - s.interval_seconds / 2 : Infinity;
  for (const p of series?.points || []) {
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
    limits: a?.baseline != null && per > 0 && state.path.length === 0 ? { baseline: a.baseline / per, threshold: a.threshold_requests / per } : null,
  };
  const points = series?.points || [];
  const xs = points.map(middle);
  const part = (name) => points.map((p) => (p.outcomes > 0 ? p[name] / p.outcomes : null));
  const time = (name) => points.map((p) => (p.ttfb_count > 0 ? p[name] || null : null));
  const none = (what) => fault || (series ? `No ${what} in this range` : 'Asking …');
  put('rate', rates(series, d, state, live), none('requests'));
  put('outcomes', [xs, part('errors_5xx'), part('errors_4xx'), part('no_answer')], none('ended exchanges'));
  put('times', [xs, time('ttfb_p99_seconds'), time('ttfb_p95_seconds'), time('ttfb_p50_seconds')], none('response times'));
  heat = cells(points);
  put('heat', [xs, points.map((p) => (p.ttfb_count > 0 ? heat.low : null))], none('response times'));
  say(id('chart-rate').parentElement.querySelector('.note'), view.limits ? 'shaded: from the baseline to where alerts begin' : state.path.length ? 'the baseline is that of the whole fleet' : '');
  const scale = id('chart-heat').parentElement.querySelector('.note');
  say(scale, heat.most > 0 ? `darkest: ${number(heat.most)} responses` : '');
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
