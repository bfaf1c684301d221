// Drives the page in Chromium: node page.mjs URL. It writes a line for each thing that is so, "ok WHAT", or is not, "not ok WHAT: WHY", and
// asks whoever started it for what only they can do, "please stop" or "please start", then waits for a line.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

const [base] = process.argv.slice(2);
const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const please = async (what) => {
  console.log(`please ${what}`);
  await lines.next();
};

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'], timeout: 180_000 });

/** Pages complain here; a test that expects complaints empties it. */
let complaints = [];
const elsewhere = new Set();

async function open(path = '/', options = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(180_000); // machines that do more than this are slow
  page.on('console', (m) => ['error', 'warning'].includes(m.type()) && complaints.push(m.text()));
  page.on('pageerror', (e) => complaints.push(e.stack));
  page.on('request', (r) => new URL(r.url()).origin !== new URL(base).origin && elsewhere.add(r.url()));
  await page.addInitScript(() => addEventListener('securitypolicyviolation', (e) => console.error(`CSP: ${e.violatedDirective} ${e.blockedURI} ${e.sourceFile}:${e.lineNumber}`)));
  await page.goto(new URL(path, base).href);
  await page.locator('#tiles .value').first().filter({ hasText: /\d/ }).waitFor();
  return page;
}

const want = (ok, why) => {
  if (!ok) throw new Error(why);
};

const only = process.env.ONLY;

async function test(what, f) {
  if (only && !what.includes(only)) return;
  try {
    await f();
    want(complaints.length === 0, `the browser complains: ${complaints.join(' | ')}`);
    console.log(`ok ${what}`);
  } catch (e) {
    console.log(`not ok ${what}: ${String(e.message).replaceAll('\n', ' ').slice(0, 2000)}`);
  }
  complaints = [];
  for (const c of browser.contexts()) await c.close();
}

const texts = (page, selector) => page.locator(selector).allTextContents();
const rowsOf = (list) => `section[aria-labelledby="list-${list}"] tbody`;

/** row waits for the link of a row of a list. */
async function row(page, list, text) {
  const a = page.locator(`${rowsOf(list)} a.row`).filter({ hasText: text });
  await a.waitFor();
  return a;
}

/** focusRow moves to a row by keys alone. */
async function focusRow(page, list, text) {
  await row(page, list, text);
  for (let i = 0; i < 80; i++) {
    await page.keyboard.press('Tab');
    if (await page.evaluate((s) => document.activeElement?.closest(s) != null, rowsOf(list))) break;
  }
  await page.keyboard.press('Home');
  for (let i = 0; i < 12; i++) {
    if ((await page.evaluate(() => document.activeElement.textContent)).includes(text)) return;
    await page.keyboard.press('ArrowDown');
  }
  throw new Error(`no way to ${text} in ${list} by keys; at ${await page.evaluate(() => document.activeElement.outerHTML)}`);
}

await test('a thousand hosts are there, and few of them are drawn', async () => {
  const page = await open();
  const cdp = await page.context().newCDPSession(page);
  await page.locator('#count-hosts').filter({ hasText: '1,00' }).waitFor();
  want((await page.locator('#hosts-panel tbody tr').count()) === 10, 'the panel has not ten rows');
  const nodes = async () => {
    await cdp.send('HeapProfiler.collectGarbage'); // what was drawn before
    return (await cdp.send('Memory.getDOMCounters')).nodes;
  };
  await page.keyboard.press('h');
  await page.waitForURL(/view=hosts/);
  await page.locator('#hosts-page .where').filter({ hasText: 'of 1,00' }).waitFor();
  want((await page.locator('#hosts-page tbody tr').count()) === 50, 'a page has not 50 rows');
  const first = await page.locator('#hosts-page tbody a.row').first().textContent();
  await page.locator('#hosts-page .next').click();
  await page.locator('#hosts-page .where').filter({ hasText: '51 to 100' }).waitFor();
  want((await page.locator('#hosts-page tbody a.row').first().textContent()) !== first, 'the next page begins as the first did');
  await page.locator('#hosts-page th[data-key="name"] button').click();
  await page.locator('#hosts-page .where').filter({ hasText: '1 to 50' }).waitFor();
  const names = await texts(page, '#hosts-page tbody a.row');
  want(names.join() === names.slice().sort((a, b) => a.localeCompare(b)).join(), `not sorted by name: ${names.slice(0, 5)}`);
  await page.locator('#filter').fill('web-0777');
  await page.locator('#hosts-page tbody a.row').filter({ hasText: 'web-0777' }).click();
  await page.waitForURL(/host=web-0777/);
  await page.locator('#path').getByText('web-0777').waitFor();
  await row(page, 'domain', 'shop.example.org');
  const n = await nodes();
  want(n < 12_000, `${n} nodes`);
});

await test('the first load transfers 300 KB at most', async () => {
  const page = await (await browser.newContext({ viewport: { width: 1440, height: 900 } })).newPage();
  const cdp = await page.context().newCDPSession(page);
  await cdp.send('Network.enable');
  let sum = 0;
  const of = {};
  cdp.on('Network.responseReceived', (e) => (of[e.requestId] = new URL(e.response.url).pathname));
  const sums = {};
  const add = (e) => {
    sum += e.encodedDataLength;
    sums[of[e.requestId]] = (sums[of[e.requestId]] || 0) + e.encodedDataLength;
  };
  cdp.on('Network.dataReceived', add);
  await page.goto(base);
  await page.locator('#count-hosts').filter({ hasText: '1,00' }).waitFor();
  await page.locator('#tops section').first().waitFor();
  await page.locator('#chart-rate [role=img]').first().waitFor();
  await page.waitForTimeout(300);
  console.log(`note transferred ${sum} bytes: ${JSON.stringify(sums)}`);
  want(sum > 20_000 && sum <= 300_000, `${sum} bytes`);
});

await test('rows lead from domain to section to status by keys, in the address, and back', async () => {
  const page = await open();
  await focusRow(page, 'domain', 'shop.example.org');
  await page.keyboard.press('Enter');
  await page.waitForURL(/[?&]domain=shop\.example\.org/);
  await focusRow(page, 'section', 'shop.example.org/cart');
  await page.keyboard.press('Enter');
  await page.waitForURL(/section=shop\.example\.org%2Fcart/);
  await focusRow(page, 'status', '503');
  await page.keyboard.press('Enter');
  await page.waitForURL(/status=503/);
  const path = async (p) => (await texts(p, '#path li')).join(' › ');
  want((await path(page)) === 'Fleet › domainshop.example.org › sectionshop.example.org/cart › status503', `the path is ${await path(page)}`);
  await row(page, 'section', 'shop.example.org/cart');
  want((await page.locator(`${rowsOf('section')} tr`).count()) === 1, 'other sections are shown too');
  const other = await open(page.url().replace(base, ''));
  want((await path(other)) === (await path(page)), `who is sent the address sees ${await path(other)}`);
  await page.goBack();
  await page.locator('#path li').nth(3).waitFor({ state: 'detached' });
  await page.keyboard.press('Escape');
  await page.waitForURL((u) => !u.search.includes('section'));
  await page.goBack();
  await page.goBack();
  await page.goForward();
  await row(page, 'domain', 'shop.example.org');
  await page.locator('#path a').first().click();
  await page.waitForURL((u) => !u.search.includes('domain'));
  await row(page, 'domain', 'api.example.org');
});

await test('hostile strings are text', async () => {
  const page = await open('/?since=6h');
  await row(page, 'user_agent', '"><img src=x onerror=alert(document.domain)>');
  await row(page, 'user_agent', 'curl/8\\x1b]0;owned\\x07');
  await row(page, 'section', 'shop.example.org/<script>alert(1)<');
  await row(page, 'domain', 'evil\\u202egro.elpmaxe');
  want((await page.locator('main img, main script, main iframe').count()) === 0, 'markup became elements');
  const agent = await row(page, 'user_agent', '"><img');
  await agent.click();
  await page.waitForURL(/filter=user_agent/);
  await page.locator('#path').getByText('"><img src=x onerror=alert(document.domain)>').waitFor();
  await page.goBack();
  await (await row(page, 'section', 'shop.example.org/a,"b"')).click();
  await page.waitForURL(/section=/);
  await page.locator(`${rowsOf('section')} tr:nth-child(2)`).waitFor({ state: 'detached' });
  await row(page, 'section', 'shop.example.org/a,"b"');
  const evil = await open('/?domain=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&find=%3Cscript%3E(&since=1h');
  await evil.locator('#path').getByText('<img src=x onerror=alert(1)>').waitFor();
  want((await evil.locator('main img, header img').count()) === 0, 'markup of the address became elements');
  const refused = await open('/').then(async (p) => {
    await p.goto(`${base}?host=%3Cb%3Enobody%3C%2Fb%3E`);
    await p.locator('#connection[data-tone=bad]').waitFor();
    return p.locator('#connection').textContent();
  });
  want(refused.includes('<b>nobody</b>'), `a question that is refused shows ${refused}`);
  complaints = complaints.filter((c) => !c.includes('400')); // the browser tells of a refused question
});

await test('where a number comes from, and what is different', async () => {
  const page = await open();
  const value = page.locator('#view-explain .value');
  await focusRow(page, 'domain', 'shop.example.org');
  await page.keyboard.press('e');
  await page.waitForURL(/view=explain&list=domain&key=shop\.example\.org/);
  await value.filter({ hasText: /^[\d,]+ hits$/ }).waitFor();
  want((await page.locator('#view-explain .notes').textContent()).includes('exact for what was seen'), 'it is not said how far the number can be believed');
  const of = await texts(page, '#view-explain tbody tr');
  want(of[0].startsWith('web-1') && of.length === 200 && (await page.locator('#view-explain .foot').textContent()) === '801 more hosts', `by host: ${of.length}, first ${of[0]}`);
  await page.keyboard.press('Escape');
  await (await row(page, 'section', '<script>alert(1)<')).locator('xpath=ancestor::tr').locator('a.why').click();
  await page.locator('#view-explain .of').filter({ hasText: 'shop.example.org/<script>alert(1)<' }).waitFor();
  await value.filter({ hasText: 'hits' }).waitFor();
  await page.locator('#view-explain .on a').first().click();
  await page.waitForURL(/section=shop\.example\.org%2F%3Cscript/);
  const failed = await open('/?status=503');
  await (await row(failed, 'section', 'shop.example.org/cart')).locator('xpath=ancestor::tr').locator('a.why').click();
  await failed.waitForURL(/status=503&section=shop\.example\.org%2Fcart&view=explain&list=routes/); // which has all of these
  await failed.locator('#view-explain .value').filter({ hasText: 'hits' }).waitFor();

  const compared = await open('/?since=15m');
  await compared.keyboard.press('c');
  await compared.waitForURL(/view=compare/);
  await compared.locator('#view-compare .range').filter({ hasText: /, against \d/ }).waitFor();
  const section = compared.locator('section[aria-labelledby="compare-section"]');
  want((await section.locator('tbody tr').first().textContent()).endsWith('new'), 'what there was not yesterday is not new');
  await compared.waitForFunction(() => document.querySelector('#chart-compare [role=img]')?.getAttribute('aria-label')?.includes('Now:'));
  await section.locator('a.row').filter({ hasText: '/cart' }).click();
  await compared.waitForURL(/section=shop\.example\.org%2Fcart/);
  const peers = await open('/?host=web-1&view=compare&since=1h');
  await peers.locator('.choices a').filter({ hasText: 'its peers' }).click();
  await peers.waitForURL(/against=peers/);
  await peers.locator('#view-compare .range').filter({ hasText: 'web-1 against one of 64 peers on average' }).waitFor();
  await peers.locator('#view-compare .notes').filter({ hasText: 'the first 64 by name of 1,000' }).or(peers.locator('#view-compare .notes').filter({ hasText: 'of 1000' })).waitFor();
  await peers.locator('section[aria-labelledby="compare-section"] thead').filter({ hasText: 'NowPeers' }).waitFor();

  const before = await open('/?since=2020-01-01T00:00:00Z&until=2020-01-01T01:00:00Z');
  await before.locator('#tiles [data-key="unseen"] .detail').filter({ hasText: 'no data for this time, it begins at ' }).waitFor();
  await before.locator('#alerts-line .to').filter({ hasText: /01:00$/ }).waitFor();
  await before.locator('#alerts-line .sum').filter({ hasText: 'No alert in this time' }).waitFor();
});

await test('pictures stream, and charts have what was sent', async () => {
  const page = await open();
  const label = () => page.locator('#chart-rate [role=img]').getAttribute('aria-label');
  await page.waitForFunction(() => document.querySelector('#chart-rate [role=img]')?.getAttribute('aria-label')?.includes('between'));
  want((await label()).includes('/s'), `the rate's chart says ${await label()}`);
  await page.waitForFunction(() => ['outcomes', 'times', 'heat'].every((k) => !document.querySelector(`#chart-${k}`).dataset.empty));
  await page.locator('button.as-table').nth(1).click();
  await page.locator('.points:not([hidden]) tbody tr').first().waitFor();
  const before = await page.locator('#time').textContent();
  const requests = () => page.evaluate(() => document.querySelector('section[aria-labelledby="list-method"] tbody td.number').textContent);
  const was = await requests();
  await page.waitForFunction((was) => document.querySelector('section[aria-labelledby="list-method"] tbody td.number').textContent !== was, was);
  await page.waitForFunction((before) => document.querySelector('#time').textContent !== before, before);
  await page.locator('#main').focus();
  await page.keyboard.press(' ');
  await page.locator('#connection').filter({ hasText: 'Paused' }).waitFor();
  await page.keyboard.press(' ');
  await page.locator('#connection').filter({ hasText: 'Live' }).waitFor();
});

await test('filter, time, theme and keys', async () => {
  const page = await open();
  await row(page, 'domain', 'api.example.org');
  await page.keyboard.press('/');
  await page.keyboard.type('!shop');
  await page.waitForURL(/find=%21shop/);
  await page.locator(`${rowsOf('domain')} a.row`).filter({ hasText: 'shop' }).waitFor({ state: 'detached' });
  await page.keyboard.press('Escape');
  await row(page, 'domain', 'shop.example.org');
  await page.keyboard.press('t');
  await page.locator('#times[open]').waitFor();
  await page.keyboard.press('Enter');
  await page.waitForURL(/since=15m/);
  await page.locator('#when-text').filter({ hasText: 'Last 15 minutes' }).waitFor();
  await page.keyboard.press('[');
  await page.waitForURL(/until=/);
  await page.locator('#connection').filter({ hasText: 'History' }).waitFor();
  await page.locator('#pause').click();
  await page.waitForURL((u) => !u.search.includes('until'));
  await page.keyboard.press('?');
  await page.locator('#keys[open]').waitFor();
  await page.keyboard.press('Escape');
  await page.locator('#keys[open]').waitFor({ state: 'detached' });
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  await page.keyboard.press('d');
  want((await ground()) !== light, 'd does not make it dark');
  await page.reload();
  await page.locator('#theme[data-now=dark]').waitFor();
  await page.keyboard.press('Tab');
  want((await page.evaluate(() => document.activeElement.textContent)) === 'Skip to the content', 'Tab does not lead to the link over the navigation');
  await page.keyboard.press('a');
  await page.waitForURL(/view=alerts/);
  await page.keyboard.press('Escape');
  await page.waitForURL((u) => !u.search.includes('view'));
});

/** Where axe looks, and in which sizes and colours: the overview in all. */
const looks = {
  '/': ['phone light', 'phone dark', 'desktop dark', 'desktop light', 'wall light'],
  '/?domain=shop.example.org': ['phone dark'],
  '/?view=hosts': ['phone light', 'desktop dark'],
  '/?view=alerts': ['phone dark', 'desktop light'],
  '/?view=list&list=routes': ['desktop light', 'phone dark'],
  '/?view=explain&list=section&key=shop.example.org%2Fcart': ['phone light', 'desktop dark'],
  '/?view=compare&since=5m': ['desktop light', 'phone dark'],
  '/?view=compare&host=web-1&against=peers&since=1h': ['phone light'],
  keys: ['phone light'],
  times: ['desktop dark'],
};
const sizes = { phone: { width: 360, height: 740 }, desktop: { width: 1440, height: 900 }, wall: { width: 2560, height: 1440 } };

await test('no faults by axe, light and dark, phone to wall, and nothing is wider than the page', async () => {
  const faults = [];
  for (const [where, kinds] of Object.entries(looks)) {
    const dialog = !where.startsWith('/');
    const page = await open(dialog ? '/' : where, { reducedMotion: 'reduce' });
    await page.locator('body:not(.stale)').waitFor();
    if (/hosts|list=|compare/.test(where)) await page.locator('main tbody a.row:visible').first().waitFor().catch((e) => Promise.reject(new Error(`${where}: ${e.message}`)));
    if (dialog) {
      await page.locator(where === 'keys' ? '#help' : '#when').click();
      await page.locator(`#${where}[open]`).waitFor();
    }
    await page.evaluate(axe);
    for (const kind of kinds) {
      const what = `${kind} ${where}`, [size, colorScheme] = kind.split(' ');
      await page.setViewportSize(sizes[size]);
      await page.emulateMedia({ colorScheme });
      await page.locator(`#theme[data-now=${colorScheme}]`).waitFor({ state: 'attached' });
      const wide = await page.waitForFunction(() => document.documentElement.scrollWidth <= innerWidth, null, { timeout: 30_000 }).then(() => 0, () => page.evaluate(() => document.documentElement.scrollWidth - innerWidth));
      if (wide > 0) faults.push(`${what} is ${wide} pixels too wide`);
      const found = await page.evaluate(() => window.axe.run(document, { runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'], resultTypes: ['violations'] }));
      for (const v of found.violations) faults.push(`${what} ${v.id}: ${v.nodes.slice(0, 2).map((n) => n.html.slice(0, 200) + ' ' + n.failureSummary).join(' / ')}`);
    }
    const moving = await page.evaluate(() => [...document.querySelectorAll('*')].filter((e) => parseFloat(getComputedStyle(e).transitionDuration) > 0).length);
    if (moving) faults.push(`${where}: ${moving} elements move where motion is to be reduced`);
    await page.context().close();
  }
  want(faults.length === 0, faults.join('; '));
});

await test('the aggregator goes away and comes back', async () => {
  const page = await open('/?domain=shop.example.org');
  await row(page, 'section', 'shop.example.org/cart');
  await please('stop');
  await page.locator('#connection[data-tone=warn]').filter({ hasText: /Not connected since \d/ }).waitFor();
  want(await page.evaluate(() => document.body.classList.contains('stale')), 'the last picture is not dimmed');
  await row(page, 'section', 'shop.example.org/cart');
  await please('start');
  await page.locator('#connection').filter({ hasText: 'Live' }).waitFor();
  want(!(await page.evaluate(() => document.body.classList.contains('stale'))), 'the picture stays dimmed');
  await row(page, 'section', 'shop.example.org/cart');
  complaints = complaints.filter((c) => !/net::ERR|Failed to load resource/.test(c)); // the browser tells of what was out of reach
});

if (elsewhere.size) console.log(`not ok nothing is asked elsewhere: ${[...elsewhere].join(' ')}`);
else console.log('ok nothing is asked elsewhere');
await browser.close();
process.exit(0);
