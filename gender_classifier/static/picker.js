// The browser's half of gender_classifier/picker.py: pictures from files, drag and drop, paste, camera and examples.
// Plain JavaScript without a build step; anywidget calls `initialize` once a widget and `render` once for each place it is shown in.
//
// To Python:   photo {id, name, live, batch} with the bytes in buffers[0]; example {name, batch}; action {action, key}
// From Python: ready {id}, say {text}; fill {slot, html}, focus {slot}, download {name, mime} with the bytes in buffers[0]

const MAX_SIDE = 1600;    // pixels, the longer side of what is sent
const MAX_PIXELS = 1e8;   // a larger picture is not decoded here; Python refuses it by its header
const QUALITY = 0.92;     // of the JPEG that is sent
const LIVE_MS = 500;      // between two live frames, if Python keeps up
const SLOW_MS = 30_000;   // after which a picture is said to take long

let batch = 0;            // number of the last choice: files picked together have the same

const button = (text, props = {}) => h('button', {type: 'button', textContent: text, ...props});

// ---- pictures made smaller, which also turns them upright and leaves their place and camera behind

/** `source` (a bitmap, image or video), no larger than MAX_SIDE, as a JPEG Blob */
function toJpeg(source, width, height) {
  const scale = Math.min(1, MAX_SIDE / Math.max(width, height));
  const canvas = h('canvas', {width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale))});
  const ctx = canvas.getContext('2d');
  ctx.fillStyle = '#fff';   // what is transparent becomes white, as in Python
  ctx.fillRect(0, 0, canvas.width, canvas.height);
  ctx.imageSmoothingQuality = 'high';
  ctx.drawImage(source, 0, 0, canvas.width, canvas.height);
  return new Promise((ok, no) => canvas.toBlob(o => (o ? ok(o) : no(new Error('no JPEG'))), 'image/jpeg', QUALITY));
}

/** The `<img>` of `url`, of which only the header need have been read */
function openImage(url) {
  const img = new Image();
  return new Promise((ok, no) => { img.onload = () => ok(img); img.onerror = no; img.src = url; });
}

/** `file` as a small upright JPEG, or null where this browser cannot read it (HEIC, TIFF, not a picture, half a picture) */
async function shrink(file) {
  const url = URL.createObjectURL(file);
  try {
    const img = await openImage(url);
    const {naturalWidth: width, naturalHeight: height} = img;
    if (!width || !height || width * height > MAX_PIXELS) return null;
    let bitmap;
    try { bitmap = await createImageBitmap(file, {imageOrientation: 'from-image'}); }
    catch (e) {
      if (e instanceof TypeError) return await toJpeg(img, width, height);   // an older browser, which does not know the option
      return null;
    }
    try { return await toJpeg(bitmap, bitmap.width, bitmap.height); }
    finally { bitmap.close(); }
  }
  catch { return null; }
  finally { URL.revokeObjectURL(url); }
}

class Refused extends Error {}

/** What to send of `item`: its bytes as they are, if it is `ready` or this browser cannot shrink it; throws Refused */
async function bytesOf({name, file, ready}, maxMb) {
  const fits = file.size <= maxMb * 2 ** 20;
  const small = !ready && (fits || file.type.startsWith('image/')) ? await shrink(file) : null;
  if (!small && !fits) throw new Refused(`${name} is larger than ${maxMb} MB.`);
  try { return await (small ?? file).arrayBuffer(); }
  catch { throw new Refused(`${name} cannot be read.`); }
}

// ---- one picture on its way at a time

/** Sends what is added, in order, the next when Python is `ready`; holds files, not their bytes */
class Sender {
  waiting = []; flying = null; k = 0; n = 0; name = ''; count = 0;
  tag = Math.random().toString(36).slice(2, 8);   // tells the places the widget is shown in apart

  constructor(on) { this.on = on; }   // on.send, on.bytes, on.progress, on.refused, on.finished, on.slow

  get idle() { return !this.flying && !this.waiting.length; }

  add(items) {
    this.waiting.push(...items);
    this.n += items.length;
    if (this.flying) this.on.progress(this); else this.next();
  }

  cancel() {
    this.n -= this.waiting.length;
    this.waiting = [];
    if (this.flying && this.n) this.on.progress(this);
  }

  take() { return this.flying = `${this.tag}-${++this.count}`; }

  next() {
    const item = this.waiting.shift();
    if (item) {
      this.k += 1;
      this.name = item.name;
      this.on.progress(this);
      this.fly(item, () => this.on.bytes(item));
    } else {
      if (this.n) this.on.finished(this.n);
      this.k = this.n = 0;
      this.name = '';
    }
  }

  /** One live frame, unless something else is on its way; `grab` gives a Blob, or null if it is not wanted any more */
  frame(grab, batch) {
    if (this.idle) this.fly({name: 'live', live: true, batch}, async () => (await grab())?.arrayBuffer());
  }

  async fly(item, read) {
    const id = this.take();
    try {
      const data = await read();
      if (this.flying !== id) return;
      if (!data) { this.landed(id); return; }
      this.timer = setTimeout(() => this.on.slow(), SLOW_MS);
      this.on.send({kind: 'photo', id, name: item.name, live: !!item.live, batch: item.batch}, data);
    } catch (e) {
      if (this.flying !== id) return;
      if (!item.live) this.on.refused(e instanceof Refused ? e.message : `${item.name} cannot be read.`);
      this.landed(id);
    }
  }

  landed(id) {
    if (!id || id !== this.flying) return;
    clearTimeout(this.timer);
    this.flying = null;
    this.next();
  }

  close() { clearTimeout(this.timer); this.waiting = []; this.flying = 'closed'; }
}

// ---- the camera

/** What to tell the visitor about `e`, which kept the camera from starting */
function cameraFault(e) {
  switch (e.name) {
    case 'InsecureError': return 'The browser gives the camera only to a secure page (https, or this very computer). Choosing a file works; a phone can take a picture there.';
    case 'MissingError': return 'This browser has no access to a camera.';
    case 'NotFoundError': case 'DevicesNotFoundError': case 'OverconstrainedError': return 'No camera was found.';
    case 'NotAllowedError': case 'PermissionDeniedError': case 'SecurityError':
      return 'The camera was refused. Allow it for this page in the browser’s settings, then try again.';
    case 'NotReadableError': case 'TrackStartError': case 'AbortError': return 'The camera is busy: another program uses it, or it cannot be started.';
    default: return 'The camera could not be started.';
  }
}

/** The camera, shown in `video`; `lost` is called if it goes away by itself */
class Camera {
  stream = null; asked = 0;

  constructor(video, lost) { this.video = video; this.lost = lost; }

  /** True once the picture is there, false if `stop` came first; throws what `cameraFault` explains */
  async start(deviceId) {
    this.stop();
    const asked = this.asked;
    if (!window.isSecureContext) throw new DOMException('', 'InsecureError');
    if (!navigator.mediaDevices?.getUserMedia) throw new DOMException('', 'MissingError');
    const which = deviceId ? {deviceId: {exact: deviceId}} : {facingMode: 'user'};
    try {
      const stream = await navigator.mediaDevices.getUserMedia({audio: false, video: {width: {ideal: 1280}, height: {ideal: 720}, ...which}});
      if (asked !== this.asked) { stopTracks(stream); return false; }
      this.show(stream);
      await this.video.play();
    } catch (e) { if (asked === this.asked) throw e; }
    return asked === this.asked;
  }

  show(stream) {
    this.stream = this.video.srcObject = stream;
    this.video.classList.toggle('gc-picker-mirror', this.settings.facingMode !== 'environment');
    stream.getVideoTracks()[0].addEventListener('ended', () => { if (this.stream === stream) this.lost(); });
  }

  stop() {
    this.asked += 1;
    stopTracks(this.stream);
    this.stream = this.video.srcObject = null;
  }

  get settings() { return this.stream?.getVideoTracks()[0]?.getSettings() ?? {}; }

  /** The id of the camera after this one, or undefined if there is no other */
  async other() {
    const ids = (await navigator.mediaDevices.enumerateDevices()).filter(o => o.kind === 'videoinput').map(o => o.deviceId);
    return ids.length > 1 ? ids[(ids.indexOf(this.settings.deviceId) + 1) % ids.length] : undefined;
  }

  async grab() {
    const {videoWidth, videoHeight} = this.video;
    return this.stream && videoWidth ? toJpeg(this.video, videoWidth, videoHeight) : null;
  }
}

function stopTracks(stream) { stream?.getTracks().forEach(o => o.stop()); }

// ---- what is seen

function exampleButton({name, title, src}, click) {
  const img = h('img', {src, alt: '', width: 120, height: 90});
  return h('li', {}, h('button', {type: 'button', className: 'gc-picker-example', onclick: () => click(name)}, img, h('span', {textContent: title})));
}

/** Every element of the widget, by name */
function build(model, wholePage) {
  const ui = {
    choose: button('Choose pictures', {className: 'gc-picker-main', 'data-gc-slot': 'choose'}),
    camera: button('Use the camera', {'aria-expanded': 'false'}),
    input: h('input', {type: 'file', multiple: true, hidden: true, accept: model.get('accept')}),
    video: h('video', {muted: true, playsInline: true, 'aria-label': 'What the camera sees'}),
    live_mark: h('span', {className: 'gc-picker-live', textContent: 'Live', hidden: true}),
    shot: button('Take a picture', {className: 'gc-picker-main', disabled: true}),
    live: button('Start live labelling', {disabled: true, hidden: !model.get('live')}),
    other: button('Other camera', {hidden: true}),
    bar: h('progress', {'aria-label': 'Pictures done'}),
    count: h('span'),
    cancel: button('Cancel the rest'),
    status: h('p', {className: 'gc-picker-status', role: 'status', 'aria-live': 'polite'}),
    veil: h('div', {className: 'gc-picker-veil', hidden: true, 'aria-hidden': 'true'}, h('span', {textContent: 'Drop the pictures here'})),
  };
  const hint = h('p', {className: 'gc-picker-hint'},
    h('span', {className: 'gc-picker-drag', textContent: wholePage ? 'Or drop them anywhere on this page, or paste one. ' : 'Or drop them here, or paste one. '}),
    `JPEG, PNG, HEIC, WebP and most others, up to ${model.get('max_mb')}\u00a0MB each.`);
  ui.panel = h('div', {className: 'gc-picker-camera', role: 'group', 'aria-label': 'Camera', hidden: true},
    h('div', {className: 'gc-picker-view'}, ui.video, ui.live_mark), h('div', {className: 'gc-picker-row'}, ui.shot, ui.live, ui.other));
  ui.progress = h('div', {className: 'gc-picker-progress', hidden: true}, ui.bar, ui.count, ui.cancel);
  ui.box = h('div', {className: 'gc-picker-box'}, h('div', {className: 'gc-picker-row'}, ui.choose, ui.camera), ui.input, hint, ui.panel, ui.progress, ui.status);
  ui.examples = h('ul', {'aria-label': 'Example pictures'});
  ui.tries = h('div', {className: 'gc-picker-examples'}, h('p', {textContent: 'No picture at hand? Try one of these:'}), ui.examples);
  ui.all = h('fieldset', {'aria-label': 'Pictures to label'}, ui.box, ui.tries);
  ui.root = h('div', {className: 'gc-picker'}, ui.all);
  return ui;
}

/** A line for the visitor, heard by a screen reader too; `keep` lines stay while new ones are added */
function makeStatus(p) {
  let kept = [], own = false;
  const show = text => { p.textContent = text; };
  return {
    say(text, mine = false) { kept = []; own = mine; show(text); },
    add(text) {
      kept.push(text);
      own = false;
      const more = kept.length - 5;
      show(kept.slice(0, 5).concat(more > 0 ? [`and ${more} more.`] : []).join('\n'));
    },
    done(n) {   // the line that only said that work goes on is taken away, what was refused is left standing
      const done = n === 1 ? '' : kept.length ? `Done: ${Math.max(n - kept.length, 0)} of ${n} pictures.\n` : `All ${n} pictures are done.`;
      if (kept.length) show(done + p.textContent); else if (own) show(done);
      kept = [];
    },
  };
}

// ---- where files come from

const names = (file, pasted) => (pasted && /^image\.\w+$/.test(file.name) ? 'pasted picture' : file.name || 'picture');

const isText = e => e instanceof Element && e.closest('input, textarea, select, [contenteditable]');

/** Calls `take(files)` for what is dropped on or pasted into `zone`, and `over(true or false)` while files are held above it */
function listen(zone, take, over, signal) {
  let timer;
  const leave = () => { clearTimeout(timer); over(false); };
  const ours = e => !e.defaultPrevented && e.dataTransfer?.types.includes('Files');
  const hover = e => {
    if (!ours(e)) return;
    e.preventDefault();
    e.dataTransfer.dropEffect = 'copy';
    over(true);
    clearTimeout(timer);
    timer = setTimeout(leave, 600);   // this event comes again and again as long as files are held there
  };
  zone.addEventListener('dragenter', hover, {signal});
  zone.addEventListener('dragover', hover, {signal});
  zone.addEventListener('drop', e => {
    leave();
    if (!ours(e)) return;
    e.preventDefault();   // else the browser would leave the page and open the file
    take([...e.dataTransfer.files], false);
  }, {signal});
  zone.addEventListener('paste', e => {
    const files = [...(e.clipboardData?.files ?? [])];
    if (e.defaultPrevented || !files.length || isText(e.target)) return;
    e.preventDefault();
    take(files, true);
  }, {signal});
  signal.addEventListener('abort', leave);
}

function render({model, el}) {
  const closing = new AbortController(), {signal} = closing;
  const wholePage = document.body.matches('[data-voila]');   // in JupyterLab the page is not ours, only the widget is
  const ui = build(model, wholePage), status = makeStatus(ui.status);
  let shots = 0, liveTimer = null;

  // -- sending
  const sender = new Sender({
    send: (msg, data) => model.send(msg, undefined, [data]),
    bytes: item => bytesOf(item, model.get('max_mb')),
    progress({k, n, name}) {
      ui.progress.hidden = n < 2;
      ui.bar.max = n;
      ui.bar.value = Math.max(k - 1, 0);
      ui.count.textContent = `${k} of ${n}${name && ': '}${name}`;
      ui.cancel.hidden = k >= n;
    },
    refused: status.add,
    finished(n) {
      if (ui.progress.contains(document.activeElement)) ui.choose.focus();
      ui.progress.hidden = true;
      status.done(n);
    },
    slow: () => status.say('This takes long. If nothing happens, reload the page.'),
  });
  function send(items) {
    stopLive();
    batch += 1;
    if (sender.idle || !sender.n) status.say(items.length === 1 ? `Looking at ${items[0].name} …` : `Looking at ${items.length} pictures …`, true);
    sender.add(items.map(o => ({...o, batch})));
  }
  const off = () => model.get('disabled');
  const take = (files, pasted) => { if (files.length && !off()) send(files.map(file => ({name: names(file, pasted), file}))); };

  ui.choose.onclick = () => ui.input.click();
  ui.input.onchange = () => { const files = [...ui.input.files]; ui.input.value = ''; take(files, false); };
  ui.cancel.onclick = () => { sender.cancel(); ui.cancel.hidden = true; ui.choose.focus(); };

  // -- camera
  const camera = new Camera(ui.video, () => cameraOff('The camera was disconnected.'));
  function stopLive() {
    clearInterval(liveTimer);
    liveTimer = null;
    ui.live_mark.hidden = true;
    ui.live.textContent = 'Start live labelling';
  }
  function startLive() {
    const no = batch += 1;
    const tick = () => sender.frame(() => (liveTimer ? camera.grab() : null), no);
    liveTimer = setInterval(tick, LIVE_MS);
    ui.live_mark.hidden = false;
    ui.live.textContent = 'Stop live labelling';
    status.say('Live: the picture is looked at about twice a second.');
    tick();
  }
  function cameraOff(text = '') {
    stopLive();
    camera.stop();
    if (ui.panel.contains(document.activeElement)) ui.camera.focus();
    ui.panel.hidden = ui.shot.disabled = ui.live.disabled = true;
    ui.camera.setAttribute('aria-expanded', 'false');
    ui.camera.textContent = 'Use the camera';
    showTries();
    status.say(text);
  }
  async function cameraOn(deviceId) {
    stopLive();
    ui.panel.hidden = false;
    ui.shot.disabled = ui.live.disabled = true;
    ui.camera.setAttribute('aria-expanded', 'true');
    ui.camera.textContent = 'Turn the camera off';
    showTries();
    status.say('Waiting for the camera. The browser may ask you to allow it.');
    try { if (!await camera.start(deviceId)) return; }
    catch (e) { cameraOff(cameraFault(e)); return; }
    ui.shot.disabled = ui.live.disabled = false;
    status.say('The camera is on. Nothing is sent before you press a button.');
    ui.other.hidden = !await camera.other();
  }
  ui.camera.onclick = () => (ui.panel.hidden ? cameraOn() : cameraOff('The camera is off.'));
  ui.other.onclick = async () => cameraOn(await camera.other());
  ui.live.onclick = () => { if (liveTimer) { stopLive(); status.say('Live labelling has stopped.'); } else startLive(); };
  ui.shot.onclick = async () => {
    const file = await camera.grab();
    if (file) send([{name: `camera ${++shots}.jpg`, file, ready: true}]);
  };
  const leave = () => { if (!ui.panel.hidden) cameraOff('The camera was turned off, as the page was not in view.'); };
  document.addEventListener('visibilitychange', () => { if (document.hidden) leave(); }, {signal});
  window.addEventListener('pagehide', leave, {signal});
  const sized = new ResizeObserver(() => { if (!ui.root.offsetWidth) leave(); });   // a tab of JupyterLab that was put behind another

  // -- what Python sets
  function showTries() { ui.tries.hidden = !ui.examples.children.length || !ui.panel.hidden; }   // the camera's answers come below it
  function showExamples() {
    ui.examples.replaceChildren(...model.get('_examples').map(o => exampleButton(o, name => {
      stopLive();
      status.say('');
      model.send({kind: 'example', name, batch: batch += 1});
    })));
    showTries();
  }
  function showDisabled() {
    ui.all.disabled = off();
    if (off() && !ui.panel.hidden) cameraOff();
  }
  model.on('change:_examples', showExamples);
  model.on('change:disabled', showDisabled);
  model.on('msg:custom', msg => {
    if (msg.kind === 'ready') sender.landed(msg.id);
    if (msg.kind === 'say') status.say(msg.text);
  });

  listen(wholePage ? document : ui.root, take, on => {
    ui.box.classList.toggle('gc-picker-over', on && !off());
    ui.veil.hidden = !(wholePage && on && !off());
  }, signal);
  showExamples();
  showDisabled();
  document.body.append(ui.veil);
  el.append(ui.root);
  sized.observe(ui.root);

  return () => {
    closing.abort();
    sized.disconnect();
    stopLive();
    camera.stop();
    sender.close();
    ui.veil.remove();
    ui.root.remove();
  };
}

// ---- the rest of the page: what Python cannot do there without taking the keyboard's focus away

/** Calls `f` with the element whose data-gc-slot is `slot`; it may come a moment later than the message that asks for it */
function when(slot, f, tries = 40) {
  const e = document.querySelector(`[data-gc-slot="${CSS.escape(slot)}"]`);
  if (e) f(e); else if (tries) setTimeout(when, 50, slot, f, tries - 1);
}

function focusOn(e) {
  e.focus({preventScroll: true});
  e.scrollIntoView({block: 'nearest', behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth'});
}

function download(name, mime, data) {
  const a = h('a', {href: URL.createObjectURL(new Blob([data], {type: mime})), download: name});
  document.body.append(a);
  a.click();
  a.remove();
  setTimeout(() => URL.revokeObjectURL(a.href), 60_000);
}

function initialize({model}) {
  const latest = {};   // HTML of a slot that is not there yet
  const act = e => {
    const o = e.target instanceof Element && e.target.closest('[data-gc-action]');
    if (o) model.send({kind: 'action', action: o.dataset.gcAction, key: o.dataset.gcKey ?? ''});
  };
  document.addEventListener('click', act);
  model.on('msg:custom', (msg, buffers) => {
    if (msg.kind === 'focus') when(msg.slot, focusOn);
    if (msg.kind === 'download') download(msg.name, msg.mime, buffers[0]);
    if (msg.kind === 'fill') {
      latest[msg.slot] = msg.html;
      when(msg.slot, e => { e.innerHTML = latest[msg.slot]; });
    }
  });
  return () => document.removeEventListener('click', act);
}

export default {initialize, render};
