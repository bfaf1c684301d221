// Opens the page with what certificate the browser has: node certificate.mjs URL. It writes one line of JSON: the status, what is to be read, and of what
// the browser complains.
import { chromium } from 'playwright-core';

const [url] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'], timeout: 180_000 });
const page = await browser.newPage();
const complaints = [];
page.on('console', (m) => ['error', 'warning'].includes(m.type()) && complaints.push(m.text()));
page.on('pageerror', (e) => complaints.push(e.stack));
const answer = { status: 0, text: '', complaints };
try {
  const r = await page.goto(url, { timeout: 180_000 });
  answer.status = r.status();
  if (r.ok()) await page.locator('#connection').filter({ hasText: 'Live' }).waitFor({ timeout: 180_000 });
  answer.text = await page.locator('main').innerText();
  answer.ground = await page.evaluate(() => getComputedStyle(document.querySelector('main')).borderLeftWidth);
} catch (e) {
  answer.text = e.message;
}
console.log(JSON.stringify(answer));
await browser.close();
process.exit(0);
