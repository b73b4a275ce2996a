"Collecting, against a server on this machine that speaks like the real ones and fails like them"
import base64, gzip, hashlib, io, json, os, re, signal, subprocess, sys, tarfile, threading, time, zipfile
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import pytest
for o in ('pandas','requests','filelock'): pytest.importorskip(o)
from PIL import Image
from gender_classifier import collect, download as dl
from gender_classifier.collect import get_source
from gender_classifier.core import image_files
from gender_classifier.download import CollectError, download
from gender_classifier.ingest import ingest
from gender_classifier.intake import alone, data_folder, read_sources

class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *args): pass

    def reply(self, code, b=b'', headers=None, send=None):
        "Send a response; `send` is how much of it before the line goes dead"
        self.send_response(code)
        for k, v in (dict(headers or {}) | {'Content-Length': len(b)}).items(): self.send_header(k, str(v))
        self.end_headers()
        if self.command != 'HEAD': self.wfile.write(b if send is None else b[:send])
        if send is not None: self.close_connection = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
        self.do_GET(json.loads(body or b'{}'))

    def do_GET(self, asked=None):
        s, path = self.server, self.path.split('?')[0]
        s.log.append((path, self.headers.get('Range')))
        fault = s.faults[path].pop(0) if s.faults[path] else ''
        kind, _, arg = fault.partition(':')
        b = s.files.get(path)
        if kind == 'status': return self.reply(int(arg), b'sorry')
        if kind == 'busy': return self.reply(429, b'', {'Retry-After': arg or '1'})
        if kind == 'page': return self.reply(200, b'<!DOCTYPE html>\n<html><title>Sign in</title></html>', {'Content-Type': 'text/html'})
        if kind == 'reset': self.close_connection = True; return
        if kind == 'to': return self.reply(302, b'', {'Location': arg})
        if isinstance(b, str): return self.reply(302, b'', {'Location': b})
        if isinstance(b, dict): return self.reply(200, json.dumps(b).encode(), {'Content-Type': 'application/json'})
        if b is None: return self.reply(404, b'no')
        self.file(b, kind, arg)

    def file(self, b, kind, arg):
        "A file, from where it is asked for, with what goes wrong on the way"
        s, h = self.server, {'ETag': f'"{hashlib.md5(b).hexdigest()}"', 'Accept-Ranges': 'bytes', 'x-goog-hash': 'md5='+base64.b64encode(hashlib.md5(b).digest()).decode()}
        m = re.match(r'bytes=(\d+)-', self.headers.get('Range') or '')
        if m and (kind == 'whole' or self.headers.get('If-Range', h['ETag']) != h['ETag']): m = None
        start = int(m[1]) if m else 0
        if m and start >= len(b): return self.reply(416, b'', {'Content-Range': f'bytes */{len(b)}'})
        if m: h['Content-Range'] = f'bytes {start+(kind=="shift")}-{len(b)-1}/{len(b)}'
        rest = b[start:]
        if kind == 'drip': return self.drip(206 if m else 200, rest, h)
        if kind == 'stall': self.reply(206 if m else 200, rest, h, 40_000); s.stop.wait(5); return
        if kind == 'gzip': return self.reply(200, gzip.compress(rest), h | {'Content-Encoding': 'gzip'})
        self.reply(206 if m else 200, rest, h, int(arg or 40_000) if kind == 'cut' else None)

    def drip(self, code, b, h):
        "A little at a time, for as long as anybody listens"
        self.send_response(code)
        for k, v in (h | {'Content-Length': len(b)}).items(): self.send_header(k, str(v))
        self.end_headers()
        try:
            for i in range(0, len(b), 20_000): self.wfile.write(b[i:i+20_000]); time.sleep(.05)
        except OSError: self.close_connection = True

class Server(ThreadingHTTPServer):
    daemon_threads = True
    def __init__(self):
        super().__init__(('127.0.0.1', 0), Handler)
        self.files, self.faults, self.log, self.stop = {}, defaultdict(list), [], threading.Event()
        self.url = f'http://127.0.0.1:{self.server_port}'
        threading.Thread(target=self.serve_forever, daemon=True).start()
    def handle_error(self, request, client_address): pass
    def ranges(self, path): return [r for p, r in self.log if p == path]

@pytest.fixture
def server():
    s = Server()
    yield s
    s.stop.set()
    s.shutdown()
    s.server_close()

@pytest.fixture(autouse=True)
def waits(monkeypatch):
    "Nobody waits; how long it would have been"
    res = []
    monkeypatch.setattr(dl, '_sleep', res.append)
    return res

def picture(seed, size=(96, 80), fmt='JPEG'):
    "The bytes of a picture of noise"
    f = io.BytesIO()
    Image.frombytes('RGB', size, hashlib.shake_256(str(seed).encode()).digest(3*size[0]*size[1])).save(f, fmt)
    return f.getvalue()

def zipped(names, **extra):
    "A zip of pictures of these names, and of other members"
    f = io.BytesIO()
    with zipfile.ZipFile(f, 'w') as z:
        for o in names: z.writestr(o, picture(o))
        for k, v in extra.items(): z.writestr(k, v)
    return f.getvalue()

def tarred(names):
    f = io.BytesIO()
    with tarfile.open(fileobj=f, mode='w:gz') as t:
        for o in names:
            info, b = tarfile.TarInfo(o), picture(o)
            info.size = len(b)
            t.addfile(info, io.BytesIO(b))
    return f.getvalue()

def found(root): return [o.relative_to(root).as_posix() for o in image_files(root)]
def quiet(*args, **kw): return get_source(*args, progress=False, say=lambda s: None, **kw)
def leftovers(root): return [o.name for o in Path(root).rglob('*') if '.part' in o.name or o.name == collect.TMP]

def killed(code, enough, env=None, timeout=60):
    "Run Python `code` in a process of its own and kill it as soon as `enough()` is true"
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, **(env or {})})
    t = time.time()
    while not enough():
        assert p.poll() is None, p.stdout.read().decode()
        assert time.time()-t < timeout, 'it did not come so far'
        time.sleep(.005)
    p.send_signal(signal.SIGKILL)
    p.wait()

def size(fn): return fn.stat().st_size if fn.exists() else 0

# one file

big = hashlib.shake_256(b'big').digest(300_000)

@pytest.mark.parametrize('faults', [['cut'], ['cut', 'cut', 'cut'], ['status:503', 'cut', 'status:500'], ['busy:3'], ['reset', 'cut'], ['stall'], ['cut', 'whole'], ['cut', 'shift'], ['gzip']])
def test_download_gets_through(server, tmp_path, faults):
    server.files['/big.bin'] = big
    server.faults['/big.bin'] = list(faults)
    fn = download(f'{server.url}/big.bin', tmp_path/'big.bin', progress=False, timeout=(5, .5))
    assert fn.read_bytes() == big and leftovers(tmp_path) == []
    assert all(o is None or int(o[6:-1]) > 0 for o in server.ranges('/big.bin'))

def test_download_goes_on_and_does_not_start_anew(server, tmp_path):
    server.files['/big.bin'] = big
    server.faults['/big.bin'] = ['cut:200000']
    download(f'{server.url}/big.bin', tmp_path/'big.bin', progress=False)
    first, second = server.ranges('/big.bin')
    assert first is None and 150_000 < int(second[6:-1]) <= 200_000

def test_download_waits_as_long_as_it_is_asked(server, tmp_path, waits):
    server.files['/a.bin'] = b'abc'
    server.faults['/a.bin'] = ['busy:17', 'status:503', 'busy:0']
    download(f'{server.url}/a.bin', tmp_path/'a.bin', progress=False)
    assert waits == [17, 4, 0]

@pytest.mark.parametrize('fault,says', [('busy:7200', 'is busy and asks to come back in 120 minutes'), ('page', 'sent a web page in place of a.zip'), ('status:403', 'wants a login'),
    ('status:404', 'does not have /a.zip any more'), ('status:451', 'status 451'), ('to:/a.zip', 'round in circles'), ('to:file:///etc/passwd', 'cannot be used'), ('status:503', 'answers with status 503')])
def test_download_gives_up_with_a_sentence(server, tmp_path, fault, says):
    server.files['/a.zip'] = big
    server.faults['/a.zip'] = [fault]*30
    with pytest.raises(CollectError, match=re.escape(says)): download(f'{server.url}/a.zip', tmp_path/'a.zip', progress=False)
    assert list(tmp_path.iterdir()) == []

def test_a_server_without_ranges_that_always_breaks_off(server, tmp_path):
    server.files['/a.bin'] = big
    server.faults['/a.bin'] = [f'cut:{n}' for n in (90_000, 40_000, 120_000)] + ['reset']*40
    with pytest.raises(CollectError, match='broke off'): download(f'{server.url}/a.bin', tmp_path/'a.bin', progress=False)
    assert len(server.log) < 12
    server.faults.pop('/a.bin')
    assert download(f'{server.url}/a.bin', tmp_path/'a.bin', progress=False).read_bytes() == big

def test_no_network(tmp_path, waits):
    with pytest.raises(CollectError, match=r'127.0.0.1 cannot be reached \(is there a network\?\)'): download('http://127.0.0.1:9/a.zip', tmp_path/'a.zip', progress=False)
    assert len(waits) < 2

def test_another_version_is_not_mixed_in(server, tmp_path):
    server.files['/a.bin'] = big
    server.faults['/a.bin'] = ['cut:200000'] + ['status:404']
    with pytest.raises(CollectError): download(f'{server.url}/a.bin', tmp_path/'a.bin', progress=False)
    assert size(tmp_path/'a.bin.part') > 100_000
    server.files['/a.bin'] = new = big[::-1]
    assert download(f'{server.url}/a.bin', tmp_path/'a.bin', progress=False).read_bytes() == new

def test_a_part_that_is_whole_or_too_long(server, tmp_path):
    server.files['/a.bin'] = big
    sha = hashlib.sha256(big).hexdigest()
    for extra in (b'', b'more'):
        (tmp_path/'a.bin.part').write_bytes(big+extra)
        assert download(f'{server.url}/a.bin', tmp_path/'a.bin', sha, progress=False).read_bytes() == big
        (tmp_path/'a.bin').unlink()

def test_wrong_hash_and_damaged_file_of_before(server, tmp_path):
    server.files['/a.bin'] = big
    with pytest.raises(CollectError, match='SHA-256 differs'): download(f'{server.url}/a.bin', tmp_path/'a.bin', '0'*64, progress=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path/'a.bin').write_bytes(b'damaged')
    assert download(f'{server.url}/a.bin', tmp_path/'a.bin', hashlib.sha256(big).hexdigest(), progress=False).read_bytes() == big

def test_full_disk(server, tmp_path, monkeypatch):
    server.files['/a.bin'] = big
    def full(*args): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(dl, '_pour', full)
    with pytest.raises(CollectError, match='the disk is full: make room'): download(f'{server.url}/a.bin', tmp_path/'a.bin', progress=False)

def test_killed_download_is_taken_up(server, tmp_path):
    server.files['/big.bin'] = b = big*4
    server.faults['/big.bin'] = ['drip']
    fn = tmp_path/'big.bin'
    killed(f'from gender_classifier.download import download; download({server.url+"/big.bin"!r}, {str(fn)!r}, progress=False)', lambda: size(tmp_path/'big.bin.part') > 200_000)
    assert not fn.exists()
    assert download(f'{server.url}/big.bin', fn, progress=False).read_bytes() == b
    assert int(server.ranges('/big.bin')[1][6:-1]) > 150_000

# archives and folders

def test_zip_with_traps(tmp_path):
    f = io.BytesIO()
    with zipfile.ZipFile(f, 'w', zipfile.ZIP_DEFLATED) as z:
        for o in ('male/a.jpg', 'Female Faces/b.JPG', '../evil.jpg', '/abs.jpg', 'C:/dos.jpg', 'male/../../up.jpg', '..\\win.jpg', 'male/con.jpg', '__MACOSX/male/._a.jpg', 'male/.DS_Store'): z.writestr(o, picture(o))
        z.writestr('male/bomb.png', bytes(40*2**20))
        z.writestr('male/huge.png', b'\x89PNG'+os.urandom(10))
        z.writestr('male/inner.zip', zipped(['x.jpg']))
        z.writestr('male/page.jpg', '<html>sign in</html>')
        link = zipfile.ZipInfo('male/link.jpg')
        link.external_attr = 0o120777 << 16
        z.writestr(link, '/etc/passwd')
        z.writestr('male/damaged.jpg', picture('d'))
    b = bytearray(f.getvalue())
    i = b.index(b'male/damaged.jpg')+300
    b[i] ^= 255
    (tmp_path/'in').mkdir()
    (tmp_path/'in/a.zip').write_bytes(b)
    got = quiet(tmp_path/'in/a.zip', tmp_path/'out')
    assert found(tmp_path/'out') == ['female/b.JPG', 'male/_con.jpg', 'male/a.jpg']
    why = dict(got.bad.values)
    assert [why[o] for o in ('../evil.jpg', '/abs.jpg', 'C:/dos.jpg', 'male/../../up.jpg', '..\\win.jpg')] == ['its name leads out of the folder']*5
    assert why['male/bomb.png'] == 'it unpacks to hundreds of times its size' and why['male/link.jpg'] == 'it is a link'
    assert why['male/inner.zip'].startswith('it is an archive inside') and why['male/page.jpg'] == 'it is a web page' and 'damaged' in why['male/damaged.jpg']
    assert sorted(o.name for o in tmp_path.iterdir()) == ['in', 'out']

def test_tar_with_traps(tmp_path):
    with tarfile.open(tmp_path/'a.tar.gz', 'w:gz') as t:
        for o in ('male/a.jpg', 'female/b.jpg', '../evil.jpg', '/abs.jpg'):
            info, b = tarfile.TarInfo(o), picture(o)
            info.size = len(b)
            t.addfile(info, io.BytesIO(b))
        for kind, o in ((tarfile.SYMTYPE, 'male/sym.jpg'), (tarfile.LNKTYPE, 'male/hard.jpg'), (tarfile.CHRTYPE, 'male/dev.jpg'), (tarfile.FIFOTYPE, 'male/fifo.jpg')):
            info = tarfile.TarInfo(o)
            info.type, info.linkname = kind, '/etc/passwd'
            t.addfile(info)
    got = quiet(tmp_path/'a.tar.gz', tmp_path/'out')
    assert found(tmp_path/'out') == ['female/b.jpg', 'male/a.jpg']
    assert len(got.bad) == 6 and sorted(o.name for o in tmp_path.iterdir()) == ['a.tar.gz', 'out']

@pytest.mark.parametrize('make,suffix', [(zipped, '.zip'), (tarred, '.tar.gz')])
def test_archive_cut_short(tmp_path, make, suffix):
    b = make([f'male/{i}.jpg' for i in range(20)])
    fn = tmp_path/f'a{suffix}'
    fn.write_bytes(b[:len(b)//2])
    with pytest.raises(CollectError, match='cut short'): quiet(fn, tmp_path/'out')
    fn.write_bytes(b)
    got = quiet(fn, tmp_path/'out')
    assert len(found(tmp_path/'out')) == 20 and got.new+got.had == 20

def test_more_than_the_disk_holds(tmp_path, monkeypatch):
    (tmp_path/'a.zip').write_bytes(zipped(['male/a.jpg']))
    monkeypatch.setattr(collect.shutil, 'disk_usage', lambda o: type('', (), dict(free=10))())
    with pytest.raises(CollectError, match='make room'): quiet(tmp_path/'a.zip', tmp_path/'out')

def test_what_a_browser_leaves(tmp_path):
    d = tmp_path/'Downloads'
    (d/'page_files').mkdir(parents=True)
    for i in range(4): (d/f'images{f" ({i})" if i else ""}.jpg').write_bytes(picture(i))
    (d/'z.jpg').write_bytes(picture(0))
    (d/'download').write_bytes(picture('webp', fmt='WEBP'))
    (d/'photo.jpg_large').write_bytes(picture('large'))
    (d/'page_files/icon.png').write_bytes(picture('icon', (16, 16), 'PNG'))
    (d/'page_files/jquery.js').write_text('void 0')
    (d/'page.html').write_text('<html>')
    (d/'notes.txt').write_text('mine')
    (d/'late.jpg.crdownload').write_bytes(b'\xff\xd8')
    (d/'desktop.ini').write_text('x')
    before = {o: o.read_bytes() for o in d.rglob('*') if o.is_file()}
    with pytest.raises(CollectError, match='nothing tells what the pictures in .* show: give the label male, female or neither'): quiet(d, tmp_path/'out')
    got = quiet(d, tmp_path/'out', label='men')
    assert found(tmp_path/'out') == sorted(f'male/{o}' for o in ('images.jpg', 'images (1).jpg', 'images (2).jpg', 'images (3).jpg', 'download.webp', 'photo.jpg_large.jpg'))
    assert sorted(got.bad.reason) == sorted(['the same picture was taken before', 'it is only 16x16 pixels', *['its suffix is not that of a picture']*3, 'its download did not end'])
    assert {o: o.read_bytes() for o in d.rglob('*') if o.is_file()} == before
    quiet(d, tmp_path/'out', label='female')
    assert len(found(tmp_path/'out')) == 6 # a picture has one label

def test_folder_of_a_known_form_twice_and_removed_ones_stay_away(tmp_path):
    d = tmp_path/'faces'
    d.mkdir()
    for i in range(12): (d/f'{20+i}_{i%2}_0_2017010917023{i:02d}.jpg.chip.jpg').write_bytes(picture(i))
    out = tmp_path/'out'
    assert quiet(d, out).new == 12
    assert ingest(out).df.labels.value_counts().to_dict() == dict(male=6, female=6)
    os.unlink(out/found(out)[0])
    got = quiet(d, out)
    assert (got.new, got.had, len(found(out))) == (0, 12, 11)
    assert quiet(d, out, force=True) and len(found(out)) == 12
    e, = read_sources(out)
    assert e['complete'] and e['pictures'] == 12 and str(tmp_path) not in e['title']

def test_the_same_name_with_other_content(tmp_path):
    for i, names in enumerate((['male/1.jpg', 'male/2.jpg'], ['male/1.jpg', 'male/3.jpg'])):
        f = io.BytesIO()
        with zipfile.ZipFile(f, 'w') as z:
            for o in names: z.writestr(o, picture(f'{i}{o}'))
        (tmp_path/'images.zip').write_bytes(f.getvalue())
        assert quiet(tmp_path/'images.zip', tmp_path/'out').new == 2
    assert len(found(tmp_path/'out')) == 4
    d = tmp_path/'in/male'
    d.mkdir(parents=True)
    for seed, new in (('a', 1), ('b', 1), ('b', 0)):
        (d/'x.jpg').write_bytes(picture(seed))
        assert quiet(tmp_path/'in', tmp_path/'out2').new == new

def test_two_data_sets_with_one_state(tmp_path):
    (tmp_path/'in/male').mkdir(parents=True)
    (tmp_path/'in/male/a.jpg').write_bytes(picture(1))
    for o in 'ab': assert quiet(tmp_path/'in', tmp_path/o, state=tmp_path/'state').new == 1

def test_what_lies_beside_the_state_stays(server, tmp_path):
    server.files['/a.zip'] = zipped(['male/a.jpg'])
    (tmp_path/'out/.gender_classifier/download').mkdir(parents=True)
    (tmp_path/'out/.gender_classifier/download/mine.txt').write_text('mine')
    quiet(f'{server.url}/a.zip', tmp_path/'out')
    assert (tmp_path/'out/.gender_classifier/download/mine.txt').exists()

def test_damaged_lzma(tmp_path):
    f = io.BytesIO()
    with zipfile.ZipFile(f, 'w', zipfile.ZIP_LZMA) as z:
        for o in ('male/a.jpg', 'male/b.jpg'): z.writestr(o, picture(o))
    b = bytearray(f.getvalue())
    b[600:1200] = bytes(600)
    (tmp_path/'a.zip').write_bytes(b)
    got = quiet(tmp_path/'a.zip', tmp_path/'out')
    assert found(tmp_path/'out') == ['male/b.jpg'] and 'damaged' in got.bad.reason[0]
    f = io.BytesIO()
    with tarfile.open(fileobj=f, mode='w:xz') as t:
        for i in range(9):
            info, p = tarfile.TarInfo(f'male/{i}.jpg'), picture(i, (300, 300))
            info.size = len(p)
            t.addfile(info, io.BytesIO(p))
    b = bytearray(f.getvalue())
    b[len(b)//2:len(b)//2+2000] = os.urandom(2000)
    (tmp_path/'a.tar.xz').write_bytes(b)
    with pytest.raises(CollectError, match='cut short or is damaged'): quiet(tmp_path/'a.tar.xz', tmp_path/'out')

def test_long_names(tmp_path):
    names = [f'male/{c*n}.jpg' for c, n in (('a', 240), ('\u5f71', 80), ('\u5f71', 79))]
    (tmp_path/'a.zip').write_bytes(zipped([f'{o[:-4]}{"x"*60}.jpg' for o in names]))
    assert quiet(tmp_path/'a.zip', tmp_path/'out').new == 3 and len(found(tmp_path/'out')) == 3

def test_names_that_are_no_utf8(tmp_path):
    d = tmp_path/'in'/'male'
    d.mkdir(parents=True)
    for o in (b'\xff\xe9.jpg', 'e\u0301t\u00e9 \U0001f600.jpg'.encode()):
        try: (d/os.fsdecode(o)).write_bytes(picture(o))
        except OSError: pytest.skip('this file system takes no such names')
    for new in (2, 0): assert quiet(tmp_path/'in', tmp_path/'out').new == new
    assert [o.encode().decode() for o in found(tmp_path/'out')] == ['male/__.jpg', 'male/\u00e9t\u00e9 \U0001f600.jpg']

def test_same_name_other_picture(tmp_path):
    for s in 'ab':
        (tmp_path/s).mkdir()
        (tmp_path/s/'images.jpg').write_bytes(picture(s))
        quiet(tmp_path/s, tmp_path/'out', label='neither')
    assert len(found(tmp_path/'out/neither')) == 2

def test_places_that_cannot_be(tmp_path):
    (tmp_path/'a').mkdir()
    (tmp_path/'file').write_text('x')
    with pytest.raises(CollectError, match='is in place already'): quiet(tmp_path/'a', tmp_path/'a')
    with pytest.raises(CollectError, match='cannot be written: Not a directory'): quiet(tmp_path/'a', tmp_path/'file/out', label='male')
    (tmp_path/'a/x.jpg').write_bytes(picture(1))
    quiet(tmp_path/'a', tmp_path/'out', label='male', state=tmp_path/'state')
    assert sorted(o.name for o in (tmp_path/'out').iterdir()) == ['male'] and read_sources(tmp_path/'out', tmp_path/'state')

def test_killed_while_copying(tmp_path):
    d, out = tmp_path/'in', tmp_path/'out'
    (d/'male').mkdir(parents=True)
    for i in range(400): (d/f'male/{i}.jpg').write_bytes(picture(i, (200, 200)))
    code = f'from gender_classifier.collect import get_source; get_source({str(d)!r}, {str(out)!r}, progress=False)'
    for n in (20, 120): killed(code, lambda: len(list((out/'male').glob('*.jpg'))) >= n if (out/'male').exists() else False)
    got = quiet(d, out)
    assert sorted(o.name for o in (out/'male').glob('*.jpg')) == sorted(o.name for o in (d/'male').iterdir())
    assert all((out/'male'/o.name).read_bytes() == o.read_bytes() for o in (d/'male').iterdir())
    assert got.had >= 100 and len(found(out)) == 400

@pytest.mark.parametrize('where,at', [('intake.put_file', 4), ('intake.Intake._log', 4), ('intake.os.replace', 7), ('collect.note_source', 2), ('collect.shutil.rmtree', 1)])
def test_killed_at_each_step(server, tmp_path, where, at):
    "The process ends when it comes to `where` for the time `at`; the next one gives what an undisturbed one does"
    server.files['/a.zip'] = zipped([f'{l}/{i}.jpg' for l in ('male', 'female') for i in range(4)])
    mod, _, name = where.partition('.')
    code = f'''
import os, operator
from gender_classifier import collect, {mod}
*path, last = {name!r}.split('.')
obj = operator.attrgetter('.'.join(path))({mod}) if path else {mod}
f, calls = getattr(obj, last), []
def stop(*args, **kw):
    calls.append(1)
    if len(calls) == {at}: os._exit(9)
    return f(*args, **kw)
setattr(obj, last, stop)
collect.get_source({server.url+"/a.zip"!r}, {str(tmp_path/"out")!r}, progress=False)'''
    p = subprocess.run([sys.executable, '-c', code], capture_output=True, timeout=60)
    assert p.returncode == 9, p.stderr.decode()
    quiet(f'{server.url}/a.zip', tmp_path/'out')
    quiet(f'{server.url}/a.zip', tmp_path/'whole')
    for o in found(tmp_path/'whole'): assert (tmp_path/'whole'/o).read_bytes() == (tmp_path/'out'/o).read_bytes()
    assert found(tmp_path/'out') == found(tmp_path/'whole') and leftovers(tmp_path) == []
    a, b = (read_sources(tmp_path/o)[0] for o in ('out', 'whole'))
    assert a | dict(time='') == b | dict(time='')

def test_two_at_once(tmp_path):
    (tmp_path/'a').mkdir()
    with alone(data_folder(tmp_path/'out')):
        with pytest.raises(CollectError, match='another run is bringing pictures'): quiet(tmp_path/'a', tmp_path/'out', label='male')

# an address

def test_archive_at_an_address(server, tmp_path):
    server.files['/my%20faces.zip'] = zipped([f'{l}/{i}.jpg' for l in ('man', 'woman') for i in range(5)])
    server.faults['/my%20faces.zip'] = ['to:/moved.zip', 'busy', 'cut:9000']
    server.files['/moved.zip'] = server.files['/my%20faces.zip']
    got = quiet(f'{server.url}/my%20faces.zip', tmp_path/'out')
    assert got.new == 10 and ingest(tmp_path/'out').df.labels.value_counts().to_dict() == dict(male=5, female=5)
    f, = read_sources(tmp_path/'out')[0]['files']
    assert f['sha256'] == hashlib.sha256(server.files['/moved.zip']).hexdigest()
    n = len(server.log)
    assert quiet(f'{server.url}/my%20faces.zip', tmp_path/'out').new == 0 and len(server.log) == n
    assert leftovers(tmp_path) == []

def test_not_one_picture(server, tmp_path):
    server.files['/a.zip'] = zipped([], **{'male/a.jpg': '<html>', 'male/b.pdf': 'x', 'female/c.jpg': '<html>'})
    for i in range(2):
        with pytest.raises(CollectError, match='no picture came from a file of 127.0.0.1: 3 files were left out, most because it is a web page'): quiet(f'{server.url}/a.zip', tmp_path/'out')
    (tmp_path/'empty').mkdir()
    with pytest.raises(CollectError, match='no picture came from the folder empty: there is none in it'): quiet(tmp_path/'empty', tmp_path/'out', label='male')

def test_default_folders():
    names = {o: str(collect._dest(collect.find_source(o), None)) for o in ('lfw', 'kaggle:a/some-faces', 'https://example.org/x/My%20Faces.tar.gz')}
    assert list(names.values()) == ['data/lfw', 'data/some-faces', 'data/my_faces']

# Hugging Face

def hub(server, repo, files, rev='main', sha='f'*40):
    "Let the server speak like the hub, which sends files from elsewhere"
    server.files[f'/api/datasets/{repo}/revision/{rev}'] = dict(id=repo, sha=sha, siblings=[
        dict(rfilename=k, size=len(b), blobId='0', lfs=dict(sha256=hashlib.sha256(b).hexdigest(), size=len(b), pointerSize=1)) for k, b in files.items()])
    for k, b in files.items():
        server.files[f'/datasets/{repo}/resolve/{sha}/{k}'] = f'/cdn/{k}'
        server.files[f'/cdn/{k}'] = b

UTK = [f'utk_faces_images/{20+i}_{i%2}_{i%5}_201701091702{i:04d}.jpg.chip.jpg' for i in range(60)]

@pytest.fixture
def on_hub(server, monkeypatch):
    pytest.importorskip('huggingface_hub')
    monkeypatch.setenv('HF_ENDPOINT', server.url)
    return server

def test_utkface(on_hub, tmp_path):
    hub(on_hub, *collect._UTK[:1], {'utk_faces_images.zip': zipped(UTK), 'utk_dataset_metadata.csv': b'a'}, rev=collect._UTK[1])
    on_hub.faults['/api/datasets/nlphuji/utk_faces/revision/'+collect._UTK[1]] = ['status:503', 'busy:2']
    on_hub.faults['/cdn/utk_faces_images.zip'] = ['cut:50000', 'busy:1', 'reset']
    said = []
    got = get_source('utkface', tmp_path/'utk', progress=False, say=said.append)
    assert 'non-commercial research only' in said[0] and said[1].startswith('downloading')
    df = ingest(tmp_path/'utk').df
    assert (got.new, len(df), df.age.max(), df.race.nunique()) == (60, 60, 79, 5)
    assert any(o for o in on_hub.ranges('/cdn/utk_faces_images.zip')) and leftovers(tmp_path) == []
    n = len(on_hub.log)
    again = get_source('utkface', tmp_path/'utk', progress=False, say=said.append)
    assert (again.new, again.had) == (0, 60) and len(on_hub.log) == n and 'already' in said[-1]

def test_utkface_killed_in_the_middle(on_hub, tmp_path):
    hub(on_hub, *collect._UTK[:1], {'utk_faces_images.zip': zipped(UTK)}, rev=collect._UTK[1])
    on_hub.faults['/cdn/utk_faces_images.zip'] = ['drip']
    out = tmp_path/'utk'
    code = f'from gender_classifier.collect import get_source; get_source("utkface", {str(out)!r}, progress=False)'
    killed(code, lambda: size(out/'.gender_classifier'/collect.TMP/'utk_faces_images.zip.part') > 60_000, dict(HF_ENDPOINT=on_hub.url))
    assert not read_sources(out)[0]['complete']
    got = quiet('utkface', out)
    assert got.new == 60 and int(on_hub.ranges('/cdn/utk_faces_images.zip')[1][6:-1]) >= 30_000

def test_what_came_is_not_what_was_listed(on_hub, tmp_path):
    hub(on_hub, *collect._UTK[:1], {'utk_faces_images.zip': zipped(UTK)}, rev=collect._UTK[1])
    on_hub.files['/cdn/utk_faces_images.zip'] = zipped(UTK[:-1])
    with pytest.raises(CollectError, match='SHA-256 differs'): quiet('utkface', tmp_path/'utk')
    assert found(tmp_path/'utk') == []

def parquet(n, first, names=True):
    "A part of FairFace"
    pa = pytest.importorskip('pyarrow')
    import pyarrow.parquet as pq
    t = pa.table(dict(image=[dict(bytes=picture(first+i), path=None) for i in range(n)], age=[(first+i)%9 for i in range(n)], gender=[i%2 for i in range(n)], race=[i%7 for i in range(n)],
        service_test=[False]*n))
    if names: t = t.replace_schema_metadata({'huggingface': json.dumps(dict(info=dict(features=dict(gender=dict(names=['Male', 'Female'], _type='ClassLabel')))))})
    f = io.BytesIO()
    pq.write_table(t, f)
    return f.getvalue()

def test_fairface(on_hub, tmp_path):
    files = {'0.25/train-00000-of-00002-a.parquet': parquet(30, 0), '0.25/train-00001-of-00002-b.parquet': parquet(20, 30, False), '0.25/validation-00000-of-00001-c.parquet': parquet(10, 50)}
    hub(on_hub, 'HuggingFaceM4/FairFace', files | {'1.25/train-00000-of-00004-d.parquet': b'x', 'README.md': b'x'})
    on_hub.faults['/cdn/0.25/train-00001-of-00002-b.parquet'] = ['cut:3000']
    got = quiet('fairface', tmp_path/'ff')
    df = ingest(tmp_path/'ff').df
    assert got.new == 60 and df.split.value_counts().to_dict() == dict(train=50, valid=10)
    assert set(df.labels) == {'male', 'female'} and df.race.nunique() == 7 and df.age.max() == 75
    assert not any('1.25' in p for p, _ in on_hub.log)

@pytest.mark.parametrize('status,says', [(401, 'hf auth login'), (403, 'hf auth login'), (404, 'hf auth login'), (500, 'answers with status 500')])
def test_hub_refuses(on_hub, tmp_path, status, says):
    on_hub.faults['/api/datasets/nlphuji/utk_faces/revision/'+collect._UTK[1]] = [f'status:{status}']*20
    with pytest.raises(CollectError, match=says) as e: quiet('utkface', tmp_path/'utk')
    assert 'By hand: get utk_faces_images.zip from' in str(e.value) and f'put it into {tmp_path/"utk"}' in str(e.value) and '\n' not in str(e.value)

# by hand

@pytest.mark.parametrize('name', ['fairface', 'utkface', 'lfw', 'celeba', 'kaggle:cashutosh/gender-classification-dataset'])
def test_without_a_network_it_says_what_to_fetch_and_where_to_put_it(tmp_path, monkeypatch, name):
    for o in ('huggingface_hub', 'kagglehub'): pytest.importorskip(o)
    monkeypatch.setenv('HF_ENDPOINT', 'http://127.0.0.1:9')
    monkeypatch.setattr(collect, '_LFW', collect._LFW._replace(url='http://127.0.0.1:9/lfw.tgz'))
    kaggle_at(monkeypatch, 'http://127.0.0.1:9')
    with pytest.raises(CollectError) as e: quiet(name, tmp_path/'out')
    s = str(e.value)
    assert 'cannot be reached (is there a network?). By hand: get ' in s and f'put it into {tmp_path/"out"}, and run this again.' in s and '\n' not in s and 'https://' in s

def test_archive_put_there_by_hand(tmp_path, monkeypatch):
    monkeypatch.setenv('HF_ENDPOINT', 'http://127.0.0.1:9')
    out = tmp_path/'utk'
    out.mkdir()
    (out/'utk_faces_images.zip').write_bytes(zipped(UTK))
    assert quiet('utkface', out).new == 60 and len(ingest(out).df) == 60
    assert quiet('utkface', out).new == 0

def test_another_archive_is_not_the_data_set(on_hub, tmp_path):
    hub(on_hub, *collect._UTK[:1], {'utk_faces_images.zip': zipped(UTK)}, rev=collect._UTK[1])
    (tmp_path/'utk').mkdir()
    (tmp_path/'utk/backup.zip').write_bytes(zipped(['male/a.jpg', 'notes/b.jpg']))
    said = []
    assert get_source('utkface', tmp_path/'utk', progress=False, say=said.append).new == 60
    assert 'backup.zip, which lies in' in said[1] and 'is passed over' in said[1]
    os.unlink(tmp_path/'utk'/found(tmp_path/'utk')[0])
    get_source('utkface', tmp_path/'utk', progress=False, say=said.append)
    assert '59 pictures (1 were removed since: --force, or force=True, brings them back); nothing was done' in said[-1]
    assert quiet('utkface', tmp_path/'utk', force=True) and len(found(tmp_path/'utk')) == 60

def test_a_folder_that_nobody_named_is_not_shared(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for o in 'ab': server.files[f'/{o}/images.zip'] = zipped([f'male/{o}.jpg'])
    assert quiet(f'{server.url}/a/images.zip').path == Path('data/images')
    with pytest.raises(CollectError, match='data/images holds a file of 127.0.0.1 already: name the folder'): quiet(f'{server.url}/b/images.zip')
    assert quiet(f'{server.url}/b/images.zip', 'data/images').new == 1

def test_an_address_with_more_than_the_disk_holds(server, tmp_path, monkeypatch):
    server.files['/a.zip'] = zipped(['male/a.jpg'])
    monkeypatch.setattr(dl.shutil, 'disk_usage', lambda o: type('', (), dict(free=10))())
    with pytest.raises(CollectError, match='10 bytes are free'): quiet(f'{server.url}/a.zip', tmp_path/'out')

def test_parquet_put_there_by_hand(tmp_path):
    out = tmp_path/'ff'
    out.mkdir()
    (out/'train-00000.parquet').write_bytes(parquet(10, 0))
    (out/'validation-00000.parquet').write_bytes(parquet(6, 10))
    assert quiet('fairface', out).new == 16 and len(ingest(out).df) == 16

def test_some_parquet_files_put_there_by_hand(tmp_path):
    "The set is complete when the last file has come, not before"
    out, said = tmp_path/'ff', []
    out.mkdir()
    def get(): return get_source('fairface', out, say=said.append, progress=False).new
    (out/'train-00000-of-00002-a.parquet').write_bytes(parquet(10, 0))
    assert get() == 10 and not read_sources(out)[0]['complete'] and '1 of 2 files train' in '\n'.join(said) and '0 of 1 files val' in '\n'.join(said)
    (out/'train-00001-of-00002-b.parquet').write_bytes(parquet(8, 10))
    (out/'validation-00000-of-00001-c.parquet').write_bytes(parquet(6, 20))
    assert get() == 14 and read_sources(out)[0]['complete'] and ingest(out).df.split.value_counts().to_dict() == dict(train=18, valid=6)

def test_lfw(server, tmp_path, monkeypatch):
    b = tarred([f'lfw_funneled/{w}_Example/{w}_Example_000{i}.jpg' for w in ('Ann', 'Bob', 'Cyd', 'Dan') for i in (1, 2)])
    server.files['/lfw.tgz'] = b
    server.faults['/lfw.tgz'] = ['cut:9000']
    monkeypatch.setattr(collect, '_LFW', collect._File('lfw-funneled.tgz', f'{server.url}/lfw.tgz', len(b), hashlib.sha256(b).hexdigest()))
    got = quiet('lfw', tmp_path/'lfw')
    assert got.new == 8 and 'fetch male_names.txt and female_names.txt from' in got.todo and got.todo in got.summary()
    for l, who in (('male', ('Bob', 'Dan')), ('female', ('Ann', 'Cyd'))): (tmp_path/f'lfw/{l}_names.txt').write_text('\n'.join(f'{w}_Example_000{i}.jpg' for w in who for i in (1, 2)))
    assert quiet('lfw', tmp_path/'lfw').todo == ''
    df = ingest(tmp_path/'lfw').df
    assert df.person.nunique() == 4 and df.labels.value_counts().to_dict() == dict(male=4, female=4)

# Kaggle

def kaggle_at(monkeypatch, url):
    "Let kagglehub ask `url`"
    env = pytest.importorskip('kagglesdk.kaggle_env')
    monkeypatch.setattr(env, '_env_to_endpoint', {o: url for o in env.KaggleEnv})
    monkeypatch.setenv('KAGGLE_API_ENVIRONMENT', 'QA')
    for o in ('KAGGLE_USERNAME', 'KAGGLE_KEY', 'KAGGLE_API_TOKEN'): monkeypatch.delenv(o, raising=False)

@pytest.fixture
def kaggle(server, monkeypatch):
    pytest.importorskip('kagglehub')
    kaggle_at(monkeypatch, server.url)
    s = '/api/v1/datasets.DatasetApiService/'
    server.files[s+'GetDataset'] = dict(id=1, currentVersionNumber=3)
    server.files[s+'DownloadDataset'] = '/storage/archive.zip'
    server.files['/storage/archive.zip'] = zipped([f'Male and Female face dataset/{l} Faces/{i}.jpg' for l in ('Male', 'Female') for i in range(20)])
    return server

def test_kaggle(kaggle, tmp_path):
    kaggle.faults['/storage/archive.zip'] = ['cut:60000', 'status:503']
    got = quiet('kaggle:ashwingupta3012/male-and-female-faces-dataset', tmp_path/'k')
    assert got.new == 40 and ingest(tmp_path/'k').df.labels.value_counts().to_dict() == dict(male=20, female=20)
    assert any(o for o in kaggle.ranges('/storage/archive.zip')), kaggle.log
    assert leftovers(tmp_path) == [] and read_sources(tmp_path/'k')[0]['version'] == '3'
    n = len(kaggle.log)
    assert quiet('https://www.kaggle.com/datasets/ashwingupta3012/male-and-female-faces-dataset', tmp_path/'k').new == 0 and len(kaggle.log) == n

@pytest.mark.parametrize('fault', ['page', 'cut:60000'])
def test_kaggle_sends_rubbish_once(kaggle, tmp_path, fault):
    kaggle.faults['/storage/archive.zip'] = [fault]
    assert quiet('kaggle:a/b', tmp_path/'k').new == 40

@pytest.mark.parametrize('status,says', [(403, 'sign in: put your API token into'), (404, 'Kaggle does not have this data set'), (500, 'Kaggle answers with status 500')])
def test_kaggle_refuses(kaggle, tmp_path, status, says):
    kaggle.faults['/api/v1/datasets.DatasetApiService/GetDataset'] = [f'status:{status}']*20
    with pytest.raises(CollectError, match=says) as e: quiet('kaggle:a/b', tmp_path/'k')
    assert 'By hand: get the archive from https://www.kaggle.com/datasets/a/b' in str(e.value)

# a search

@pytest.fixture
def engine(server, monkeypatch):
    "Let `ddgs` find what is in `res`, pictures on the server"
    ddgs = pytest.importorskip('ddgs')
    class Engine:
        def __init__(self, **kw): pass
        def __enter__(self): return self
        def __exit__(self, *a): pass
        def images(self, query, max_results=None, **kw):
            self.asked.append(query)
            if self.faults: raise self.faults.pop(0)
            return [dict(title='', image=f'{server.url}/{o}', url='http://page.example', source='Bing') for o in self.res[query]]
    Engine.res, Engine.faults, Engine.asked = {}, [], []
    monkeypatch.setattr(ddgs, 'DDGS', Engine)
    monkeypatch.setattr(collect, 'ENGINES', [collect._ddgs])
    monkeypatch.setattr(collect, 'fetch_picture', lambda url, f=collect.fetch_picture: f(url, timeout=(2, .4)))
    return Engine

def shelf(server, name, n): server.files.update({f'/{name}{i}': picture(f'{name}{i}') for i in range(n)})

def test_search(server, engine, tmp_path):
    shelf(server, 'man', 12)
    shelf(server, 'woman', 12)
    server.files |= {'/page': b'<html>Sign in', '/tiny': picture('t', (30, 30)), '/half': picture('h')[:900], '/same': server.files['/man0'], '/text': b'hello'}
    server.faults['/man0'], server.faults['/man1'], server.faults['/man2'], server.faults['/man3'] = ['busy:1'], ['cut:500', 'reset'], ['stall'], ['to:/man1']
    server.faults['/dead'] = ['status:503']*50
    engine.res = dict(a=[f'man{i}' for i in range(5)]+['page', 'tiny', 'half', 'gone', 'text', 'dead'], b=[f'man{i}' for i in range(12)], c=['same', 'man4']+[f'woman{i}' for i in range(12)])
    engine.faults = [RuntimeError('202 Ratelimit')]
    terms = dict(male=['a', 'b'], female=['c'])
    got = quiet('search', tmp_path/'s', n=9, terms=terms)
    names = found(tmp_path/'s')
    assert (got.new, sum(o.startswith('male/') for o in names), sum(o.startswith('female/') for o in names)) == (18, 9, 9)
    why = {k.rsplit('/', 1)[1]: v for k, v in got.bad.values}
    assert why['page'] == 'it is a web page' and why['tiny'] == 'it is only 30x30 pixels' and 'status 404' in why['gone'] and why['same'] == 'the same picture was taken before'
    assert {o['query'] for o in read_sources(tmp_path/'s')[0]['queries']} == {'a', 'b', 'c'}
    n, asked = len(server.log), len(engine.asked)
    assert quiet('search', tmp_path/'s', n=9, terms=terms).new == 0
    assert (len(server.log), len(engine.asked), found(tmp_path/'s')) == (n, asked, names)

def test_search_brings_more_and_forgets_nothing(server, engine, tmp_path):
    shelf(server, 'man', 30)
    engine.res = dict(a=[f'man{i}' for i in range(30)])
    server.faults['/man0'] = ['status:404']*9
    quiet('search', tmp_path/'s', n=5, terms=dict(male=['a']))
    os.unlink(tmp_path/'s'/found(tmp_path/'s')[0])
    got = quiet('search', tmp_path/'s', n=12, terms=dict(male=['a']))
    assert got.new == 7 and len(found(tmp_path/'s')) == 11 and engine.asked == ['a']
    assert server.ranges('/man0') == [None] # what is gone is not asked for again

def test_the_same_words_for_more(server, engine, tmp_path):
    shelf(server, 'man', 90)
    engine.res = dict(a=[f'man{i}' for i in range(30)])
    quiet('search', tmp_path/'s', n=4, terms=dict(male='a'))
    engine.res = dict(a=[f'man{i}' for i in range(90)])
    assert quiet('search', tmp_path/'s', n=60, terms=dict(male='a')).new == 56 and len(engine.asked) == 2

def test_search_without_a_network(engine, tmp_path):
    engine.faults = [OSError('no route')]*20
    with pytest.raises(CollectError, match='By hand: a search in a browser, its pictures saved into a folder; then: gender_classifier data get FOLDER --label male') as e:
        quiet('search', tmp_path/'s', terms=dict(male=['a']))
    assert '\n' not in str(e.value)

def test_search_finds_too_few(server, engine, tmp_path):
    shelf(server, 'man', 3)
    engine.res, said = dict(a=['man0', 'man1', 'man2']), []
    get_source('search', tmp_path/'s', n=9, terms=dict(male=['a']), progress=False, say=said.append)
    assert 'the search gave 3 of 9 of male: run this again with other words for more' in said and not read_sources(tmp_path/'s')[0]['complete']

def test_search_killed_in_the_middle(server, engine, tmp_path):
    shelf(server, 'man', 60)
    out = tmp_path/'s'
    for i in range(60): server.faults[f'/man{i}'] = ['drip']
    code = f'''
from gender_classifier import collect
collect.ENGINES[:] = [lambda q,n: [({server.url!r}+f'/man{{i}}','') for i in range(60)]]
collect.get_source('search', {str(out)!r}, n=40, terms=dict(male=['a']), progress=False)'''
    killed(code, lambda: len(list(out.glob('male/*.jpg'))) >= 10)
    before = len(found(out))
    got = quiet('search', out, n=40, terms=dict(male=['a']))
    names = found(out)
    assert len(names) == 40 and len({(out/o).read_bytes() for o in names}) == 40 and got.new <= 40-before+1
    assert engine.asked == []

def test_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'kagglehub', None)
    with pytest.raises(CollectError, match='this needs kagglehub, which comes with this, in the project.s folder: pip install' ): quiet('kaggle:a/b', tmp_path/'k')
