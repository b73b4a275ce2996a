// The browser's half of gender_classifier/cleaner.py: doubtful pictures, page by page, and a choice for each.
// Plain JavaScript without a build step; anywidget calls `render` once for each place the widget is shown in.
//
// From Python: the trait _state, which is everything that is shown but the pictures; messages thumb {id, error} with a JPEG in buffers[0], say {text}
// To Python:   thumbs {ids}; choose {ids, value}, '' takes back; view {value: {reason, show, label, pred, source, split}}; page {value}; apply; undo {value: batch}

const AT_ONCE = 4;        // small pictures asked for in one message, so that a choice never waits long behind them
const KEEP = 300;         // small pictures that are kept
const FILTERS = [['reason', 'Reason'], ['label', 'Label'], ['pred', 'Model says'], ['source', 'Source'], ['split', 'Split'], ['show', 'Show']];

// JupyterLab has single keys of its own (m, r, x, dd, arrows …), which it leaves alone where the element with the focus has these attributes
const QUIET = {'data-lm-suppress-shortcuts': 'true', 'data-p-suppress-shortcuts': 'true'};
const button = (text, props = {}) => h('button', {type: 'button', textContent: text, ...QUIET, ...props});
const plural = (n, one) => `${n} ${one}${n === 1 ? '' : 's'}`;
const same = (a, b) => a.length === b.length && a.every((o, i) => o === b[i]);

/** Put `text` into `e` only if it is another one: a screen reader would read it again */
function put(e, text) { if (e.textContent !== text) e.textContent = text; }

const DONE = {'': '', remove: 'in the trash', keep: 'kept'};
const doneText = o => DONE[o] ?? `changed to ${o}`;

// ---- one picture

/** What a screen reader says of a picture */
function describe(o) {
  const said = o.pred && `the model says ${o.pred}${o.prob === null ? '' : `, ${percent(o.prob)}`}`;
  const about = [o.name, `labelled ${o.label}`, said, o.reason, o.why, o.done && doneText(o.done), o.choice ? `chosen: ${o.choice}` : !o.done && 'nothing chosen'];
  return about.filter(Boolean).join('. ');
}

const percent = p => `${Math.min(Math.round(100 * p), p < 1 ? 99 : 100)}\u00a0%`;   // never 100 % unless it is

class Card {
  constructor(o, choices, choose) {
    this.id = o.id;
    this.ids = o.other < 0 ? [o.id] : [o.id, o.other];
    this.pics = this.ids.map((id, i) => h('div', {className: 'gc-cleaner-pic', 'data-pic': id}, h('span', {textContent: '…'}), ...(i ? [h('em', {textContent: 'the other one'})] : [])));
    this.label = h('b');
    this.done = h('span', {className: 'gc-cleaner-done'});
    const said = o.pred ? [' · model: ', h('b', {textContent: o.pred, className: o.pred === o.label ? '' : 'gc-cleaner-differs'}), o.prob === null ? '' : ` ${percent(o.prob)}`] : [];
    this.buttons = choices.map(c => button('', {'data-value': c.value, title: c.key && `${c.text} (${c.key})`, onclick: () => choose([o.id], this.o.choice === c.value ? '' : c.value)}));
    choices.forEach((c, i) => this.buttons[i].append(c.text, ...(c.key ? [' ', h('kbd', {textContent: c.key, 'aria-hidden': 'true'})] : [])));
    this.back = button('', {className: 'gc-cleaner-back', title: 'take back what was done (u)', onclick: () => choose([o.id], '')});
    const why = [o.reason, o.why, o.other_name && `other: ${o.other_name}`].filter(Boolean).join(': ');
    this.el = h('div', {className: 'gc-cleaner-card', role: 'group', tabIndex: -1, 'data-id': o.id, 'aria-roledescription': 'picture', ...QUIET},
      h('div', {className: 'gc-cleaner-pics'}, ...this.pics),
      h('p', {className: 'gc-cleaner-name', title: o.path, textContent: o.name}),
      h('p', {}, 'label: ', this.label, ...said, ' ', this.done),
      h('p', {className: 'gc-cleaner-why', textContent: why}),
      h('div', {className: 'gc-cleaner-choices', role: 'group', 'aria-label': 'Choice'}, ...this.buttons, this.back));
    this.update(o);
  }

  /** Show what changes about a picture: its choice, and what was done */
  update(o) {
    this.o = o;
    put(this.label, o.label);
    put(this.done, doneText(o.done));
    this.el.classList.toggle('gc-cleaner-gone', o.done === 'remove');
    this.el.dataset.choice = o.choice;
    this.el.setAttribute('aria-label', describe(o));
    this.back.hidden = !o.done || !!o.choice;
    put(this.back, o.done === 'remove' ? 'bring back' : 'take back');
    for (const b of this.buttons) {
      b.setAttribute('aria-pressed', String(b.dataset.value === o.choice));
      b.disabled = o.done === 'remove';
    }
  }

  /** Only the picture one is at has its buttons in the order of the Tab key */
  current(yes) {
    this.el.tabIndex = yes ? 0 : -1;
    for (const b of [...this.buttons, this.back]) b.tabIndex = yes ? 0 : -1;
  }

  /** A small picture has come, or why there is none */
  thumb(id, url, error) {
    this.ids.forEach((o, i) => {
      if (o !== id) return;
      const alt = i ? `The other picture, ${this.o.other_name}` : this.o.name;
      this.pics[i].firstChild.replaceWith(url ? h('img', {src: url, alt, draggable: false}) : h('span', {textContent: error}));
    });
  }
}

// ---- small pictures, asked for as they come into view

class Thumbs {
  constructor(ask, show) { this.ask = ask; this.show = show; this.have = new Map(); this.wanted = []; this.asked = new Set(); }

  want(ids) {
    this.wanted = [];
    for (const id of new Set(ids)) {
      const o = this.have.get(id);
      if (o) this.show(id, o.url, o.error); else if (!this.asked.has(id)) this.wanted.push(id);
    }
    this.next();
  }

  next() {
    if (this.asked.size || !this.wanted.length) return;
    const ids = this.wanted.splice(0, AT_ONCE);
    ids.forEach(o => this.asked.add(o));
    this.ask(ids);
  }

  come(id, data, error) {
    const url = error ? '' : URL.createObjectURL(new Blob([data], {type: 'image/jpeg'}));
    this.drop(this.have.get(id));
    this.have.set(id, {url, error});
    this.show(id, url, error);
    for (const [k, o] of this.have) {
      if (this.have.size <= KEEP) break;
      this.drop(o);
      this.have.delete(k);
    }
    this.asked.delete(id);
    this.next();
  }

  /** Forget what could not be read: it may be there again */
  retry() { for (const [k, o] of this.have) if (o.error) this.have.delete(k); }
  drop(o) { if (o?.url) URL.revokeObjectURL(o.url); }
  close() { this.have.forEach(o => this.drop(o)); this.have.clear(); this.wanted = []; }
}

// ---- what is seen

function build(no) {
  const ui = {selects: {}, filters: h('div', {className: 'gc-cleaner-row', role: 'group', 'aria-label': 'Which pictures'})};
  for (const [k, text] of FILTERS) {
    const sel = ui.selects[k] = h('select', {id: `gc-cleaner-${no}-${k}`, ...QUIET});
    sel.box = h('div', {className: 'gc-cleaner-filter'}, h('label', {htmlFor: sel.id, textContent: text}), sel);
    ui.filters.append(sel.box);
  }
  ui.where = h('span', {className: 'gc-cleaner-where'});
  ui.prev = button('‹ Previous');
  ui.next = button('Next ›');
  ui.every = h('div', {className: 'gc-cleaner-row gc-cleaner-every', role: 'group', 'aria-label': 'All pictures on this page'});
  ui.grid = h('div', {className: 'gc-cleaner-grid', role: 'group', 'aria-label': 'Pictures'});
  ui.none = h('p', {className: 'gc-cleaner-none', textContent: 'No picture is left here. Choose another reason, or show all.'});
  ui.counts = h('span', {className: 'gc-cleaner-counts'});
  ui.kept = h('p', {className: 'gc-cleaner-help'});
  ui.apply = button('Apply …', {className: 'gc-cleaner-main'});
  ui.undo = button('Undo the last …');
  ui.asked = h('p');
  ui.yes = button('Yes', {className: 'gc-cleaner-main'});
  ui.no = button('Cancel');
  ui.confirm = h('div', {className: 'gc-cleaner-confirm', role: 'group', 'aria-label': 'Confirm', hidden: true}, ui.asked, h('div', {className: 'gc-cleaner-row'}, ui.yes, ui.no));
  ui.status = h('p', {className: 'gc-cleaner-status', role: 'status', 'aria-live': 'polite'});
  ui.list = h('ul');
  ui.history = h('details', {className: 'gc-cleaner-history'}, h('summary', {textContent: 'What was done', ...QUIET}), ui.list);
  ui.help = h('p', {className: 'gc-cleaner-help'});
  const pager = h('div', {className: 'gc-cleaner-row'}, ui.prev, ui.where, ui.next);
  const bar = h('div', {className: 'gc-cleaner-row gc-cleaner-bar'}, ui.counts, ui.apply, ui.undo);
  ui.root = h('div', {className: 'gc-cleaner', role: 'region', 'aria-label': 'Pictures to look at'},
    ui.filters, pager, ui.help, ui.every, ui.grid, ui.none, bar, ui.confirm, ui.status, ui.kept, ui.history);
  return ui;
}

function fillSelect(sel, options, value) {
  sel.box.hidden = !options.length;
  if (!same([...sel.options].map(o => `${o.value}\n${o.textContent}`), options.map(o => o.join('\n')))) sel.replaceChildren(...options.map(([v, text]) => h('option', {value: v, textContent: text})));
  sel.value = value;
}

function historyLine(o, undo) {
  const gone = o.undone ? ' (taken back)' : o.part ? ` (${o.part} taken back)` : '';
  const b = button('Undo', {'aria-label': `Undo ${o.text} of ${o.time}`, hidden: o.undone, onclick: () => undo(o)});
  return h('li', {}, h('span', {textContent: `${o.time} UTC: ${o.text}${gone} `}), b);
}

const toDo = c => [c.relabel && `${plural(c.relabel, 'label')} to change`, c.remove && `${plural(c.remove, 'picture')} to remove`, c.keep && `${c.keep} to keep`].filter(Boolean).join(', ');

function render({model, el}) {
  const ui = build(Math.random().toString(36).slice(2));   // each widget has a copy of this module, so that a count would start at 1 in all
  let cards = [], at = 0, onYes = null, going = null, wanted = null;   // `wanted`: where the focus goes on the next page

  const send = (kind, props = {}) => model.send({kind, ...props});
  const say = text => put(ui.status, text);
  const state = () => model.get('_state');
  const thumbs = new Thumbs(ids => send('thumbs', {ids}), (id, url, error) => cards.forEach(c => c.thumb(id, url, error)));

  // -- choices
  function choose(ids, value) {
    closeConfirm();
    send('choose', {ids, value});
  }

  function go(i, focus = true) {
    at = Math.max(0, Math.min(i, cards.length - 1));
    cards.forEach((c, k) => c.current(k === at));
    if (!focus || !cards[at]) return;
    cards[at].el.focus({preventScroll: true});
    cards[at].el.scrollIntoView({block: 'nearest'});
  }

  function turn(by, focus) {
    const s = state(), page = s.page + by;
    if (page < 0 || page >= s.pages) return;
    wanted = focus ? (by > 0 ? 'first' : 'last') : null;
    send('page', {value: page});
  }

  /** The card above or below: in the next line, nearest to this one */
  function vertical(by) {
    const me = cards[at].el, x = me.offsetLeft;
    const tops = [...new Set(cards.map(c => c.el.offsetTop))], line = tops.indexOf(me.offsetTop) + by;
    if (line < 0 || line >= tops.length) return at;
    const there = cards.map((c, i) => [i, c.el]).filter(([, e]) => e.offsetTop === tops[line]);
    return there.reduce((a, b) => (Math.abs(b[1].offsetLeft - x) < Math.abs(a[1].offsetLeft - x) ? b : a))[0];
  }

  const moves = {
    ArrowRight: () => at + 1, ArrowLeft: () => at - 1, ArrowDown: () => vertical(1), ArrowUp: () => vertical(-1),
    Home: () => 0, End: () => cards.length - 1,
  };
  ui.grid.addEventListener('keydown', e => {
    if (e.ctrlKey || e.metaKey || e.altKey || !cards.length) return;
    const choice = state().choices.find(c => c.key && c.key === e.key.toLowerCase());
    if (moves[e.key]) go(moves[e.key]());
    else if (e.key === 'PageDown') turn(1, true);
    else if (e.key === 'PageUp') turn(-1, true);
    else if (e.key.toLowerCase() === 'u') choose([cards[at].id], '');
    else if (choice) {
      choose([cards[at].id], choice.value);
      go(at + 1);
    } else return;
    e.preventDefault();
    e.stopPropagation();
  });
  ui.grid.addEventListener('focusin', e => {
    const i = cards.findIndex(c => c.el.contains(e.target));
    if (i >= 0 && i !== at) go(i, false);
  });
  ui.grid.addEventListener('mousedown', e => {
    const i = cards.findIndex(c => c.el.contains(e.target));
    if (i >= 0 && !e.target.closest('button')) { e.preventDefault(); e.stopPropagation(); go(i); }
  });

  ui.root.addEventListener('keydown', e => { if (!e.ctrlKey && !e.metaKey && !e.altKey) e.stopPropagation(); });   // nor is any other key for the notebook around us

  ui.prev.onclick = () => turn(-1, false);
  ui.next.onclick = () => turn(1, false);
  for (const [k] of FILTERS) ui.selects[k].onchange = () => { closeConfirm(); send('view', {value: {[k]: ui.selects[k].value}}); };

  // -- apply and undo, each asked for twice
  function confirm(text, yes, f) {
    put(ui.asked, text);
    put(ui.yes, yes);
    onYes = f;
    going = document.activeElement;
    ui.confirm.hidden = false;
    ui.yes.focus();
  }
  function closeConfirm() {
    if (ui.confirm.hidden) return;
    const inside = ui.confirm.contains(document.activeElement);
    ui.confirm.hidden = true;
    onYes = null;
    if (inside) (going?.isConnected && !going.disabled ? going : ui.apply.disabled ? ui.root.querySelector('select') : ui.apply).focus();
  }
  ui.yes.onclick = () => { const f = onYes; closeConfirm(); say('Working …'); f?.(); };
  ui.no.onclick = closeConfirm;
  ui.confirm.onkeydown = e => { if (e.key === 'Escape') { e.stopPropagation(); closeConfirm(); } };

  ui.apply.onclick = () => {
    const s = state(), c = s.counts;
    const how = [c.relabel && (s.move_labels ? 'Files of changed labels move to the folder of their class.' : 'Labels are changed in the table; those files stay where they are.'),
      c.remove && `Removed pictures go to ${s.trash}; nothing is deleted.`, 'Undo takes it back.'];
    confirm(`${toDo(c)}. ${how.filter(Boolean).join(' ')}`, 'Apply now', () => { thumbs.retry(); send('apply'); });
  };
  function askUndo(o) { confirm(`Take back what was done at ${o.time} UTC: ${o.text}?`, 'Undo now', () => { thumbs.retry(); send('undo', {value: o.batch}); }); }
  ui.undo.onclick = () => { const o = state().history.find(b => !b.undone); if (o) askUndo(o); };

  // -- what Python says
  function showEvery(s) {
    const ids = s.items.filter(o => o.done !== 'remove').map(o => o.id);
    const all = [...s.choices.map(c => [c.text, c.value]), ['no choice', '']];
    ui.every.replaceChildren(h('span', {textContent: `All ${s.items.length} on this page:`}), ...all.map(([text, value]) => button(text, {'aria-label': `All on this page: ${text}`, onclick: () => {
      choose(value ? ids : s.items.filter(o => o.choice).map(o => o.id), value);
    }})));
    ui.every.hidden = s.items.length < 2;
  }

  function showCards(s) {
    const had = ui.grid.contains(document.activeElement);
    if (same(cards.map(c => c.ids.join()), s.items.map(o => [o.id, ...(o.other < 0 ? [] : [o.other])].join()))) {
      cards.forEach((c, i) => c.update(s.items[i]));
      showEveryIfNew(s);
    } else {
      cards = s.items.map(o => new Card(o, s.choices, choose));
      ui.grid.replaceChildren(...cards.map(c => c.el));
      go(wanted === 'last' ? cards.length - 1 : 0, had || !!wanted);
      if ((had || wanted) && !cards.length) ui.selects.reason.focus();
      everyKey = '';
      showEveryIfNew(s);
    }
    wanted = null;
    thumbs.want(cards.flatMap(c => c.ids));
  }

  let everyKey = '';
  function showEveryIfNew(s) {   // its buttons keep the focus where nothing about them changed
    const had = ui.every.contains(document.activeElement) && document.activeElement.getAttribute('aria-label');
    const key = JSON.stringify(s.items.map(o => [o.id, o.done, o.choice]));
    if (key === everyKey) return;
    everyKey = key;
    showEvery(s);
    if (had) [...ui.every.children].find(o => o.getAttribute('aria-label') === had)?.focus();
  }

  let last = {};
  function show() {
    const s = state();
    if (!s.items) return;
    for (const [k] of FILTERS) fillSelect(ui.selects[k], s.options[k], s.view[k]);
    put(ui.where, s.n ? `${s.first + 1} to ${s.first + s.items.length} of ${s.n}, page ${s.page + 1} of ${s.pages}` : 'no pictures');
    for (const [b, off] of [[ui.prev, s.page === 0], [ui.next, s.page >= s.pages - 1]]) b.setAttribute('aria-disabled', String(off));
    showCards(s);
    ui.none.hidden = s.items.length > 0;
    const keys = s.choices.filter(c => c.key).map(c => `${c.key} ${c.text}`).join(', ');
    put(ui.help, `Keys, when a picture is marked: ${keys}, each of which moves on; u undo, arrows to another picture, Page Up and Page Down to another page.`);
    put(ui.counts, s.counts.all ? `To apply: ${toDo(s.counts)}.` : 'Nothing to apply.');
    put(ui.kept, `Choices are kept in ${s.journal}.`);
    ui.apply.disabled = !s.counts.all;
    ui.undo.disabled = !s.history.some(o => !o.undone);
    if (JSON.stringify(s.history) !== last.history) ui.list.replaceChildren(...s.history.map(o => historyLine(o, askUndo)));
    last.history = JSON.stringify(s.history);
    ui.history.hidden = !s.history.length;
    announce(s);
  }

  /** Say what became of a choice; the counts are read out by no one */
  function announce(s) {
    const now = s.items.map(o => [o.id, o.choice || (o.done ? doneText(o.done) : 'no choice'), o.name]);
    const changed = now.filter(([id, text]) => last.items?.has(id) && last.items.get(id) !== text);
    if (changed.length === 1) say(`${changed[0][2]}: ${changed[0][1]}.`);
    else if (changed.length) say(`${plural(changed.length, 'picture')}: ${changed[0][1]}.`);
    last.items = new Map(now);
  }

  const onMsg = (msg, buffers) => {
    if (msg.kind === 'say') say(msg.text);
    if (msg.kind === 'thumb') thumbs.come(msg.id, buffers[0], msg.error);
  };
  model.on('change:_state', show);
  model.on('msg:custom', onMsg);
  el.append(ui.root);
  show();

  return () => {
    model.off('change:_state', show);
    model.off('msg:custom', onMsg);
    thumbs.close();
    ui.root.remove();
  };
}

export default {render};
