// What the parts of the page make elements and text with.

export const $ = id => document.getElementById(id);

export function make(name, properties = {}, children = []) {
  const element = document.createElement(name);
  const {dataset, ...rest} = properties;
  Object.assign(element, rest);
  Object.assign(element.dataset, dataset);
  element.append(...children);
  return element;
}

/** The objects of what should be a list of them: an agent may send anything. */
export function list(value) {
  return Array.isArray(value) ? value.filter(it => it && typeof it === 'object') : [];
}

/** Text as it is: nothing in it hides or turns around what stands beside it. */
export function plain(text) {
  return String(text ?? '').replace(/[\0-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]/g,
    it => `\\u${it.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
