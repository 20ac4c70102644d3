// A client of the Agent Client Protocol. Whatever an agent said arrives here as text,
// or as HTML that acpbox itself made of it; only the latter passes `trusted`.
import {completion} from './commands.js';
import {$, list, make, plain} from './dom.js';
import {fields} from './form.js';
import {attachments} from './images.js';

(() => {
  const policy = window.trustedTypes?.createPolicy('acpbox', {createHTML: html => html});
  const trusted = html => (policy ? policy.createHTML(html) : html);

  /** Items in the page at once, and how many are asked for. */
  const ITEMS_MAX = 300;
  const ITEMS_PAGE = 80;
  /** How often to look whether something has happened, in milliseconds. */
  const POLL = {running: 1500, live: 15000, stored: 4000, list: 8000};
  /** Nobody answers a question that has only just come into view. */
  const TOO_SOON = 500;
  /** Lost questions whose forms are kept. */
  const UNANSWERED_MAX = 100;
  const TOKEN = 'acpbox-token';
  const QUESTIONS = ['session/request_permission', 'elicitation/create'];
  const ENDS = ['_acpbox/agent/exit', '_acpbox/session/sleep'];
  const NOT_FOUND = -32002;
  /** What is written and not sent yet, by session; no more than fits. */
  const DRAFT = 'acpbox-draft-';
  const DRAFT_MAX = 100000;
  const STATES = {live: 'running', sleeping: 'asleep', closed: 'closed', open: 'stopped'};

  // ---- The connection -------------------------------------------------------------

  let socket = null;
  let isReady = false;
  let wasReady = false;
  let attempts = 0;
  let retryTimer = 0;
  let lastId = 0;
  let calls = new Map();
  let agents = [];
  let defaultAgent = '';

  class Failure extends Error {
    constructor(error) {
      const data = error.data ?? {};
      const hint = typeof data === 'object' && data.hint ? `\n${data.hint}` : '';
      super(`${error.message ?? 'unknown error'}${hint}`);
      this.code = error.code;
    }
  }
  const LOST = new Failure({code: 0, message: 'The connection was lost.'});

  function connect() {
    clearTimeout(retryTimer);
    const own = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/acp`);
    socket = own;
    status('connecting', wasReady ? 'Connecting again…' : 'Connecting…');
    own.onopen = () => introduce().catch(() => {});
    own.onmessage = event => { if (socket === own) receive(event.data); };
    own.onclose = () => { if (socket === own) lost(); };
  }

  async function introduce() {
    const token = sessionStorage.getItem(TOKEN);
    const params = {
      protocolVersion: 1,
      clientCapabilities: {
        elicitation: {form: {}, url: {}},
        session: {configOptions: {boolean: {}}},
        // A page that is left open keeps no VM awake.
        _meta: {acpbox: {agentNotifications: true, letsSleep: true}},
      },
      clientInfo: {name: 'acpbox-web', title: 'Browser', version: '1'},
    };
    if (token) params._meta = {acpbox: {token}};
    let hello;
    try {
      hello = await request('initialize', params);
    } catch (error) {
      if (error.code === -32000) askForToken(token ? error.message : '');
      else if (error !== LOST) status('lost', error.message);
      throw error;
    }
    const ours = hello._meta?.acpbox ?? {};
    agents = ours.agents ?? [];
    defaultAgent = ours.agent ?? '';
    const isAgain = wasReady;
    isReady = wasReady = true;
    attempts = 0;
    status('ready', isAgain ? 'Connected again; nothing was missed.' : 'Connected.');
    await refreshList();
    if (current) await reopen();
    else route();
    for (const prompt of [...outstanding]) if (prompt.isLost) send(prompt);
  }

  function lost() {
    isReady = false;
    const waiting = calls;
    calls = new Map();
    for (const call of waiting.values()) call.reject(LOST);
    attached.clear();
    // They come again, under other ids: what was written into their forms is kept.
    // That may take several attempts.
    unanswered = [...[...asks.values()].filter(it => it.element), ...unanswered].slice(0, UNANSWERED_MAX);
    asks.clear();
    showAsks();
    showRunning();
    if ($('token-dialog').open) return status('lost', 'Not connected: a token is needed.');
    attempts += 1;
    const seconds = Math.min(10, attempts - 0.5);
    status('lost', `The connection was lost. Trying again${seconds > 2 ? ` in ${Math.round(seconds)} s` : ''}…`);
    retryTimer = setTimeout(connect, seconds * 1000);
  }

  function request(method, params) {
    if (socket?.readyState !== WebSocket.OPEN) return Promise.reject(LOST);
    const id = ++lastId;
    return new Promise((resolve, reject) => {
      calls.set(id, {resolve, reject});
      write({id, method, params});
    });
  }

  function write(message) {
    if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({jsonrpc: '2.0', ...message}));
  }

  function receive(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return;
    }
    if (message.method === undefined) {
      const call = calls.get(message.id);
      calls.delete(message.id);
      if (message.error) call?.reject(new Failure(message.error));
      else call?.resolve(message.result ?? {});
      return;
    }
    const params = message.params ?? {};
    if (message.id !== undefined) {
      if (QUESTIONS.includes(message.method)) return ask(message.id, message.method, params);
      return write({id: message.id, error: {code: -32601, message: `Method not found: ${message.method}`}});
    }
    if (message.method === '$/cancel_request') {
      if (asks.delete(params.requestId)) showAsks();
      return;
    }
    if (message.method === 'session/update') updated(params, params.update ?? {});
    if (ENDS.includes(message.method)) {
      // Whoever starts the agent again may be another client.
      attached.delete(params.sessionId);
      refreshList();
    }
    if (message.method === '_acpbox/session/wake') refreshList();
    if (params.sessionId === current?.id) poke();
  }

  /** What an update says beside its part of the transcript, which is fetched as HTML. */
  function updated(params, update) {
    if (params.sessionId !== current?.id) return;
    switch (update.sessionUpdate) {
      case 'current_mode_update':
        if (current.modes) current.modes.currentModeId = update.currentModeId;
        return showSettings();
      case 'config_option_update':
        current.configOptions = update.configOptions;
        return showSettings();
      case 'available_commands_update':
        current.commands = update.availableCommands;
        return commands.update();
      case 'session_info_update':
        if (update.title) {
          current.title = update.title;
          showHead();
        }
        return;
      case 'user_message_chunk': {
        const from = params._meta?.acpbox?.from;
        if (from) announce(`Prompt from ${plain(from)}`);
      }
    }
  }

  function status(state, text) {
    const element = $('status');
    element.dataset.state = state;
    if (element.textContent !== text) element.textContent = text;
  }

  function askForToken(problem) {
    $('token-problem').textContent = plain(problem);
    $('token-problem').hidden = !problem;
    if (!$('token-dialog').open) $('token-dialog').showModal();
  }

  $('token-form').addEventListener('submit', event => {
    event.preventDefault();
    sessionStorage.setItem(TOKEN, $('token').value.trim());
    $('token').value = '';
    $('token-dialog').close();
    const old = socket;
    socket = null;
    old?.close();
    connect();
  });
  // Without a token there is nothing else to do here.
  $('token-dialog').addEventListener('cancel', event => event.preventDefault());
  $('token-dialog').addEventListener('close', () => {
    if (!isReady && socket?.readyState !== WebSocket.CONNECTING && socket?.readyState !== WebSocket.OPEN) askForToken('');
  });

  // ---- The list of sessions, and search ----------------------------------------------

  let sessions = [];
  let nextCursor = null;
  let hits = null;
  let listTimer = 0;

  async function refreshList() {
    clearTimeout(listTimer);
    if (isReady && !document.hidden) {
      try {
        // What was unfolded stays unfolded.
        const pages = Math.max(1, Math.ceil(sessions.length / 100));
        const found = [];
        let cursor;
        for (let page = 0; page < pages; page++) {
          const result = await request('session/list', cursor ? {cursor} : {});
          found.push(...result.sessions);
          cursor = result.nextCursor;
          if (!cursor) break;
        }
        sessions = found;
        nextCursor = cursor ?? null;
        showList();
        const info = current && sessions.find(it => it.sessionId === current.id);
        if (info) adopt(info);
      } catch (error) {
        if (error !== LOST) note(error.message);
      }
    }
    clearTimeout(listTimer);
    listTimer = setTimeout(refreshList, POLL.list);
  }

  async function moreSessions() {
    try {
      const result = await request('session/list', {cursor: nextCursor});
      const known = new Set(sessions.map(it => it.sessionId));
      sessions.push(...result.sessions.filter(it => !known.has(it.sessionId)));
      nextCursor = result.nextCursor ?? null;
      showList();
    } catch (error) {
      note(error.message);
    }
  }

  function showList() {
    const rows = hits
      ? hits.map(hit => ({
          id: `${hit.sessionId}/${hit.seq}`,
          session: hit.sessionId,
          href: hit.seq > 0 ? `#/${hit.sessionId}/${hit.seq}` : `#/${hit.sessionId}`,
          title: hit.title,
          time: hit.time,
          snippet: hit.snippet,
        }))
      : sessions.map(it => ({
          id: it.sessionId,
          session: it.sessionId,
          href: `#/${it.sessionId}`,
          title: it.title,
          time: Date.parse(it.updatedAt),
          agent: it._meta?.acpbox?.agent,
          state: it._meta?.acpbox?.state,
          cwd: it.cwd,
        }));
    const list = $('sessions');
    const known = new Map([...list.children].map(it => [it.dataset.id, it]));
    const now = rows.map(row => {
      const item = known.get(row.id) ?? make('li', {dataset: {id: row.id}});
      const asking = [...asks.values()].filter(it => it.session === row.session).length;
      const isCurrent = !hits && row.session === current?.id;
      const look = JSON.stringify([row, ago(row.time), asking, isCurrent]);
      if (item.dataset.look !== look) {
        item.dataset.look = look;
        const link = item.firstChild ?? item.appendChild(make('a'));
        link.setAttribute('href', row.href);
        if (isCurrent) link.setAttribute('aria-current', 'page');
        else link.removeAttribute('aria-current');
        const name = make('span', {className: 'name'}, [
          make('span', {dir: 'auto'}, [plain(row.title) || 'Untitled']),
          asking ? make('span', {className: 'badge'}, ['asks']) : '',
          make('time', {className: 'when', dateTime: iso(row.time)}, [ago(row.time)]),
        ]);
        const about = make('span', {className: row.snippet ? 'about snippet' : 'about', dir: 'auto'});
        if (row.snippet) {
          for (const part of row.snippet) about.append(part.match ? make('mark', {}, [plain(part.text)]) : plain(part.text));
        } else {
          if (Object.hasOwn(STATES, row.state)) about.append(make('span', {className: 'state', dataset: {state: row.state}}, [STATES[row.state]]), ' · ');
          about.append(`${plain(row.agent)} · ${plain(folder(row.cwd))}`);
          about.title = plain(row.cwd);
        }
        link.replaceChildren(name, about);
      }
      return item;
    });
    // Moving an element would take the focus away from it.
    now.forEach((item, at) => {
      if (list.children[at] !== item) list.insertBefore(item, list.children[at] ?? null);
    });
    while (list.children.length > now.length) list.lastChild.remove();
    $('more').hidden = !!hits || !nextCursor;
    if (!hits) note(sessions.length ? '' : 'There are no sessions yet.');
    const asking = asks.size ? `(${asks.size}) ` : '';
    const title = current ? `${plain(current.title) || 'Untitled'} · acpbox` : 'acpbox';
    if (document.title !== asking + title) document.title = asking + title;
  }

  function note(text) {
    if ($('list-note').textContent !== text) $('list-note').textContent = plain(text);
  }

  let searchTimer = 0;
  let searches = 0;
  async function search() {
    const number = ++searches;
    const words = $('search').value.trim();
    if (!words) {
      hits = null;
      return showList();
    }
    // What is being typed is the beginning of a word.
    const query = /[\p{L}\p{N}]{3}$/u.test(words) && !words.includes('"') ? `${words}*` : words;
    try {
      const result = await request('_acpbox/session/search', {query, limit: 50});
      if (number !== searches) return;
      hits = result.hits;
      showList();
      const count = hits.length === 1 ? 'One place' : `${hits.length}${result.nextCursor ? ' or more' : ''} places`;
      note(hits.length ? `${count} found.` : `Nothing has these words${result.incomplete ? ' yet' : ''}.`);
    } catch (error) {
      if (number !== searches) return;
      hits = [];
      showList();
      note(error.message);
    }
  }
  $('search').addEventListener('input', () => {
    clearTimeout(searchTimer);
    searchTimer = setTimeout(search, 200);
  });
  $('search-form').addEventListener('submit', event => {
    event.preventDefault();
    clearTimeout(searchTimer);
    search();
  });
  $('more').addEventListener('click', moreSessions);
  $('list').addEventListener('keydown', event => {
    if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
      event.preventDefault();
      move(event.key === 'ArrowDown' ? 1 : -1);
    }
  });
  $('search').addEventListener('keydown', event => {
    if (event.key === 'ArrowDown') {
      event.preventDefault();
      move(1);
    }
  });

  function move(by) {
    const links = [...$('sessions').querySelectorAll('a')];
    const at = links.indexOf(document.activeElement);
    if (at + by < 0) $('search').focus();
    else links[Math.min(at + by, links.length - 1)]?.focus();
  }

  // ---- One session -------------------------------------------------------------------

  /** What is shown: its items are elements of `main`, by key in `items`. */
  let current = null;
  let items = new Map();
  /** Sessions whose updates come by themselves, each with the promise of having begun. */
  const attached = new Map();
  /** Prompts without an answer: sent again, in order and under their keys, after a loss. */
  const outstanding = new Set();
  let pokeTimer = 0;
  let pokeAt = 0;
  let isFetching = false;
  let isPoked = false;
  let lastTook = 0;
  /** Whether the end is in view, and is to stay so. */
  let sticks = true;
  // Until then what scrolls is the page itself.
  let settledAt = 0;

  function route() {
    const [id, seq] = location.hash.replace(/^#\//, '').split('/');
    const at = /^\d+$/.test(seq ?? '') ? Number(seq) : 0;
    if (!/^[\w-]+$/.test(id)) return leave();
    if (id !== current?.id || at) open(id, at);
  }

  function leave() {
    keepDraft();
    current = null;
    clear();
    images.open(null);
    clearTimeout(pokeTimer);
    pokeTimer = 0;
    document.body.dataset.view = 'list';
    for (const part of ['head', 'scroller', 'composer']) $(part).hidden = true;
    $('empty').hidden = false;
    problem('');
    showAsks();
    showList();
  }

  /** A draft outlives a reload, as long as the tab is there; so does the token. */
  function keepDraft() {
    if (!current) return;
    const text = $('prompt').value;
    try {
      if (text && text.length <= DRAFT_MAX) sessionStorage.setItem(DRAFT + current.id, text);
      else sessionStorage.removeItem(DRAFT + current.id);
    } catch {
      // There is no room: it is kept for as long as it is in view.
    }
  }

  function open(id, at) {
    if (id !== current?.id) {
      keepDraft();
      const info = sessions.find(it => it.sessionId === id);
      const hit = hits?.find(it => it.sessionId === id);
      current = {id, lastSeq: null, older: false, atEnd: true, live: false, running: false};
      if (info) adopt(info);
      else if (hit) Object.assign(current, {title: hit.title, agent: hit.agent, cwd: hit.cwd});
      clear();
      problem('');
      $('prompt').value = sessionStorage.getItem(DRAFT + id) ?? '';
      images.open(id);
      // On a phone the way back must not lead out of the page.
      $('transcript').focus({preventScroll: true});
    }
    document.body.dataset.view = 'session';
    for (const part of ['head', 'scroller', 'composer']) $(part).hidden = false;
    $('empty').hidden = true;
    grow();
    showHead();
    showSettings();
    showAsks();
    showRunning();
    showList();
    commands.update();
    return at ? openAt(at) : latest();
  }

  function adopt(info) {
    const ours = info._meta?.acpbox ?? {};
    // A title is told before it is stored.
    Object.assign(current, {title: info.title ?? current.title, cwd: info.cwd, agent: ours.agent, vm: ours.vm, state: ours.state});
    showHead();
  }

  /** After a lost connection: on from the last event that was seen. */
  async function reopen() {
    current.isRefused = false;
    if (current.lastSeq === null) return latest();
    poke(0);
  }

  async function latest() {
    current.atEnd = true;
    current.lastSeq = null;
    await poke(0);
  }

  async function openAt(seq) {
    const session = current;
    try {
      const shown = await html({from: Math.max(1, seq - 1), limit: ITEMS_PAGE});
      if (session !== current) return;
      clear();
      put(shown.items);
      current.older = shown.older;
      current.atEnd = !shown.newer;
      sticks = false;
      current.lastSeq = shown.lastSeq;
      state(shown);
      const wanted = [...items].filter(([key]) => place(key)[0] <= seq).at(-1)?.[1] ?? $('transcript').firstChild;
      wanted?.element?.classList.add('wanted');
      // Items get their height when they come into view; that is no scrolling of the reader's.
      const target = wanted?.element ?? wanted;
      const go = () => target?.scrollIntoView({block: 'center'});
      settledAt = performance.now() + 500;
      go();
      requestAnimationFrame(() => { go(); requestAnimationFrame(go); });
      $('transcript').focus({preventScroll: true});
      showEnds();
      poke();
    } catch (error) {
      failed(error);
    }
  }

  function html(params) {
    return request('_acpbox/session/html', {sessionId: current.id, ...params});
  }

  /** Asks soon for what has changed: many calls make one request, and none puts it off. */
  function poke(wait) {
    if (isFetching) {
      isPoked = true;
      return;
    }
    const now = performance.now();
    const at = now + (wait ?? Math.max(80, Math.min(2000, lastTook * 2)));
    if (pokeTimer && pokeAt <= at) return;
    clearTimeout(pokeTimer);
    pokeAt = at;
    pokeTimer = setTimeout(() => {
      pokeTimer = 0;
      fetchNews();
    }, at - now);
  }

  async function fetchNews() {
    if (!current || !isReady || isFetching) return;
    const session = current;
    const begun = performance.now();
    isFetching = true;
    isPoked = false;
    try {
      const after = session.lastSeq;
      const shown = await html(after === null ? {limit: ITEMS_PAGE} : {after});
      // Meanwhile another place may have been gone to, which this says nothing of.
      if (session === current && session.lastSeq === after) show(shown);
      else isPoked = true;
    } catch (error) {
      if (session === current && error.code === NOT_FOUND) gone(session);
      else if (session === current) failed(error);
    }
    isFetching = false;
    lastTook = performance.now() - begun;
    if (!current || !isReady) return;
    if (isPoked || session !== current) poke();
    else poke(current.running ? POLL.running : attached.has(current.id) ? POLL.live : POLL.stored);
  }

  /** Puts news in their places. The end stays in view if it is. */
  function show(shown) {
    const isNew = current.lastSeq === null;
    if (isNew) sticks = true;
    if (current.atEnd || isNew) {
      if (shown.fresh) {
        clear();
        current.older = shown.older;
      }
      const changed = put(shown.items);
      current.lastSeq = shown.lastSeq;
      if (changed.length && !shown.fresh) tell(changed);
    } else {
      // Somebody reads further up: only what is there changes.
      put(shown.items.filter(item => items.has(item.key)));
      current.lastSeq = shown.lastSeq;
    }
    state(shown);
    if (sticks && current.atEnd) {
      if (items.size > ITEMS_MAX) drop(items.size - ITEMS_MAX, true);
      toBottom();
    } else if (items.size > 2 * ITEMS_MAX) {
      drop(items.size - 2 * ITEMS_MAX, false);
    }
    showEnds();
  }

  function state(shown) {
    const wasRunning = current.running;
    const wasLive = current.live;
    Object.assign(current, {cwd: shown.cwd, agent: shown.agent, title: shown.title ?? current.title});
    current.live = shown.live;
    current.running = shown.running;
    // Only the list knows of other processes, for which a session that runs there is open.
    if (shown.state !== 'open' || current.state !== 'live' || wasLive) current.state = shown.state;
    showRunning();
    showHead();
    if (!shown.live) {
      current.refusals = 0;
      current.isRefused = false;
    }
    if (current.takesImages !== shown.images) {
      current.takesImages = shown.images;
      images.show();
    }
    if (wasLive !== shown.live) showSettings();
    if (wasRunning && !shown.running) refreshList();
    if (shown.live && !attached.has(current.id) && !current.isRefused) attach(false).catch(failed);
    if (!current.hasLearned) learn(current).catch(failed);
  }

  /** Follows the session; `mayStart` brings back one that is not live. */
  function attach(mayStart) {
    const following = follow(current, mayStart);
    attached.set(current.id, following);
    return following;
  }

  async function follow(session, mayStart) {
    try {
      const params = {sessionId: session.id, cwd: session.cwd};
      // It may have fallen asleep just now, and who only reads is no reason to wake it.
      if (!mayStart) params._meta = {acpbox: {start: false}};
      const result = await request('session/resume', params);
      if (result._meta?.acpbox?.state) throw new Error('The session’s agent does not run here.');
      session.refusals = 0;
      await learn(session);
      for (const part of ['modes', 'models', 'configOptions']) if (result[part]) session[part] = result[part];
      if (session === current) {
        showSettings();
        poke(0);
      }
    } catch (error) {
      attached.delete(session.id);
      session.refusals = (session.refusals ?? 0) + 1;
      if (!mayStart && error !== LOST && session.refusals < 3) return;
      session.isRefused = error !== LOST;
      throw error;
    }
  }

  /** Somebody deleted it. */
  function gone(session) {
    sessionStorage.removeItem(DRAFT + session.id);
    images.forget(session.id);
    attached.delete(session.id);
    $('prompt').value = '';
    history.replaceState(null, '', '#/');
    leave();
    refreshList();
    announce('The session is gone.');
  }

  const place = key => key.split('.').map(Number);
  function isBefore(one, other) {
    const [a, b] = [place(one), place(other)];
    return a[0] < b[0] || (a[0] === b[0] && a[1] < b[1]);
  }

  /** Adds items, or replaces those with their keys. Gives the elements. */
  function put(news, isOlder) {
    const main = $('transcript');
    const elements = [];
    for (const {key, html} of news) {
      const known = items.get(key);
      if (known?.html === html) continue;
      // What lies before the first item is not there yet, and comes when it is asked for.
      const first = main.firstElementChild?.dataset.key;
      if (!known && !isOlder && current.older && first && isBefore(key, first)) continue;
      const element = rendered(html);
      if (!element) continue;
      element.dataset.key = key;
      if (known) {
        unfoldLike(known, element);
        known.element.replaceWith(element);
      } else {
        let behind = main.lastElementChild;
        while (behind && isBefore(key, behind.dataset.key)) behind = behind.previousElementSibling;
        if (behind) behind.after(element);
        else main.prepend(element);
      }
      items.set(key, {html, element, isOpen: element.open});
      elements.push(element);
    }
    return elements;
  }

  function rendered(html) {
    const template = document.createElement('template');
    template.innerHTML = trusted(html);
    const element = template.content.firstElementChild;
    if (!element) return null;
    // Ids lead to items by the addresses of this page instead.
    element.removeAttribute('id');
    for (const time of element.querySelectorAll('time')) localize(time);
    for (const link of element.querySelectorAll('a[rel]')) link.target = '_blank';
    return element;
  }

  /** Keeps folded or unfolded what somebody did so. */
  function unfoldLike(known, element) {
    if (element.localName === 'details' && known.element.open !== known.isOpen) element.open = known.element.open;
  }

  function clear() {
    items = new Map();
    $('transcript').replaceChildren();
    $('older').hidden = $('newer').hidden = $('latest').hidden = true;
  }

  /** Takes items out of the page, at its beginning or its end. */
  function drop(count, atBeginning) {
    for (; count > 0; count--) {
      const element = atBeginning ? $('transcript').firstElementChild : $('transcript').lastElementChild;
      items.delete(element.dataset.key);
      element.remove();
    }
    if (atBeginning) current.older = true;
    else current.atEnd = false;
  }

  let isPaging = false;
  async function page(params, isOlder) {
    if (isPaging || !isReady) return;
    isPaging = true;
    const session = current;
    try {
      const shown = await html({...params, limit: ITEMS_PAGE});
      if (session !== current) return;
      const anchor = isOlder ? $('transcript').firstElementChild : $('transcript').lastElementChild;
      const top = anchor?.getBoundingClientRect().top;
      put(shown.items, isOlder);
      if (isOlder) current.older = shown.older;
      else if (!shown.newer) {
        current.atEnd = true;
        current.lastSeq = shown.lastSeq;
      }
      if (items.size > ITEMS_MAX) drop(items.size - ITEMS_MAX, !isOlder);
      // What was in view stays where it was.
      if (anchor?.isConnected) $('scroller').scrollTop += anchor.getBoundingClientRect().top - top;
      showEnds();
    } catch (error) {
      failed(error);
    } finally {
      isPaging = false;
    }
  }
  const older = () => page({before: place($('transcript').firstElementChild.dataset.key)[0] + 1}, true);
  const newer = () => page({from: place($('transcript').lastElementChild.dataset.key)[0]}, false);
  $('older').addEventListener('click', older);
  $('newer').addEventListener('click', newer);
  $('latest').addEventListener('click', end);
  $('scroller').addEventListener('scroll', () => {
    if (performance.now() > settledAt) sticks = isAtBottom();
    showEnds();
  }, {passive: true});
  // A question, or a longer prompt, leaves less room: the end stays in view all the same.
  new ResizeObserver(() => {
    if (current?.atEnd && sticks) toBottom();
  }).observe($('scroller'));

  async function end() {
    if (!current) return;
    if (current.atEnd) toBottom();
    else await latest();
  }

  function showEnds() {
    if (!current) return;
    $('older').hidden = !current.older || !items.size;
    $('newer').hidden = current.atEnd;
    $('latest').hidden = current.atEnd && isAtBottom();
  }

  function isAtBottom() {
    const scroller = $('scroller');
    return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 80;
  }

  function toBottom() {
    const scroller = $('scroller');
    sticks = true;
    const go = () => { if (sticks) scroller.scrollTop = scroller.scrollHeight; };
    go();
    // Items get their height when they come into view.
    requestAnimationFrame(() => { go(); requestAnimationFrame(() => { go(); showEnds(); }); });
  }

  /** Tells screen readers what is new, once it will not change any more. */
  function tell(elements) {
    const texts = elements
      .filter(it => it.matches('.turn-end, .problem, .prompt'))
      .map(it => (it.matches('.turn-end') ? lastReply() + it.textContent : it.textContent));
    if (texts.length) announce(texts.join(' '));
  }
  function lastReply() {
    const reply = [...document.querySelectorAll('main > .reply')].at(-1);
    return reply ? `${reply.textContent.slice(0, 1000)} ` : '';
  }
  function announce(text) {
    $('announcer').textContent = text.replace(/\s+/g, ' ').trim();
  }

  function showHead() {
    if (!current) return;
    const title = plain(current.title) || 'Untitled';
    if ($('title').textContent !== title) $('title').textContent = title;
    const state = current.live ? 'live' : current.state ?? '';
    const word = state === 'live' && !current.live ? 'running in another process' : Object.hasOwn(STATES, state) ? STATES[state] : '';
    const look = JSON.stringify([state, word, current.agent, current.cwd]);
    if ($('facts').dataset.look === look) return;
    $('facts').dataset.look = look;
    $('close').disabled = state === 'closed';
    $('prompt').placeholder = current.live || !state ? 'Write a prompt' : 'Prompt, to start the agent';
    $('facts').replaceChildren(
      ...(word ? [make('span', {dataset: {state}}, [word]), ' · '] : []),
      [plain(current.agent), plain(current.cwd)].filter(Boolean).join(' · '),
    );
  }

  function showRunning() {
    const running = !!current?.running && isReady;
    $('stop').hidden = !running;
    $('working').hidden = !(running || current?.starting);
    $('working-text').textContent = current?.starting ?? ([...asks.values()].some(it => it.session === current?.id) ? 'Waits for your answer' : 'Working…');
    $('transcript').setAttribute('aria-busy', String(running));
  }

  function problem(text) {
    $('problem').textContent = plain(text);
    $('problem').hidden = !text;
  }
  function failed(error) {
    if (error !== LOST) problem(error.message);
  }

  $('transcript').addEventListener('click', event => {
    const link = event.target.closest('a.at');
    if (!link) return;
    event.preventDefault();
    const [seq] = place(link.closest('[data-key]').dataset.key);
    history.replaceState(null, '', `#/${current.id}/${seq}`);
  });

  // ---- Prompts -----------------------------------------------------------------------

  async function send(prompt) {
    const id = prompt.session;
    const wasLost = prompt.isLost;
    prompt.isLost = false;
    outstanding.add(prompt);
    const isHere = () => current?.id === id;
    let isBegun = wasLost;
    try {
      // What was sent before is answered from the transcript, or brings its agent back.
      if (!attached.has(id) && isHere() && !wasLost) {
        current.starting = 'Starting the agent…';
        current.isRefused = false;
        showRunning();
        try {
          await attach(true);
        } finally {
          if (isHere()) current.starting = null;
        }
      } else if (!wasLost) {
        // One that was sent while the agent started goes first.
        await attached.get(id);
      }
      if (isHere()) {
        current.running = true;
        showRunning();
        if (!current.atEnd) latest();
        else toBottom();
        poke(150);
      }
      isBegun = true;
      await request('session/prompt', {
        sessionId: id,
        prompt: [...(prompt.text.trim() ? [{type: 'text', text: prompt.text}] : []), ...images.blocks(prompt.images)],
        _meta: {acpbox: {idempotencyKey: prompt.key}},
      });
      outstanding.delete(prompt);
    } catch (error) {
      if (error === LOST) {
        prompt.isLost = true;
        return;
      }
      outstanding.delete(prompt);
      if (isHere()) {
        problem(error.message);
        // What never became part of the transcript is not lost either.
        if (!isBegun) {
          $('prompt').value = [$('prompt').value, prompt.text].filter(Boolean).join('\n\n');
          keepDraft();
          grow();
        }
      }
      if (!isBegun) images.giveBack(id, prompt.images);
    } finally {
      if (isHere()) {
        showRunning();
        poke(0);
      }
    }
  }

  function submit() {
    const text = $('prompt').value;
    if (!current || (!text.trim() && images.isEmpty())) return;
    if (!isReady) return problem('Not connected: your prompt is kept here until the connection is back.');
    problem('');
    $('prompt').value = '';
    keepDraft();
    grow();
    commands.update();
    send({session: current.id, text, images: images.take(), key: key()});
  }

  function cancel() {
    if (!current?.running) return;
    write({method: 'session/cancel', params: {sessionId: current.id}});
    // ACP: who cancels a turn answers what was asked for it.
    for (const it of [...asks.values()].filter(it => it.session === current.id)) {
      asks.delete(it.id);
      write({id: it.id, result: it.method === 'elicitation/create' ? {action: 'cancel'} : {outcome: {outcome: 'cancelled'}}});
    }
    showAsks();
    announce('Cancelling the turn');
    poke();
  }

  /** Works without a secure context, which `crypto.randomUUID` does not. */
  function key() {
    return [...crypto.getRandomValues(new Uint8Array(16))].map(byte => byte.toString(16).padStart(2, '0')).join('');
  }

  function grow() {
    const area = $('prompt');
    area.style.height = 'auto';
    area.style.height = `${area.scrollHeight + 2}px`;
    area.style.overflowY = area.scrollHeight > area.clientHeight ? 'auto' : 'hidden';
  }

  $('composer').addEventListener('submit', event => {
    event.preventDefault();
    submit();
  });
  $('stop').addEventListener('click', cancel);
  $('prompt').addEventListener('input', () => {
    grow();
    keepDraft();
  });
  const commands = completion(() => current?.commands, () => {
    grow();
    keepDraft();
  });
  const images = attachments(() => !!current?.takesImages, problem);
  $('prompt').addEventListener('keydown', event => {
    if (commands.key(event)) return;
    const isPlain = !event.shiftKey && !event.ctrlKey && !event.altKey && !event.metaKey;
    const isTouch = matchMedia('(pointer: coarse)').matches;
    if (event.key === 'Enter' && isPlain && !isTouch && !event.isComposing) {
      event.preventDefault();
      submit();
    }
    // Esc would cancel the turn that waits for the answer.
    const asked = $('asks').querySelector('.ask');
    if (event.key === 'ArrowUp' && isPlain && asked && !$('prompt').value) {
      event.preventDefault();
      asked.focus();
    }
  });

  // ---- Permissions -------------------------------------------------------------------

  /** Open requests by the id that acpbox gave them on this connection. */
  const asks = new Map();

  let unanswered = [];

  function ask(id, method, params) {
    const said = JSON.stringify([method, params]);
    const known = unanswered.find(it => it.said === said);
    unanswered = unanswered.filter(it => it !== known);
    asks.set(id, Object.assign(known ?? {}, {id, method, said, session: params.sessionId, params, since: performance.now()}));
    showAsks();
    showRunning();
    if (params.sessionId === current?.id) poke();
  }

  function showAsks() {
    const here = [...asks.values()].filter(it => it.session === current?.id);
    const box = $('asks');
    const known = new Set();
    for (const element of [...box.children]) {
      if (here.some(it => it.element === element)) known.add(element);
      else element.remove();
    }
    for (const it of here) {
      it.element ??= card(it);
      if (!known.has(it.element)) {
        it.since = performance.now();
        box.append(it.element);
        announce(`The agent asks: ${it.element.querySelector('.what').textContent}`);
      }
    }
    box.hidden = !here.length;
    showLoose();
    showRunning();
    showList();
  }

  /** A question about a request, such as that for a new session, belongs to no session yet. */
  const loose = () => [...asks.values()].find(it => typeof it.session !== 'string');

  function showLoose() {
    const dialog = $('ask-dialog');
    const it = loose();
    if (!it) {
      dialog.replaceChildren();
      return dialog.close();
    }
    it.element ??= card(it);
    if (dialog.firstChild !== it.element) {
      it.since = performance.now();
      dialog.replaceChildren(it.element);
    }
    if (!dialog.open) dialog.showModal();
  }
  $('ask-dialog').addEventListener('cancel', event => {
    event.preventDefault();
    const it = loose();
    if (it) answer(it, it.method === 'elicitation/create' ? {action: 'cancel'} : {outcome: {outcome: 'cancelled'}});
  });
  // Browsers let nobody prevent that for ever.
  $('ask-dialog').addEventListener('close', showLoose);

  function card(it) {
    if (it.method === 'session/request_permission') return permission(it);
    return it.params.mode === 'url' ? address(it) : question(it);
  }

  const said = text => (typeof text === 'string' ? plain(text) : '');
  const DECLINE = {name: 'Decline', kind: 'reject', result: {action: 'decline'}};
  const DISMISS = {name: 'Dismiss', kind: '', result: {action: 'cancel'}};

  /** What the agent wants to know, as a form. */
  function question(it) {
    const {elements, read} = fields(it.params.requestedSchema);
    const title = said(it.params.message) || 'The agent asks a question';
    const button = ({name, kind, result}) => {
      const button = make('button', {type: 'button', className: kind}, [name]);
      button.addEventListener('click', () => answer(it, result));
      return button;
    };
    const form = make('form', {noValidate: true}, [
      ...elements,
      make('div', {className: 'options'}, [make('button', {type: 'submit', className: 'allow'}, ['Send']), button(DECLINE), button(DISMISS)]),
    ]);
    form.addEventListener('submit', event => {
      event.preventDefault();
      const content = read();
      if (content) answer(it, {action: 'accept', content});
    });
    return make('article', {className: 'ask', tabIndex: -1, ariaLabel: `Question: ${title}`}, [
      make('h2', {}, ['Question']),
      make('p', {className: 'what', dir: 'auto'}, [title]),
      form,
    ]);
  }

  /** An address that the agent wants to be visited: whose it is must be seen. */
  function address(it) {
    const title = said(it.params.message) || 'The agent asks you to visit an address';
    const url = webAddress(it.params.url);
    const parts = [make('pre', {}, [plain(it.params.url)])];
    if (!url) parts.push(make('p', {className: 'hint'}, ['This page opens no such address.']));
    const element = frame(it, 'Visit an address', title, parts, [DECLINE, DISMISS]);
    if (url) {
      const link = make('a', {href: url.href, target: '_blank', rel: 'noreferrer noopener', className: 'button allow'}, [`Open ${plain(url.host)}`]);
      link.addEventListener('click', event => {
        if (!answer(it, {action: 'accept'})) event.preventDefault();
      });
      element.querySelector('.options').prepend(link);
    }
    return element;
  }

  function webAddress(text) {
    try {
      const url = new URL(text);
      return ['http:', 'https:'].includes(url.protocol) ? url : null;
    } catch {
      return null;
    }
  }

  function permission(it) {
    const call = it.params.toolCall ?? {};
    const title = plain(call.title) || 'The agent asks for permission';
    const input = call.rawInput ?? {};
    const command = Array.isArray(input.command) ? input.command.join(' ') : input.command;
    const parts = [];
    if (typeof command === 'string' && plain(command) !== title) parts.push(make('pre', {}, [plain(command)]));
    const paths = new Set();
    for (const content of list(call.content)) {
      if (content?.type === 'diff') {
        parts.push(make('span', {className: 'path'}, [plain(content.path)]), change(content));
        paths.add(content.path);
      } else if (content?.content?.type === 'text') {
        parts.push(make('pre', {}, [plain(content.content.text).slice(0, 4000)]));
      }
    }
    for (const location of list(call.locations)) {
      if (location?.path && !paths.has(location.path)) parts.push(make('span', {className: 'path'}, [plain(location.path)]));
    }
    const choices = list(it.params.options).map(({optionId, name, kind}) => ({
      name: plain(name) || plain(optionId),
      kind: ['allow', 'reject'].find(it => String(kind).startsWith(it)) ?? '',
      result: {outcome: {outcome: 'selected', optionId}},
    }));
    return frame(it, `Permission${call.kind ? ` · ${plain(call.kind)}` : ''}`, title, parts, choices);
  }

  function frame(it, name, title, parts, choices) {
    const buttons = choices.map((choice, at) => {
      const number = make('kbd', {ariaHidden: 'true'}, [String(at + 1)]);
      const button = make('button', {type: 'button', className: choice.kind}, [number, choice.name]);
      button.addEventListener('click', () => answer(it, choice.result));
      return button;
    });
    const element = make('article', {className: 'ask', tabIndex: -1, ariaLabel: `${name}: ${title}`}, [
      make('h2', {}, [name]),
      make('p', {className: 'what', dir: 'auto'}, [title]),
      ...parts,
      make('div', {className: 'options'}, buttons),
    ]);
    element.addEventListener('keydown', event => {
      const choice = choices[Number(event.key) - 1];
      if (choice && !event.ctrlKey && !event.altKey && !event.metaKey && !event.repeat) {
        event.preventDefault();
        answer(it, choice.result);
      }
    });
    return element;
  }

  /** The lines that a diff takes away and adds. */
  function change({oldText, newText}) {
    const before = String(oldText ?? '').split('\n');
    const after = String(newText ?? '').split('\n');
    let start = 0;
    while (start < before.length && start < after.length && before[start] === after[start]) start++;
    let same = 0;
    while (same < before.length - start && same < after.length - start && before.at(-1 - same) === after.at(-1 - same)) same++;
    const box = make('pre');
    const lines = (list, element, sign) => {
      const cut = list.slice(start, list.length - same);
      for (const line of cut.slice(0, 100)) box.append(make(element, {}, [`${sign}${plain(line)}`]));
      if (cut.length > 100) box.append(`… ${cut.length - 100} more lines\n`);
    };
    if (oldText) lines(before, 'del', '-');
    lines(after, 'ins', '+');
    return box;
  }

  function answer(it, result) {
    if (performance.now() - it.since < TOO_SOON || !asks.delete(it.id)) return false;
    write({id: it.id, result});
    const hadFocus = it.element.contains(document.activeElement);
    showAsks();
    if (hadFocus) ($('asks').querySelector('.ask') ?? $('prompt')).focus();
    poke();
    return true;
  }

  // ---- Settings ----------------------------------------------------------------------

  /** What can be set, and the agent's commands, as the transcript has them; starts nothing. */
  async function learn(session) {
    session.hasLearned = true;
    const of = ['new', 'load', 'resume', 'fork', 'set_config_option'].map(it => `session/${it}:result`);
    const last = (limit, kinds) => request('_acpbox/session/events', {sessionId: session.id, before: Number.MAX_SAFE_INTEGER, limit, kinds});
    const [settings, offered] = await Promise.all([
      last(100, [...of, 'config_option_update', 'current_mode_update', 'session/set_mode', 'session/set_model']),
      last(1, ['available_commands_update']),
    ]);
    for (const {message} of settings.events) {
      for (const part of ['modes', 'models', 'configOptions']) {
        const said = message.result?.[part] ?? message.params?.update?.[part];
        if (said) session[part] = said;
      }
      const mode = message.params?.update?.currentModeId ?? message.params?.modeId;
      if (mode && session.modes) session.modes.currentModeId = mode;
      if (message.params?.modelId && session.models) session.models.currentModelId = message.params.modelId;
    }
    session.commands ??= offered.events[0]?.message.params?.update?.availableCommands;
    if (session !== current) return;
    showSettings();
    commands.update();
  }

  function showSettings() {
    if (!current) return;
    const session = current;
    const choices = [];
    const setOption = (option, said) => async value => {
      const result = await request('session/set_config_option', {sessionId: session.id, configId: option.id, ...said, value});
      if (result.configOptions) session.configOptions = result.configOptions;
    };
    for (const option of list(session.configOptions)) {
      const name = option.name ?? option.id;
      if (option.type === 'boolean') choices.push(toggle(name, option.currentValue === true, setOption(option, {type: 'boolean'})));
      else if (option.type === 'select' && Array.isArray(option.options)) {
        const entry = it => [it.value, it.name ?? it.value];
        const values = list(option.options).map(it => (it.options ? {group: it.name ?? it.group, entries: list(it.options).map(entry)} : entry(it)));
        choices.push(selection(name, option.currentValue, values, setOption(option, {})));
      }
    }
    const {modes, models} = session;
    const hasOptions = choices.length > 0;
    if (!hasOptions && list(modes?.availableModes).length) {
      choices.push(selection('Mode', modes.currentModeId, list(modes.availableModes).map(it => [it.id, it.name ?? it.id]), async modeId => {
        await request('session/set_mode', {sessionId: session.id, modeId});
        modes.currentModeId = modeId;
      }));
    }
    if (!hasOptions && list(models?.availableModels).length) {
      choices.push(selection('Model', models.currentModelId, list(models.availableModels).map(it => [it.modelId, it.name ?? it.modelId]), async modelId => {
        await request('session/set_model', {sessionId: session.id, modelId});
        models.currentModelId = modelId;
      }));
    }
    // Setting something would start the agent; that is for prompts.
    for (const {input} of choices) input.disabled = !session.live;
    $('settings').title = session.live || !choices.length ? '' : 'What the session was set to; the agent must run to change it.';
    $('settings').replaceChildren(...choices.map(it => it.label));
  }

  function selection(name, value, values, set) {
    const entry = ([id, text]) => make('option', {value: id}, [plain(text)]);
    const input = make('select', {}, values.map(it => (Array.isArray(it) ? entry(it) : make('optgroup', {label: plain(it.group)}, it.entries.map(entry)))));
    input.value = value;
    input.addEventListener('change', () => set(input.value).catch(failed).finally(showSettings));
    return {input, label: make('label', {}, [plain(name), input])};
  }

  function toggle(name, value, set) {
    const input = make('input', {type: 'checkbox', checked: value});
    input.addEventListener('change', () => set(input.checked).catch(failed).finally(showSettings));
    return {input, label: make('label', {}, [input, plain(name)])};
  }

  // ---- What can be done with a session -----------------------------------------------

  /** Says that something is done, which may take a while, and what went wrong with it. */
  async function act(session, doing, work) {
    if (!isReady) return problem('Not connected.');
    if (session.starting) return;
    $('actions').hidePopover();
    problem('');
    session.starting = doing;
    showRunning();
    try {
      await work();
    } catch (error) {
      if (session === current && error.code === NOT_FOUND) gone(session);
      else failed(error);
    } finally {
      session.starting = null;
      showRunning();
      if (session === current) poke(0);
    }
  }

  /** Resolves to whether somebody is sure. */
  function confirmed(title, text, action) {
    const dialog = $('confirm-dialog');
    $('actions').hidePopover();
    $('confirm-title').textContent = title;
    $('confirm-text').textContent = text;
    $('confirm-submit').textContent = action;
    dialog.returnValue = '';
    dialog.showModal();
    return new Promise(resolve => dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), {once: true}));
  }

  const named = session => `“${plain(session.title) || 'Untitled'}”`;

  $('fork').addEventListener('click', () => {
    const session = current;
    act(session, 'Forking…', async () => {
      const result = await request('session/fork', {sessionId: session.id, cwd: session.cwd, mcpServers: []});
      attached.set(result.sessionId, Promise.resolve());
      await refreshList();
      if (session !== current) return;
      location.hash = `#/${result.sessionId}`;
      route();
      announce('This is the fork.');
      $('prompt').focus();
    });
  });
  $('close').addEventListener('click', async () => {
    const session = current;
    const text = 'A turn runs in it, which is ended. What was said stays, and a prompt goes on with it later.';
    if (session.running && !await confirmed(`Close ${named(session)}?`, text, 'Close')) return;
    act(session, 'Closing…', async () => {
      await request('session/close', {sessionId: session.id});
      attached.delete(session.id);
      await refreshList();
      announce('The session is closed.');
    });
  });
  $('delete').addEventListener('click', async () => {
    const session = current;
    const text = `${session.running ? 'A turn runs in it, which is ended. ' : ''}Its transcript and what its agent kept of it are removed for good. Files in its folder stay.`;
    if (!await confirmed(`Delete ${named(session)}?`, text, 'Delete')) return;
    act(session, 'Deleting…', async () => {
      const {kept} = (await request('session/delete', {sessionId: session.id}))._meta?.acpbox ?? {};
      if (session === current) gone(session);
      else refreshList();
      if (Array.isArray(kept) && kept.length) status('ready', plain(`Deleted, but for: ${kept.join('; ')}`));
    });
  });

  // ---- New sessions ------------------------------------------------------------------

  function newSession() {
    if (!isReady) return;
    const folders = [...new Set(sessions.map(it => it.cwd))].slice(0, 50);
    $('folders').replaceChildren(...folders.map(value => make('option', {value})));
    $('agent').replaceChildren(...agents.map(name => make('option', {value: name}, [name])));
    $('agent').value = current?.agent && agents.includes(current.agent) ? current.agent : defaultAgent;
    $('cwd').value = current?.cwd ?? folders[0] ?? '';
    $('new-problem').hidden = true;
    $('new-dialog').showModal();
    $('cwd').select();
  }

  /** The request of a session that is being started. */
  let startingId = 0;
  $('new-dialog').addEventListener('close', () => {
    if (startingId) write({method: '$/cancel_request', params: {requestId: startingId}});
  });

  $('new-form').addEventListener('submit', async event => {
    event.preventDefault();
    const submitted = $('new-submit');
    const [cwd, agent] = [$('cwd').value.trim(), $('agent').value];
    submitted.disabled = true;
    submitted.textContent = 'Starting…';
    $('new-problem').hidden = true;
    try {
      const params = {cwd, mcpServers: []};
      if (agent) params._meta = {acpbox: {agent}};
      const starting = request('session/new', params);
      startingId = lastId;
      const result = await starting;
      startingId = 0;
      $('new-dialog').close();
      attached.set(result.sessionId, Promise.resolve());
      await refreshList();
      location.hash = `#/${result.sessionId}`;
      route();
      Object.assign(current, {cwd, agent, live: true, state: 'live', modes: result.modes, models: result.models, configOptions: result.configOptions});
      showHead();
      showSettings();
      $('prompt').focus();
    } catch (error) {
      $('new-problem').textContent = plain(error.message);
      $('new-problem').hidden = false;
    } finally {
      startingId = 0;
      submitted.disabled = false;
      submitted.textContent = 'Start';
    }
  });
  $('new-button').addEventListener('click', newSession);
  $('help-button').addEventListener('click', () => $('help-dialog').showModal());
  for (const button of document.querySelectorAll('[data-close]')) button.addEventListener('click', () => button.closest('dialog').close());

  // ---- The keyboard, and the rest ----------------------------------------------------

  document.addEventListener('keydown', event => {
    if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector('dialog[open], :popover-open')) return;
    const isTyping = event.target.matches('input, textarea, select');
    if (event.key === 'Escape') {
      // Whoever leaves a field does not mean the turn.
      const form = isTyping && event.target.closest('.ask');
      if (form) return form.focus();
      if (event.target === $('search')) {
        $('search').value = '';
        search();
        $('search').blur();
      } else if (current?.running) cancel();
      else event.target.blur();
      return;
    }
    if (isTyping) return;
    const actions = {
      '/': () => {
        if (!$('search').checkVisibility()) {
          location.hash = '#/';
          leave();
        }
        $('search').focus();
        $('search').select();
      },
      '?': () => $('help-dialog').showModal(),
      n: newSession,
      c: () => $('prompt').focus(),
      p: () => $('asks').querySelector('.ask')?.focus(),
      e: end,
    };
    const action = Object.hasOwn(actions, event.key) ? actions[event.key] : null;
    if (!action) return;
    event.preventDefault();
    action();
  });
  $('skip').addEventListener('click', event => {
    event.preventDefault();
    $('transcript').focus();
  });
  addEventListener('hashchange', () => { if (isReady) route(); });
  addEventListener('online', () => { if (!isReady && socket?.readyState === WebSocket.CLOSED) connect(); });
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) return;
    refreshList();
    if (current) poke();
  });

  function localize(time) {
    const date = new Date(time.dateTime);
    if (isNaN(date)) return;
    time.textContent = date.toLocaleTimeString(undefined, {hour: '2-digit', minute: '2-digit'});
    time.title = date.toLocaleString();
  }

  function iso(milliseconds) {
    const date = new Date(milliseconds);
    return isNaN(date) ? '' : date.toISOString();
  }

  function ago(milliseconds) {
    const seconds = Math.max(0, (Date.now() - milliseconds) / 1000);
    if (!(seconds >= 60)) return 'now';
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
    if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
    if (seconds < 86400 * 30) return `${Math.floor(seconds / 86400)} d`;
    return new Date(milliseconds).toLocaleDateString(undefined, {month: 'short', year: 'numeric'});
  }

  function folder(path) {
    return String(path ?? '').replace(/\/+$/, '').split('/').slice(-2).join('/');
  }

  connect();
})();
