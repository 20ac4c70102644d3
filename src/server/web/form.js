// Forms for what an agent asks: the flat JSON schemas of ACP's `elicitation/create`.
// A schema is an agent's word: all of it is text here, and none of it is trusted to be one.
import {list, make, plain} from './dom.js';

/** Fields, and choices of one field, that are shown at most. */
const FIELDS = 100;
const CHOICES = 500;
/** Fields so far: each has an id of its own. */
let count = 0;

/**
 * The elements of a schema's fields, and `read`: their content as the agent wants it.
 * It is null where something is wrong, which is then said there, and has the focus.
 */
export function fields(schema) {
  const properties = schema?.properties && typeof schema.properties === 'object' ? Object.entries(schema.properties) : [];
  const required = new Set(Array.isArray(schema?.required) ? schema.required : []);
  const all = properties.slice(0, FIELDS).map(([name, of]) => field(name, of && typeof of === 'object' ? of : {}, required.has(name)));
  const elements = all.map(it => it.element);
  if (properties.length > FIELDS) elements.push(make('p', {className: 'wrong'}, [`${properties.length - FIELDS} more fields are not shown.`]));
  const read = () => {
    const content = [];
    let wrong = null;
    for (const it of all) {
      const {value, problem} = it.read();
      it.complain(problem);
      if (problem) wrong ??= it;
      else if (value !== undefined) content.push([it.name, value]);
    }
    wrong?.focus();
    // Unlike an assignment this makes a member of a name such as `__proto__` too.
    return wrong ? null : Object.fromEntries(content);
  };
  return {elements, read};
}

function field(name, of, isRequired) {
  const id = `field-${++count}`;
  const label = plain(typeof of.title === 'string' && of.title ? of.title : name);
  const input = control(of, id, isRequired);
  const hints = [typeof of.description === 'string' ? of.description : '', input.hint ?? ''].filter(Boolean);
  const hint = make('span', {className: 'hint', id: `${id}-hint`, dir: 'auto'}, [plain(hints.join(' '))]);
  const wrong = make('span', {className: 'wrong', id: `${id}-wrong`, role: 'alert', hidden: true});
  const said = make('span', {dir: 'auto'}, [label]);
  const mark = isRequired && !input.isBoolean ? ' (required)' : '';
  const element = input.isGroup
    ? make('fieldset', {className: 'field'}, [make('legend', {}, [said, mark]), hint, input.element, wrong])
    : make('div', {className: input.isBoolean ? 'field check' : 'field'}, [make('label', {htmlFor: id}, [said, mark]), hint, input.element, wrong]);
  hint.hidden = !hint.textContent;
  const described = input.isGroup ? element : input.element;
  const complain = problem => {
    wrong.textContent = plain(problem);
    wrong.hidden = !problem;
    described.setAttribute('aria-describedby', [hint, wrong].filter(it => !it.hidden).map(it => it.id).join(' '));
    if (!input.isGroup) described.setAttribute('aria-invalid', String(!!problem));
  };
  complain('');
  if (isRequired && !input.isGroup && !input.isBoolean) input.element.required = true;
  // What was wrong is looked at again while it is being mended.
  element.addEventListener('input', () => { if (!wrong.hidden) complain(input.read().problem); });
  return {name, element, read: input.read, complain, focus: () => (input.isGroup ? element.querySelector('input') ?? element : input.element).focus()};
}

function control(of, id, isRequired) {
  const missing = isRequired ? {problem: 'Fill this in.'} : {};
  const named = of.oneOf ?? of.anyOf;
  if (of.type === 'array') return several(of, id, isRequired);
  if (Array.isArray(of.enum) || Array.isArray(named)) {
    const choices = options(Array.isArray(of.enum) ? of.enum : named);
    const element = make('select', {id}, [
      make('option', {value: ''}, [isRequired ? 'Choose…' : 'No answer']),
      ...choices.map(({title}, at) => make('option', {value: String(at)}, [title])),
    ]);
    const at = choices.findIndex(it => it.value === of.default);
    element.value = at < 0 ? '' : String(at);
    return {element, read: () => (element.value === '' ? isRequired ? {problem: 'Choose one.'} : {} : {value: choices[Number(element.value)].value})};
  }
  if (of.type === 'boolean') {
    const element = make('input', {id, type: 'checkbox', checked: of.default === true});
    return {element, isBoolean: true, read: () => ({value: element.checked})};
  }
  if (of.type === 'number' || of.type === 'integer') {
    const isWhole = of.type === 'integer';
    const element = make('input', {id, type: 'text', inputMode: isWhole ? 'numeric' : 'decimal', autocomplete: 'off', value: typeof of.default === 'number' ? String(of.default) : ''});
    const read = () => {
      const text = element.value.trim();
      if (!text) return missing;
      if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) || !Number.isFinite(Number(text))) return {problem: isWhole ? 'Write a whole number, such as 12.' : 'Write a number, such as 1.5.'};
      const value = Number(text);
      if (isWhole && !Number.isSafeInteger(value)) return {problem: 'Write a whole number, such as 12.'};
      if (typeof of.minimum === 'number' && value < of.minimum) return {problem: `At least ${of.minimum}.`};
      if (typeof of.maximum === 'number' && value > of.maximum) return {problem: `At most ${of.maximum}.`};
      return {value};
    };
    return {element, read};
  }
  if (of.type === 'string' || of.type === undefined) return words(of, id, missing);
  const element = make('input', {id, type: 'text', disabled: true, placeholder: 'Answer this in another client'});
  return {element, read: () => (isRequired ? {problem: 'This page has no field for such an answer.'} : {})};
}

function words(of, id, missing) {
  const types = {email: 'email', uri: 'url', date: 'date', 'date-time': 'datetime-local'};
  const type = typeof of.format === 'string' && Object.hasOwn(types, of.format) ? types[of.format] : 'text';
  const element = make('input', {id, type, autocomplete: 'off', dir: 'auto'});
  if (type === 'datetime-local') element.step = '1';
  if (typeof of.default === 'string') element.value = type === 'datetime-local' ? localTime(of.default) : of.default;
  const pattern = typeof of.pattern === 'string' ? of.pattern.slice(0, 200) : '';
  const expression = pattern && expressionOf(of.pattern);
  const read = () => {
    const value = element.value;
    const names = {email: 'an e-mail address, such as ada@example.org', url: 'an address, such as https://example.org/', date: 'a date', 'datetime-local': 'a date and a time'};
    // What a browser could not read is empty for it.
    if (element.validity.badInput || (value && element.validity.typeMismatch)) return {problem: `Write ${names[type]}.`};
    if (!value) return missing;
    const length = [...value].length;
    if (of.minLength > length) return {problem: `At least ${of.minLength} characters; these are ${length}.`};
    if (of.maxLength < length) return {problem: `At most ${of.maxLength} characters; these are ${length}.`};
    if (expression && value.length <= 200 && !expression.test(value)) return {problem: `This must fit the pattern ${pattern}`};
    return {value: type === 'datetime-local' ? new Date(value).toISOString() : value};
  };
  return {element, read, hint: pattern ? `Pattern: ${pattern}` : ''};
}

/** Checkboxes. */
function several(of, id, isRequired) {
  const items = of.items ?? {};
  const choices = options(Array.isArray(items.enum) ? items.enum : items.anyOf ?? items.oneOf);
  const chosen = new Set(Array.isArray(of.default) ? of.default : []);
  const boxes = choices.map(({value}, at) => make('input', {id: `${id}-${at}`, type: 'checkbox', checked: chosen.has(value)}));
  const element = make('div', {className: 'boxes'}, choices.map(({title}, at) => make('label', {}, [boxes[at], make('span', {dir: 'auto'}, [title])])));
  const read = () => {
    const value = choices.filter((_, at) => boxes[at].checked).map(it => it.value);
    const least = Math.max(Number(of.minItems) || 0, 0);
    if (!value.length && !isRequired) return {};
    if (value.length < least) return {problem: `Choose at least ${least}.`};
    if (of.maxItems < value.length) return {problem: `Choose at most ${of.maxItems}.`};
    return {value};
  };
  return {element, isGroup: true, read};
}

/** Values with what to call them, from `enum`, or from `oneOf` and `anyOf` with titles. */
function options(values) {
  const all = Array.isArray(values) ? values.slice(0, CHOICES) : [];
  const titled = new Set(list(all));
  return all.map(it => (titled.has(it) ? {value: it.const, title: plain(it.title || it.const)} : {value: it, title: plain(it)}));
}

/** An agent's pattern, if it cannot take long whatever is looked at. */
function expressionOf(pattern) {
  const branches = pattern.match(/[*+?{(]/g) ?? [];
  if (pattern.length > 200 || branches.length > 3 || /\)[*+?{]|\\[1-9k]/.test(pattern)) return null;
  try {
    return new RegExp(pattern, 'u');
  } catch {
    return null;
  }
}

function localTime(text) {
  const date = new Date(text);
  if (isNaN(date)) return '';
  return new Date(date - date.getTimezoneOffset() * 60000).toISOString().slice(0, 19);
}
