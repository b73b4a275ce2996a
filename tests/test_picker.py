"The picture picker in a real browser, Chromium, in a small notebook of its own on the real server"
import base64, hashlib, io, json, re, time
from pathlib import Path
import nbformat, pytest
from PIL import Image
from serving import serving, until

sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed, so no test in a browser')
pytest.importorskip('anywidget')

NOTEBOOK = '''
import hashlib, html, io, json
import ipywidgets as w
from PIL import Image
from gender_classifier.picker import Picker

picker = Picker(max_mb=1, examples=[(o, o.title(), Image.new('RGB', (64,48), o)) for o in ('navy', 'olive')])
out,log = w.HTML(),[]
def note(**kwargs):
    log.append(kwargs)
    out.value = f'<pre id="log" style="white-space:pre-wrap; overflow-wrap:anywhere">{html.escape(json.dumps(log))}</pre>'

def look(data):
    try:
        img = Image.open(io.BytesIO(data))
        x,y = img.size
        if img.format!='JPEG' or x*y>1e7: return {}
        rgb = img.convert('RGB')
    except OSError: return {}
    return dict(format=img.format, size=img.size, exif=len(img.getexif()), top=rgb.getpixel((x//2,y//8)), bottom=rgb.getpixel((x//2,y-y//8)))

@picker.on_photo
def on_photo(name, data, live):
    note(name=name, live=live, batch=picker.batch, n=len(data), sha=hashlib.sha256(data).hexdigest(), **look(data))
    if name=='fault.png': 1/0
    if name!='hold.png': picker.ready()

picker.on_example(lambda name: note(example=name, batch=picker.batch))

@picker.on_action
def on_action(action, key):
    note(action=action, key=key)
    if action=='go on': picker.ready()
    if action=='close': picker.disabled = key=='yes'
    if action=='fill': picker.fill('place', '<b tabindex="-1" data-gc-slot="inner">filled</b>'); picker.focus('inner')
    if action=='download': picker.download('a.csv', 'text/csv', b'a,b')

buttons = ''.join(f'<button data-gc-action="{a}" data-gc-key="{k}"><i>{a} {k}</i></button>'
                  for a,k in [('go on',''), ('close','yes'), ('close','no'), ('fill','1'), ('download','1')])
note(start=True)
w.VBox([picker, w.HTML(buttons + '<div data-gc-slot="place"></div>'), out])
'''

@pytest.fixture(scope='module')
def server(tmp_path_factory):
    "The address of the notebook above, served as the app is, and the server's log"
    path = tmp_path_factory.mktemp('picker')
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(NOTEBOOK)], metadata=dict(kernelspec=dict(name='python3', display_name='Python 3')))
    nbformat.write(nb, path/'picker.ipynb')
    pre = f'from pathlib import Path; a.app_notebook = lambda: Path({str(path/"picker.ipynb")!r})'
    with serving(path/'log.txt', pre=pre) as (url,_): yield url,path/'log.txt'

@pytest.fixture(scope='module')
def browsers(chromium):
    "A browser whose camera is a drawn one; with True it says yes to whoever asks for it"
    with sync_api.sync_playwright() as p:
        def launch(yes): return p.chromium.launch(executable_path=chromium,
            args=['--no-sandbox', '--use-fake-device-for-media-stream'] + ['--use-fake-ui-for-media-stream']*yes)
        yield launch

class Visit:
    "A visitor; `events` is what Python was told since the last `new`"
    def __init__(self, browser, url, **kwargs):
        self.context = browser.new_context(**kwargs)
        self.page,self.url,self.asked,self.said,self.seen = self.context.new_page(),url,[],[],0
        self.page.on('request', lambda r: self.asked.append(r.url))
        self.page.on('console', lambda m: self.said.append(m.text))
        self.page.on('pageerror', lambda e: self.said.append(f'error: {e}'))
        self.page.goto(url)
        self.button('Choose pictures').wait_for()
        self.page.wait_for_selector('#log')
        self.seen = 1

    def button(self, name): return self.page.get_by_role('button', name=name, exact=True)
    def log(self): return json.loads(self.page.locator('#log').inner_text())
    def status(self): return self.page.locator('.gc-picker-status').inner_text()
    def wait_status(self, text): self.page.locator('.gc-picker-status', has_text=text).wait_for(timeout=10_000)

    def new(self, n=1, timeout=20_000):
        "The next `n` events"
        self.page.wait_for_function('n => JSON.parse(document.querySelector("#log").innerText).length>=n', arg=self.seen+n, timeout=timeout)
        res = self.log()[self.seen:]
        self.seen += len(res)
        assert len(res) == n, res
        return res

    def pick(self, *files):
        "Choose `files`, each a name and bytes"
        payload = [dict(name=n, mimeType='' if n.endswith(('.heic', '.txt')) else 'image/*', buffer=b) for n,b in files]
        self.page.locator('.gc-picker input[type=file]').set_input_files(payload)

    def give(self, kind, *files):
        "Drop, or paste, `files` on the page's body"
        self.page.evaluate('''([kind, files]) => {
            const t = new DataTransfer();
            for (const [name, b] of files) t.items.add(new File([Uint8Array.from(atob(b), o => o.charCodeAt(0))], name, {type: 'image/png'}));
            const e = kind==='paste' ? new ClipboardEvent(kind, {clipboardData:t, bubbles:true, cancelable:true}) : new DragEvent(kind, {dataTransfer:t, bubbles:true, cancelable:true});
            document.body.dispatchEvent(e);
        }''', [kind, [(n, base64.b64encode(b).decode()) for n,b in files]])

@pytest.fixture(scope='module')
def browser(browsers):
    b = browsers(True)
    yield b
    b.close()

@pytest.fixture(scope='module')
def one(browser, server):
    v = Visit(browser, server[0])
    yield v
    foreign = [o for o in v.asked if not o.startswith((v.url, 'data:', 'blob:'))] + [o for o in v.said if 'Content Security Policy' in o or o.startswith('error:')]
    v.context.close()
    assert foreign == []

@pytest.fixture
def visit(one):
    "The one visitor of most tests, with the picker idle"
    one.seen = len(one.log())
    return one

def as_bytes(img, format, **kwargs):
    buf = io.BytesIO()
    img.save(buf, format, **kwargs)
    return buf.getvalue()

def png(colour='red', size=(40,30)): return as_bytes(Image.new('RGB', size, colour), 'PNG')
def near(a, b): return max(abs(x-y) for x,y in zip(a, b)) < 40

# ---- files

def test_one_file(visit):
    visit.pick(('me.png', png()))
    e, = visit.new()
    assert (e['name'], e['live'], e['format'], e['size']) == ('me.png', False, 'JPEG', [40,30]) and near(e['top'], (255,0,0))
    visit.pick(('me.png', png())) # the same once more
    assert visit.new()[0]['batch'] == e['batch'] + 1
    visit.page.wait_for_function('() => document.querySelector(".gc-picker-status").innerText===""')

def test_many_files(visit):
    "In order, one at a time, with the place in the row said"
    visit.page.evaluate('''() => { window.rows = new Set(); window.watch = new MutationObserver(() => rows.add(document.querySelector('.gc-picker-progress span').innerText));
        watch.observe(document.querySelector('.gc-picker-progress'), {subtree:true, childList:true, attributes:true, characterData:true}); }''')
    visit.pick(*[(f'{i}.png', png()) for i in range(60)])
    es = visit.new(60, timeout=60_000)
    assert [o['name'] for o in es] == [f'{i}.png' for i in range(60)] and len({o['batch'] for o in es}) == 1
    visit.wait_status('All 60 pictures are done.')
    rows = set(visit.page.evaluate('() => { watch.disconnect(); return [...rows]; }'))
    assert {f'{i+1} of 60: {i}.png' for i in range(60)} <= rows
    assert not visit.page.locator('.gc-picker-progress').is_visible()

def test_one_in_flight_and_cancel(visit):
    visit.pick(*[(o, png()) for o in ('hold.png', 'b.png', 'c.png')])
    assert visit.new()[0]['name'] == 'hold.png'
    visit.page.wait_for_timeout(300)
    assert len(visit.log()) == visit.seen and '1 of 3: hold.png' in visit.page.locator('.gc-picker-progress').inner_text()
    visit.pick(('d.png', png())) # more may come meanwhile
    assert '1 of 4' in visit.page.locator('.gc-picker-progress').inner_text()
    visit.button('go on').click()
    assert [o.get('name', o.get('action')) for o in visit.new(4)] == ['go on', 'b.png', 'c.png', 'd.png']
    visit.pick(('hold.png', png()), ('b.png', png()))
    visit.new()
    visit.button('Cancel the rest').click()
    assert visit.page.evaluate('document.activeElement.innerText') == 'Choose pictures' # the button that had the focus is gone
    visit.button('go on').click()
    visit.new()
    visit.page.wait_for_timeout(200)
    assert len(visit.log()) == visit.seen

def test_upright_small_and_without_gps(visit):
    img = Image.new('RGB', (3000,2000), 'blue')
    img.paste('red', (0,0,1500,2000)) # its left, which is the top when it is turned upright
    exif = Image.Exif()
    exif[0x112] = 6
    exif.get_ifd(0x8825).update({1:'N', 2:(48.0,51.0,30.0), 3:'E', 4:(2.0,17.0,40.0)})
    visit.pick(('turned.jpg', as_bytes(img, 'JPEG', exif=exif)))
    e, = visit.new()
    assert (e['size'], e['exif'], e['format']) == ([1067,1600], 0, 'JPEG')
    assert near(e['top'], (255,0,0)) and near(e['bottom'], (0,0,255))
    visit.pick(('clear.png', as_bytes(Image.new('RGBA', (40,30), (0,0,0,0)), 'PNG')))
    assert near(visit.new()[0]['top'], (255,255,255)) # not black

def test_what_the_browser_cannot_read_is_sent_as_it_is(visit):
    import pillow_heif
    pillow_heif.register_heif_opener()
    jpg = as_bytes(Image.effect_noise((800,800), 90).convert('RGB'), 'JPEG')
    files = {'iphone.heic':as_bytes(Image.new('RGB', (640,480), 'green'), 'HEIF'), 'scan.tif':as_bytes(Image.new('RGB', (64,48)), 'TIFF'),
             'half.jpg':jpg[:len(jpg)//2], 'text.jpg':b'not a picture', 'empty.jpg':b'', 'bomb.png':as_bytes(Image.new('1', (12_000,12_000)), 'PNG')}
    visit.pick(*files.items())
    es = {o['name']:o for o in visit.new(len(files))}
    for k,v in files.items(): assert es[k]['sha'] == hashlib.sha256(v).hexdigest(), k

def test_too_large(visit):
    "What cannot be made smaller and is too large is not sent; the others go on, and a picture that can be is"
    noise = as_bytes(Image.effect_noise((1500,1500), 90).convert('RGB'), 'BMP')
    assert len(noise) > 2**20
    visit.pick(('huge.txt', bytes(2**20+1)), ('large.bmp', as_bytes(Image.new('RGB', (1500,1500), 'red'), 'BMP')), ('a.png', png()))
    assert [(o['name'], o.get('format')) for o in visit.new(2)] == [('large.bmp', 'JPEG'), ('a.png', 'JPEG')]
    visit.wait_status('Done: 2 of 3 pictures.')
    assert 'huge.txt is larger than 1 MB.' in visit.status()

def test_a_fault_of_python(visit, server):
    "It is said without a traceback, and the next picture comes"
    visit.pick(('fault.png', png()))
    visit.new()
    visit.wait_status('Something went wrong here')
    no = re.search(r'Error (\w{6})', visit.status()).group(1)
    assert f'error {no} in on_photo' in server[1].read_text() and 'Traceback' not in visit.page.content()
    visit.pick(('a.png', png()))
    visit.new()

def test_drop_and_paste(visit):
    veil = visit.page.locator('.gc-picker-veil')
    visit.give('dragover', ('a.png', png()))
    assert veil.is_visible() and 'Drop the pictures here' in veil.inner_text()
    visit.give('drop', ('a.png', png()), ('b.png', png('blue')))
    es = visit.new(2)
    assert [o['name'] for o in es] == ['a.png', 'b.png'] and es[0]['batch'] == es[1]['batch'] and not veil.is_visible()
    visit.give('paste', ('image.png', png()))
    assert visit.new()[0]['name'] == 'pasted picture'

# ---- clicks

def test_example_and_actions(visit):
    visit.button('Olive').click()
    e, = visit.new()
    assert e['example'] == 'olive' and e['batch'] > 0
    visit.button('fill 1').locator('i').click() # inside the button
    assert visit.new() == [dict(action='fill', key='1')]
    visit.page.wait_for_function('() => document.activeElement.innerText==="filled"')
    with visit.page.expect_download() as d: visit.button('download 1').click()
    assert d.value.suggested_filename == 'a.csv' and Path(d.value.path()).read_bytes() == b'a,b'
    visit.new()

def test_disabled(visit):
    "Nothing is taken, yet the page's own buttons work"
    visit.button('close yes').click()
    visit.page.wait_for_function('() => document.querySelector(".gc-picker fieldset").disabled')
    assert not visit.button('Choose pictures').is_enabled() and not visit.button('Navy').is_enabled()
    visit.give('drop', ('a.png', png()))
    visit.button('close no').click()
    visit.page.wait_for_function('() => !document.querySelector(".gc-picker fieldset").disabled')
    assert [o['action'] for o in visit.new(2)] == ['close', 'close']

# ---- the camera

def test_snapshot_and_live(visit):
    visit.button('Use the camera').click()
    visit.wait_status('The camera is on. Nothing is sent')
    visit.button('Take a picture').click()
    e, = visit.new()
    assert (e['name'], e['live'], e['format']) == ('camera 1.jpg', False, 'JPEG') and 100 < max(e['size']) <= 1600
    visit.button('Start live labelling').click()
    visit.page.locator('.gc-picker-live').wait_for()
    start = time.monotonic()
    until(lambda: len(visit.log()) >= visit.seen+3)
    visit.button('Stop live labelling').click()
    took = time.monotonic()-start
    visit.page.wait_for_timeout(1500)
    es = visit.log()[visit.seen:]
    assert 3 <= len(es) <= took/.5+2 and {(o['name'], o['live'], o['batch']) for o in es} == {('live', True, e['batch']+1)}
    visit.seen += len(es)
    visit.page.wait_for_timeout(1100)
    assert len(visit.log()) == visit.seen
    visit.button('Start live labelling').click()
    visit.pick(('me.png', png())) # another picture ends live labelling, or its answer would be gone at once
    visit.page.wait_for_timeout(1200)
    assert visit.log()[-1]['name'] == 'me.png' and visit.button('Start live labelling').is_visible()
    visit.button('Turn the camera off').click()
    assert visit.status() == 'The camera is off.' and visit.page.evaluate('document.querySelector("video").srcObject') is None

def test_camera_stops_when_the_page_is_left(visit):
    visit.button('Use the camera').click()
    visit.wait_status('The camera is on.')
    track = visit.page.evaluate_handle('document.querySelector("video").srcObject.getVideoTracks()[0]')
    visit.page.evaluate('''() => { Object.defineProperty(document, 'hidden', {get: () => true, configurable:true});
        document.dispatchEvent(new Event('visibilitychange')); delete document.hidden; }''')
    visit.wait_status('The camera was turned off')
    assert track.evaluate('o => o.readyState') == 'ended'

@pytest.mark.parametrize('name,text', [('NotFoundError', 'No camera was found.'), ('NotReadableError', 'The camera is busy'), ('TypeError', 'could not be started')])
def test_no_camera(visit, name, text):
    visit.page.evaluate('name => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException("", name) } }', name)
    visit.button('Use the camera').click()
    visit.wait_status(text)
    assert visit.button('Use the camera').get_attribute('aria-expanded') == 'false'

def test_not_a_secure_page(visit):
    visit.page.evaluate('Object.defineProperty(window, "isSecureContext", {value:false, configurable:true})')
    visit.button('Use the camera').click()
    visit.wait_status('The browser gives the camera only to a secure page')
    visit.page.evaluate('delete window.isSecureContext')

def test_camera_refused_and_a_phone(browsers, server, shots):
    "Refused by the browser itself; on the same page, nothing is wider than a phone, and the keyboard is enough"
    b = browsers(False)
    v = Visit(b, server[0], viewport=dict(width=390, height=800), reduced_motion='reduce')
    v.context.grant_permissions(['geolocation']) # that, and no other
    v.page.on('filechooser', lambda o: None) # choosers come here before the first key is pressed
    v.page.locator('body').click(position=dict(x=2, y=2))
    names = []
    for _ in range(4):
        v.page.keyboard.press('Tab')
        names.append(v.page.evaluate('document.activeElement.innerText.trim()'))
        assert v.page.evaluate('getComputedStyle(document.activeElement).outlineStyle') == 'solid'
        if names[-1] == 'Choose pictures':
            with v.page.expect_file_chooser() as fc: v.page.keyboard.press('Enter')
            fc.value.set_files([dict(name='key.png', mimeType='image/png', buffer=png())])
            assert v.new()[0]['name'] == 'key.png'
        if names[-1] == 'Use the camera':
            v.page.keyboard.press('Enter')
            v.wait_status('The camera was refused.')
            v.page.screenshot(path=shots/'camera_refused.png')
        if names[-1] == 'Navy':
            v.page.keyboard.press('Space')
            assert v.new()[0]['example'] == 'navy'
    assert names == ['Choose pictures', 'Use the camera', 'Navy', 'Olive']
    assert v.page.evaluate('[...document.querySelectorAll(".gc-picker, .gc-picker *")].every(o => o.scrollWidth<=o.clientWidth+1 || getComputedStyle(o).display==="inline")')
    assert v.page.evaluate('document.documentElement.scrollWidth<=390')
    b.close()
