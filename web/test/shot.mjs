// Takes a picture of the page: node shot.mjs URL FILE.png [LIGHT-OR-DARK [SELECTOR]], with a selector some seconds after it matches.
import { chromium } from 'playwright-core';

const [url, file, colorScheme = 'light', until] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'], timeout: 120_000 });
const page = await browser.newPage({ viewport: { width: 1280, height: 960 }, colorScheme, reducedMotion: 'reduce' });
await page.goto(url);
await page.locator('body:not(.stale) #tops tbody a.row').first().waitFor();
await page.waitForFunction(() => document.querySelector('#chart-heat [role=img]')?.getAttribute('aria-label'));
if (until) await page.locator(until).waitFor({ timeout: 120_000 });
await page.waitForTimeout(until ? 8000 : 1000);
await page.screenshot({ path: file });
await browser.close();
