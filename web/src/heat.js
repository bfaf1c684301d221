// The heat map of response times: how many responses took how long, over time.
import { colour } from './dom.js';

/**
 * cells reads the histograms of points: upper bound in seconds -> count. A bound's lower end is the next smaller bound that
 * the aggregator knows, a fixed factor below.
 */
export function cells(points) {
  const out = [];
  let low = Infinity, high = 0, most = 0;
  for (const p of points) {
    for (const [bound, count] of Object.entries(p.ttfb_histogram_seconds || {})) {
      const top = Number(bound), bottom = top / factor;
      out.push({ start: Date.parse(p.start) / 1000, end: Date.parse(p.end) / 1000, low: bottom, high: top, count });
      low = Math.min(low, bottom);
      high = Math.max(high, top);
      most = Math.max(most, count);
    }
  }
  return most ? { cells: out, low, high, most } : { cells: [], low: 0.001, high: 1, most: 0 };
}

/** Bounds of the histograms: five to a decade. */
const factor = 10 ** 0.2;

/** drawCells draws them into a chart. What is rare must be seen, so colour follows the root of the count. */
export function drawCells(u, heat) {
  const { ctx, bbox } = u;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.fillStyle = colour('--heat');
  for (const c of heat.cells) {
    const x = Math.round(u.valToPos(c.start, 'x', true)), right = Math.round(u.valToPos(c.end, 'x', true));
    const y = Math.round(u.valToPos(c.high, 'y', true)), bottom = Math.round(u.valToPos(c.low, 'y', true));
    ctx.globalAlpha = 0.12 + 0.88 * Math.sqrt(c.count / heat.most);
    const gap = right - x > 4 ? 1 : 0;
    ctx.fillRect(x, y, Math.max(1, right - x - gap), Math.max(1, bottom - y - gap));
  }
  ctx.restore();
}
