// Takes a picture of the page: node shot.mjs URL FILE.png [LIGHT-OR-DARK]
import { chromium } from 'playwright-core';

const [url, file, colorScheme = 'light'] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'] });
const page = await browser.newPage({ viewport: { width: 1280, height: 960 }, colorScheme, reducedMotion: 'reduce' });
await page.goto(url);
await page.locator('body:not(.stale) #tops tbody a.row').first().waitFor();
await page.waitForFunction(() => document.querySelector('#chart-heat [role=img]')?.getAttribute('aria-label'));
await page.waitForTimeout(1000);
await page.screenshot({ path: file });
await browser.close();
