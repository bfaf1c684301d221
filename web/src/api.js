// What the page asks the aggregator. Every address is relative, so that the page works below any path.

/** Refused is an answer that says no, with the aggregator's reason. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** reason writes an error as the aggregator tells it. */
const reason = (e) => [e?.what, e?.hint].filter(Boolean).join(': ');

/** get asks once. It throws Refused, or an Error when the aggregator cannot be reached. */
export async function get(what, query, signal) {
  const r = await fetch(`api/v1/${what}?${query}`, { signal, headers: { accept: 'application/json' } });
  if (r.ok) return r.json();
  let text = r.statusText || `status ${r.status}`;
  try {
    text = reason((await r.json()).error) || text;
  } catch {
    // not of the aggregator: a proxy's page
  }
  throw new Refused(r.status, text);
}

/** The longest silence of a stream: the aggregator says something each 15 s at least. */
const silence = 40_000;

/**
 * follow keeps a stream of dashboards open until stop() of what it returns is called. It comes back by itself, waiting up to
 * ten seconds between attempts, and is told of everything: dashboard(d), away(why), refused(why) when the
 * aggregator does not want the question, so that asking again is no use.
 */
export function follow(query, { dashboard, away, refused }) {
  let source, timer, watchdog, ended = false, wait = 1000;
  const close = () => {
    clearTimeout(timer);
    clearTimeout(watchdog);
    source?.close();
  };
  const again = (why) => {
    close();
    if (ended) return;
    away(why);
    timer = setTimeout(async () => {
      try { // EventSource does not tell why: a question that is refused says so
        const q = new URLSearchParams(query);
        q.set('hosts', '0');
        q.set('limit', '1');
        await get('dashboard', q);
      } catch (e) {
        if (ended) return;
        if (e instanceof Refused && e.status < 500 && e.status !== 429) {
          ended = true;
          return refused(e.message);
        }
        wait = Math.min(wait * 1.6, 10_000);
        return again(e instanceof Refused ? e.message : 'the aggregator cannot be reached');
      }
      if (!ended) open();
    }, wait * (0.75 + Math.random() / 2));
  };
  const alive = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => again('the aggregator has fallen silent'), silence);
  };
  const open = () => {
    source = new EventSource(`api/v1/stream?${query}`);
    source.addEventListener('open', alive);
    source.addEventListener('still', alive);
    source.addEventListener('dashboard', (e) => {
      alive();
      wait = 1000;
      dashboard(JSON.parse(e.data));
    });
    source.addEventListener('failure', (e) => again(reason(JSON.parse(e.data).error)));
    source.addEventListener('error', () => again('the aggregator cannot be reached'));
    alive();
  };
  open();
  return {
    stop() {
      ended = true;
      close();
    },
  };
}
