// The commands that an agent offers, while the first word of a prompt is being written.
import {$, list, make, plain} from './dom.js';

/** How many are shown. */
const SHOWN = 50;

/** `offered` gives what the agent said last; `changed` is called when the prompt was written in. */
export function completion(offered, changed) {
  const area = $('prompt');
  const box = $('commands');
  let found = [];
  let at = -1;
  let shown = '[]';
  /** Escape closes the list for what is written now. */
  let closedFor = null;

  function commands() {
    return list(offered()).filter(it => typeof it.name === 'string' && it.name && it.name.length <= 200);
  }

  /** What was written of a command, if that is all there is before the caret. */
  function word() {
    const before = area.value.slice(0, area.selectionStart);
    const after = area.value.slice(area.selectionEnd);
    return /^\/\S*$/.test(before) && !/^\S/.test(after) ? before.slice(1) : null;
  }

  function update() {
    const typed = document.activeElement === area ? word() : null;
    if (typed === null || typed === closedFor) {
      found = [];
      if (typed === null) closedFor = null;
    } else {
      closedFor = null;
      const low = typed.toLowerCase();
      const all = commands().map(it => ({it, place: it.name.toLowerCase().indexOf(low)})).filter(({place}) => place >= 0);
      found = all.sort((one, other) => (one.place > 0) - (other.place > 0)).slice(0, SHOWN).map(({it}) => it);
    }
    show();
  }

  function show() {
    // What is under a finger stays there, and what is chosen stays so.
    const look = JSON.stringify(found.map(it => [it.name, it.description]));
    if (look !== shown) {
      shown = look;
      at = found.length ? 0 : -1;
      render();
    }
    mark();
    const hint = hintOf();
    $('command-hint').textContent = hint;
    $('command-hint').hidden = !hint;
  }

  function render() {
    box.replaceChildren(...found.map((it, index) => {
      const option = make('li', {id: `command-${index}`, role: 'option'}, [
        make('span', {className: 'command', dir: 'auto'}, [`/${plain(it.name)}`]),
        make('span', {className: 'hint', dir: 'auto'}, [typeof it.description === 'string' ? plain(it.description.slice(0, 300)) : '']),
      ]);
      // The focus stays in the prompt.
      option.addEventListener('pointerdown', event => event.preventDefault());
      option.addEventListener('click', () => choose(index));
      return option;
    }));
    box.hidden = !found.length;
  }

  function mark() {
    [...box.children].forEach((option, index) => option.setAttribute('aria-selected', String(index === at)));
    if (at < 0) return area.removeAttribute('aria-activedescendant');
    area.setAttribute('aria-activedescendant', `command-${at}`);
    box.children[at].scrollIntoView({block: 'nearest'});
  }

  /** What the agent says is to be written behind a command, as long as nothing is. */
  function hintOf() {
    const name = /^\/(\S+)\s$/.exec(area.value)?.[1];
    const command = name && commands().find(it => it.name === name);
    return typeof command?.input?.hint === 'string' ? plain(`/${name} ${command.input.hint}`).slice(0, 300) : '';
  }

  function choose(index) {
    const text = `/${found[index].name} `;
    const rest = area.value.slice(area.selectionEnd).replace(/^ /, '');
    area.value = text + rest;
    area.setSelectionRange(text.length, text.length);
    area.focus();
    changed();
    update();
  }

  /** Whether a key was meant for the list. */
  function key(event) {
    if (box.hidden || event.isComposing) return false;
    const isPlain = !event.shiftKey && !event.ctrlKey && !event.altKey && !event.metaKey;
    if (!isPlain) return false;
    switch (event.key) {
      case 'ArrowDown': case 'ArrowUp':
        at = (at + (event.key === 'ArrowDown' ? 1 : -1) + found.length) % found.length;
        mark();
        break;
      case 'Enter':
        // Whole as it stands: it is to be sent.
        if (area.value.slice(1) === found[at].name) return false;
        choose(at);
        break;
      case 'Tab':
        choose(at);
        break;
      case 'Escape':
        closedFor = word();
        update();
        break;
      default:
        return false;
    }
    event.preventDefault();
    event.stopPropagation();
    return true;
  }

  area.addEventListener('input', update);
  area.addEventListener('blur', update);
  area.addEventListener('click', update);
  area.addEventListener('keyup', event => { if (/^(Arrow(Left|Right)|Home|End)$/.test(event.key)) update(); });
  return {key, update};
}
