// Elements are made here, and all text goes in as text: nothing on this page parses markup, and nothing
// sets a style attribute, which the page's Content-Security-Policy would refuse.

const unseen = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}\p{Cn}]|(?! )\p{Zs}/gu;

/**
 * clean writes characters that cannot be seen, or that turn the order of others around, as escapes, as the
 * other forms of output do: \x1b, \u202e.
 * @param {string} text
 */
export function clean(text) {
  return String(text).replace(unseen, (c) => {
    const n = c.codePointAt(0);
    if (n < 0x100) return '\\x' + n.toString(16).padStart(2, '0');
    return n < 0x10000 ? '\\u' + n.toString(16).padStart(4, '0') : '\\U' + n.toString(16).padStart(8, '0');
  });
}

/**
 * el makes an element. Attributes named on... are listeners, `class` and all others are set as they are, false
 * and null ones are left out. Children are nodes or text.
 */
export function el(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    if (name.startsWith('on')) e.addEventListener(name.slice(2), value);
    else e.setAttribute(name, value === true ? '' : value);
  }
  e.append(...children.filter((c) => c != null && c !== false));
  return e;
}

/** name makes an element for a string from the network: cleaned, and apart from the direction of what is around. */
export function name(text, attributes = {}) {
  const shown = clean(text);
  return el('bdi', { title: shown, ...attributes }, shown);
}

/** say sets the text of an element, if it differs, so that a selection in it lasts. */
export function say(e, text) {
  if (e.textContent !== text) e.textContent = text;
  return e;
}

/** set sets or removes an attribute, if that changes something. */
export function set(e, attribute, value) {
  if (value == null || value === false) e.removeAttribute(attribute);
  else if (e.getAttribute(attribute) !== String(value)) e.setAttribute(attribute, value);
  return e;
}

/** id finds an element of the page. */
export const id = (name) => document.getElementById(name);

/**
 * keyed makes the children of a parent those of a list: one for each item, known by its key, so that the focus and what is
 * marked stay where they are. make(item) makes one, update(element, item) fills it.
 */
export function keyed(parent, items, key, make, update) {
  const old = new Map();
  for (const e of parent.children) old.set(e.dataset.key, e);
  let at = parent.firstElementChild;
  for (const item of items) {
    const k = key(item);
    let e = old.get(k);
    if (e) old.delete(k);
    else {
      e = make(item);
      e.dataset.key = k;
    }
    update(e, item);
    if (e === at) at = at.nextElementSibling;
    else parent.insertBefore(e, at);
  }
  for (const e of old.values()) e.remove();
}

const probe = el('span', { hidden: true });

/** colour is what a custom property of the style sheet is now, for canvases. */
export function colour(property) {
  if (!probe.isConnected) document.body.append(probe);
  let found = colours.get(property);
  if (!found) {
    probe.style.setProperty('color', `var(${property})`);
    found = getComputedStyle(probe).color;
    colours.set(property, found);
  }
  return found;
}

const colours = new Map();

/** recolour forgets the colours, when the theme changes. */
export const recolour = () => colours.clear();
