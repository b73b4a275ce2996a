// What runs the page in a visitor's browser when the server shows it: Jupyter's messages over one socket, and the few kinds of widgets that
// the page is made of (HTML, boxes, anywidgets). JupyterLab's own client does the same with 4.6 MB in 93 files, which take two seconds to start.
// Plain JavaScript without a build step. In JupyterLab itself none of this is used.
const config = JSON.parse(document.querySelector('#jupyter-config-data').textContent);
const kernel = `${config.baseUrl}api/kernels/${config.kernelId}`, session = crypto.getRandomValues(new Uint32Array(4)).join('');
const lost = document.querySelector('.gc-lost'), models = new Map(), waiting = [], control = `control-${session}`;
let socket, ended = false, since = 0, said = '', n = 0;

// ---- what can be lost

function say(text) {
  if (text === said) return;
  said = text;
  lost.replaceChildren();
  if (!text) return;
  const span = document.createElement('span'), btn = document.createElement('button');
  span.textContent = text;
  btn.textContent = 'Start again';
  btn.onclick = () => location.reload();
  lost.append(span, btn);
}

function end() {
  ended = true;
  say('The program behind this page has ended, so nothing more can be done here.');
}

// ---- messages: offsets as 64-bit numbers, then channel, header, parent, metadata, content, buffers (v1.kernel.websocket.jupyter.org)

const bytes = o => o instanceof ArrayBuffer ? new Uint8Array(o) : new Uint8Array(o.buffer, o.byteOffset, o.byteLength);

function pack(channel, parts, buffers) {
  const enc = new TextEncoder(), all = [enc.encode(channel), ...parts.map(o => enc.encode(JSON.stringify(o))), ...buffers.map(bytes)];
  let at = 8 * (all.length + 2);
  const out = new Uint8Array(all.reduce((a, o) => a + o.length, at)), view = new DataView(out.buffer);
  view.setBigUint64(0, BigInt(all.length + 1), true);
  all.forEach((o, i) => { view.setBigUint64(8 * (i + 1), BigInt(at), true); out.set(o, at); at += o.length; });
  view.setBigUint64(8 * (all.length + 1), BigInt(at), true);
  return out;
}

function unpack(buf) {
  const view = new DataView(buf), at = i => Number(view.getBigUint64(8 * (i + 1), true)), count = Number(view.getBigUint64(0, true)) - 1;
  const part = i => new DataView(buf, at(i), at(i + 1) - at(i)), json = i => JSON.parse(new TextDecoder().decode(part(i)));
  return {header: json(1), content: json(4), buffers: Array.from({length: count - 5}, (_, i) => part(i + 5))};
}

function send(kind, content, buffers = [], metadata = {}) {
  const header = {msg_id: `${session}-${n++}`, msg_type: kind, username: '', session, version: '5.3', date: new Date().toISOString()};
  const msg = pack('shell', [header, {}, metadata, content], buffers);
  if (socket.readyState === WebSocket.OPEN) socket.send(msg); else waiting.push(msg);
}

// ---- widgets

function put(state, paths = [], buffers = []) {
  paths.forEach((path, i) => path.slice(0, -1).reduce((o, k) => o[k], state)[path.at(-1)] = buffers[i]);
  return state;
}

class Model {   // of what anywidget offers, what picker.js asks for
  constructor(id, state) { Object.assign(this, {id, state, fs: {}, ready: Promise.resolve()}); }
  get(k) { return this.state[k]; }
  take(state) {
    Object.assign(this.state, state);
    for (const k in state) this.fire(`change:${k}`, this, state[k]);
  }
  send(content, callbacks, buffers = []) { send('comm_msg', {comm_id: this.id, data: {method: 'custom', content}}, buffers); }
  on(name, f) { for (const o of name.split(' ')) (this.fs[o] ??= []).push(f); }
  fire(name, ...args) { for (const f of [...this.fs[name] ?? []]) try { f(...args); } catch (e) { console.error(e); } }
}

async function show_any(model, el) {
  if (model.get('_css')) document.head.append(Object.assign(document.createElement('style'), {textContent: model.get('_css')}));
  const url = URL.createObjectURL(new Blob([model.get('_esm')], {type: 'text/javascript'}));
  const widget = (await import(url)).default;
  URL.revokeObjectURL(url);
  await widget.initialize?.({model});
  await widget.render?.({model, el});
}

function show_html(model, el) {
  const inner = document.createElement('div'), show = () => inner.innerHTML = model.get('value');
  inner.className = 'widget-html-content';
  el.classList.add('widget-html');
  el.append(inner);
  model.on('change:value', show);
  show();
}

function show_box(model, el) {
  const show = () => {
    const els = model.get('children').map(o => draw(o.replace('IPY_MODEL_', '')));
    els.forEach((o, i) => { if (el.children[i] !== o) el.insertBefore(o, el.children[i] ?? null); });
    while (el.children.length > els.length) el.lastElementChild.remove();
  };
  el.classList.add('widget-box', ...model.get('_model_name') === 'VBoxModel' ? ['widget-vbox'] : []);
  model.on('change:children', show);
  show();
}

function draw(id) {
  const model = models.get(id);
  if (model.el) return model.el;
  const el = model.el = document.createElement('div'), kind = model.get('_model_name');
  el.className = ['jupyter-widgets', ...model.get('_dom_classes') ?? []].join(' ');
  if (model.get('_esm')) model.ready = show_any(model, el).catch(console.error);
  else if (kind === 'HTMLModel') show_html(model, el);
  else if (/^[HV]?BoxModel$/.test(kind)) show_box(model, el);
  else console.error(`The page cannot draw a ${kind}`);
  return el;
}

// ---- what comes from the process

function start(states, paths, buffers) {
  put(states, paths, buffers);
  for (const [id, o] of Object.entries(states)) models.set(id, new Model(id, o.state));
  for (const o of document.querySelectorAll('script[type="application/vnd.voila.cell-output+json"]')) {
    const view = JSON.parse(o.textContent).data['application/vnd.jupyter.widget-view+json'];
    if (view) o.replaceWith(draw(view.model_id));
  }
  document.body.classList.remove('gc-wait');
}

function receive({header, content, buffers}) {
  const {comm_id, data} = content, model = models.get(comm_id);
  if (header.msg_type === 'status') { if (['dead', 'restarting'].includes(content.execution_state)) end(); }
  else if (header.msg_type === 'comm_open') models.set(comm_id, new Model(comm_id, put(data.state, data.buffer_paths, buffers)));
  else if (header.msg_type === 'comm_close') models.delete(comm_id);
  else if (header.msg_type !== 'comm_msg') return;
  else if (comm_id === control) start(data.states, data.buffer_paths, buffers);
  else if (data.method === 'update') model?.take(put(data.state, data.buffer_paths, buffers));
  else if (data.method === 'custom') model?.ready.then(() => model.fire('msg:custom', data.content, buffers));
}

const gone = async () => (await fetch(kernel).catch(() => null))?.status === 404;

function connect() {
  socket = new WebSocket(`${location.origin.replace('http', 'ws')}${kernel}/channels?session_id=${session}`, 'v1.kernel.websocket.jupyter.org');
  socket.binaryType = 'arraybuffer';
  socket.onmessage = e => receive(unpack(e.data));
  socket.onopen = () => {
    since = 0;
    say('');
    for (const o of waiting.splice(0)) socket.send(o);
  };
  socket.onclose = async () => {
    if (ended) return;
    since ||= Date.now();
    if (await gone()) return end();
    if (Date.now() - since > 4000) say('The connection is lost. Trying again …');
    setTimeout(connect, 2000);
  };
}

addEventListener('pagehide', () => {
  ended = true; // one that comes back is loaded anew
  navigator.sendBeacon(`${config.baseUrl}voila/api/shutdown/${config.kernelId}`);
});
addEventListener('pageshow', e => e.persisted && location.reload());
document.addEventListener('visibilitychange', async () => {
  if (!document.hidden && !ended && await gone()) end();
});
if (document.querySelector('.gc-fail')) document.body.classList.remove('gc-wait');
connect();
send('comm_open', {comm_id: control, target_name: 'jupyter.widget.control', data: {}}, [], {version: '1.0.0'});
send('comm_msg', {comm_id: control, data: {method: 'request_states'}});
setTimeout(() => { if (document.body.classList.contains('gc-wait')) say('This takes longer than it should.'); }, 30000);
