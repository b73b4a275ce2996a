"What people feed a program: each gives a sentence and the right exit status, never a traceback, and never stops the others"
import io, json, os, pickle, struct
import numpy as np, pytest
from PIL import Image
from gender_classifier.core import PictureError
from gender_classifier.inference import Labeller, ModelError, synth_model
from gender_classifier.cli import check_model
from test_cli import model, peak, rows  # noqa: F401

def jpeg(img, **kwargs):
    "A picture as the bytes of a JPEG"
    f = io.BytesIO()
    img.save(f, 'JPEG', **kwargs)
    return f.getvalue()

def noise(*shape): return Image.fromarray(np.random.default_rng(42).integers(0, 255, shape, dtype=np.uint8))

def bomb(fn):
    "A PNG of 20,000 x 20,000 pixels of one colour"
    Image.new('1', (20000, 20000)).save(fn)

def icon(fn):
    "An icon whose one picture is the bomb, though it says 64 x 64"
    b = io.BytesIO()
    Image.new('1', (20000, 20000)).save(b, 'PNG')
    fn.write_bytes(struct.pack('<HHHBBBBHHII', 0, 1, 1, 64, 64, 0, 0, 1, 32, b.tell(), 22)+b.getvalue())

red = Image.new('RGB', (120, 80), 'red')

bad = {
    'empty.jpg':   (lambda fn: fn.write_bytes(b''), 'the file is empty'),
    'text.jpg':    (lambda fn: fn.write_text('hello, I am a text '*40), 'its content is of no known picture format'),
    'cut.jpg':     (lambda fn: fn.write_bytes(jpeg(noise(300, 300, 3))[:20000]), 'its data is damaged'),
    'header.jpg':  (lambda fn: fn.write_bytes(jpeg(noise(300, 300, 3))[:30]), 'is not a picture this program can read'),
    'cut.png':     (lambda fn: (noise(300, 300, 3).save(fn), fn.write_bytes(fn.read_bytes()[:20000])), 'its data is damaged'),
    'bomb.png':    (bomb, 'is too large: it has more than 100 million pixels'),
    'icon.png':    (icon, 'no known picture format'),
    'drawing.jpg': (lambda fn: red.save(fn, 'EPS'), 'no known picture format'),
    'zip.jpg':     (lambda fn: fn.write_bytes(b'PK\x03\x04'+bytes(500)), 'no known picture format'),
    'vector.jpg':  (lambda fn: fn.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'), 'no known picture format'),
    'fake.heic':   (lambda fn: fn.write_bytes(b'\0\0\0\x18ftypheic'+bytes(200)), 'is not a picture this program can read'),
    'nowhere.jpg': (lambda fn: None, 'there is no such file'),
}

@pytest.fixture(scope='module')
def bads(tmp_path_factory):
    "A folder of pictures that are none"
    path = tmp_path_factory.mktemp('bad')
    for name, (make, _) in bad.items(): make(path/name)
    return path

def heic(fn):
    import pillow_heif
    pillow_heif.from_pillow(red).save(fn)

def gif(fn): red.save(fn, save_all=True, append_images=[Image.new('RGB', (120, 80), 'blue')]*3, duration=50)
def deep(fn): Image.fromarray(np.full((80, 120), 65535, np.uint16)).save(fn)

good = {  # name: (how it is made, what the small model makes of it)
    'cmyk.jpg':    (lambda fn: red.convert('CMYK').save(fn), 'female'),
    'deep.png':    (deep, 'neither'),
    'deep.tif':    (deep, 'neither'),
    'anim.gif':    (gif, 'female'),
    'phone.heic':  (heic, 'female'),
    'palette.png': (lambda fn: red.convert('P').save(fn), 'female'),
    'alpha.png':   (lambda fn: red.convert('RGBA').save(fn), 'female'),
    'grey.jpg':    (lambda fn: red.convert('L').save(fn), 'neither'),
    'web.webp':    (lambda fn: red.save(fn), 'female'),
    'old.bmp':     (lambda fn: red.save(fn), 'female'),
    'scan.jp2':    (lambda fn: red.save(fn), 'female'),
    'raw.ppm':     (lambda fn: red.save(fn), 'female'),
    'UPPER.JPG':   (lambda fn: red.save(fn, 'JPEG'), 'female'),
    'png.jpg':     (lambda fn: red.save(fn, 'PNG'), 'female'),
    'pixel.png':   (lambda fn: red.resize((1, 1)).save(fn), 'female'),
    'strip.png':   (lambda fn: red.resize((3000, 2)).save(fn), 'female'),
}

@pytest.fixture(scope='module')
def goods(tmp_path_factory):
    "A folder of pictures of every kind"
    path = tmp_path_factory.mktemp('good')
    for name, (make, _) in good.items(): make(path/name)
    return path

@pytest.mark.parametrize('name', bad)
def test_bad_picture_in_the_library(name, model, bads):
    with pytest.raises(PictureError) as e: Labeller(model).label(bads/name)
    assert str(e.value).startswith(name) and bad[name][1] in str(e.value) and '\n' not in str(e.value)

def test_bad_pictures_on_the_command_line(call, model, bads, goods):
    "Between two good ones, each in its place"
    names = list(bad)
    rc, out, err = call('label', goods/'cmyk.jpg', *[bads/o for o in names], goods/'cmyk.jpg', '--csv', '-', '--model', model)
    r = rows(out)
    assert (rc, err) == (1, '')
    assert [o['decision'] for o in r] == ['female', *['error']*len(names), 'female']
    for name, o in zip(names, r[1:]): assert o['file'] == str(bads/name) and bad[name][1] in o['note'] and not (o['face'] or o['x'] or o['p_male'])
    rc, out, err = call('label', bads, '--model', model)
    assert rc == 1 and all(' error ' in o for o in out.splitlines()) and f'{len(names)-1} could not be labelled' in err
    assert all(o['error'] for o in json.loads(call('label', bads, '--json', '--model', model)[1]))

@pytest.mark.parametrize('name', ['bomb.png', 'icon.png'])
def test_bomb_takes_no_memory(name, model, bads):
    rc, mb = peak('label', bads/name, '--csv', os.devnull, '--model', model)
    assert rc == 1 and mb < 200

def test_every_kind_of_picture(call, model, goods):
    lbl = Labeller(model)
    assert {o: lbl.label(goods/o)[0].decision for o in good} == {o: d for o, (_, d) in good.items()}
    rc, out, err = call('label', goods, '--csv', '-', '--model', model)
    assert rc == 0 and {o['file'].split('/')[-1]: o['decision'] for o in rows(out)} == {o: d for o, (_, d) in good.items()}

@pytest.mark.parametrize('tag', range(1, 9))
def test_rotated_by_exif(tag, model, photo, tmp_path):
    "However the pixels lie, with its EXIF tag a photograph has the same face in the same place"
    from PIL.Image import Transpose as T
    img = Image.open(photo).convert('RGB')
    undo = {2: [T.FLIP_LEFT_RIGHT], 3: [T.ROTATE_180], 4: [T.FLIP_TOP_BOTTOM], 5: [T.TRANSPOSE], 6: [T.ROTATE_90], 7: [T.TRANSVERSE], 8: [T.ROTATE_270]}
    lying = img
    for o in undo.get(tag, []): lying = lying.transpose(o)
    exif = Image.Exif()
    exif[0x0112] = tag
    lying.save(tmp_path/'lying.png', exif=exif)
    (r,), (want,) = list(Labeller(model).label_many([tmp_path/'lying.png'])), Labeller(model).label(img)
    assert r.size == img.size and [o.box for o in r.faces] == [want.box] and r.faces[0].probs == pytest.approx(want.probs, abs=1e-6)

def test_folder_without_pictures(call, model, tmp_path):
    (tmp_path/'notes.txt').write_text('x')
    rc, out, err = call('label', tmp_path, '--csv', '-', '--model', model)
    (r,) = rows(out)
    assert rc == 1 and r['decision'] == 'error' and r['note'] == f'{tmp_path} holds no pictures'
    rc, out, err = call('label', tmp_path, '--model', model)
    assert rc == 1 and 'holds no pictures' in out

def test_folder_that_cannot_be_read(call, model, goods, tmp_path, monkeypatch):
    "It is no empty one, and what is beside it is labelled"
    (tmp_path/'locked').mkdir()
    (tmp_path/'red.jpg').write_bytes((goods/'UPPER.JPG').read_bytes())
    real = os.scandir
    def scandir(p='.'):
        if str(p).endswith('locked'): raise PermissionError(13, 'Permission denied', str(p))
        return real(p)
    monkeypatch.setattr(os, 'scandir', scandir)
    want = f'{tmp_path}/locked cannot be read: Permission denied'
    for path, decisions in ((tmp_path, ['female', 'error']), (tmp_path/'locked', ['error'])):
        rc, out, err = call('label', path, '--csv', '-', '--model', model)
        r = rows(out)
        assert rc == 1 and [o['decision'] for o in r] == decisions and (r[-1]['file'], r[-1]['note']) == (f'{tmp_path}/locked', want)

def test_path_that_is_not_there(call, model, goods, tmp_path):
    rc, out, err = call('label', tmp_path/'nowhere', '--model', model)
    assert (rc, out) == (2, '') and err == f'gender_classifier: nothing to label: {tmp_path}/nowhere cannot be read: there is no such file or folder\n'
    rc, out, err = call('label', tmp_path/'nowhere', goods/'cmyk.jpg', '--csv', '-', '--model', model)
    assert rc == 1 and [o['decision'] for o in rows(out)] == ['error', 'female']
    rc, out, err = call('label', tmp_path/('x'*300), '--model', model)
    assert rc == 2 and err.startswith('gender_classifier: nothing to label')

def harmed(tmp_path, onnx=None, **kwargs):
    "A copy of the small model with something wrong"
    fn = synth_model(tmp_path)
    d = json.loads(fn.with_suffix('.json').read_text()) | kwargs
    fn.with_suffix('.json').write_text(json.dumps(d))
    if onnx: fn.write_bytes(onnx(fn.read_bytes()))
    return fn

def no_json(fn): fn.with_suffix('.json').unlink(); return fn
def cut_json(fn): fn.with_suffix('.json').write_text('{"format": 1,'); return fn
def binary_json(fn): fn.with_suffix('.json').write_bytes(b'\xff\xfe\0\x80'*9); return fn

models = {
    'cut short':      (lambda p: harmed(p, lambda b: b[:len(b)//2]), 'was cut short or changed'),
    'empty':          (lambda p: harmed(p, lambda b: b[:0]), 'the file is empty'),
    'wrong hash':     (lambda p: harmed(p, sha256=dict(onnx='0'*64)), 'its SHA-256 is not the one'),
    'one byte':       (lambda p: harmed(p, lambda b: b[:-1]+bytes([b[-1]^1])), 'was cut short or changed'),
    'no hash':        (lambda p: harmed(p, sha256={}), 'does not say the SHA-256'),
    'no json':        (lambda p: no_json(harmed(p)), 'which belongs beside it, is missing'),
    'json cut short': (lambda p: cut_json(harmed(p)), 'it is damaged'),
    'json binary':    (lambda p: binary_json(harmed(p)), 'it is damaged'),
    'newer format':   (lambda p: harmed(p, format=9), 'reads format 1'),
    'other labels':   (lambda p: harmed(p, labels=['cat']), 'it lacks the threshold of a label'),
    'other size':     (lambda p: harmed(p, size=96), 'is not a model of this program'),
    'silly size':     (lambda p: harmed(p, size='large'), "its size is 'large'"),
    'silly detector': (lambda p: harmed(p, detector='yunet'), 'its detector is no table'),
    'silly score':    (lambda p: harmed(p, detector=dict(score='x')), "the score of its detector is 'x'"),
    'silly side':     (lambda p: harmed(p, detector=dict(max_side=0)), 'the max_side of its detector is 0'),
    'silly training': (lambda p: harmed(p, training=[]), 'its training is no table'),
    'a folder':       (lambda p: p, 'There is no model at'),
    'not there':      (lambda p: p/'nowhere.onnx', 'There is no model at'),
}

@pytest.mark.parametrize('name', models)
def test_bad_model(call, name, goods, tmp_path):
    pytest.importorskip('onnx')
    fn = models[name][0](tmp_path)
    with pytest.raises(ModelError, match=models[name][1]): Labeller(fn)
    rc, out, err = call('label', goods, '--model', fn)
    assert (rc, out) == (2, '') and models[name][1] in err and len(err.splitlines()) == 1
    (what, ok, said), = check_model(fn)
    assert (what, ok) == ('model', False) and models[name][1] in said

class Boobytrap:
    "Writes a file when it is unpickled"
    def __init__(self, fn): self.fn = fn
    def __reduce__(self): return open, (str(self.fn), 'w')

def test_pickle_from_a_stranger(call, goods, tmp_path):
    "It is refused, and above all not opened"
    for name in ('model.pkl', 'model.pth'):
        (tmp_path/name).write_bytes(pickle.dumps(Boobytrap(tmp_path/'sprung')))
        rc, out, err = call('label', goods, '--model', tmp_path/name)
        assert rc == 2 and 'it is a pickle' in err
        with pytest.raises(ModelError, match='pickle'): Labeller(tmp_path/name)
    (tmp_path/'model.onnx').write_bytes(pickle.dumps(Boobytrap(tmp_path/'sprung')))
    rc, out, err = call('label', goods, '--model', tmp_path/'model.onnx')
    assert rc == 2 and 'is missing' in err
    assert not (tmp_path/'sprung').exists()

def test_one_bad_upload_among_bytes(model):
    "What the page hands over has no file name"
    lbl = Labeller(model)
    rs = list(lbl.label_many([('a.jpg', jpeg(red)), ('b.jpg', b''), ('c.jpg', jpeg(red)[:200]), ('d.jpg', jpeg(red))]))
    assert [o.file for o in rs] == ['a.jpg', 'b.jpg', 'c.jpg', 'd.jpg']
    assert [bool(o.error) for o in rs] == [False, True, True, False] and all(o.error.startswith(o.file) for o in rs[1:3])

@pytest.mark.parametrize('junk', ['no such file', np.zeros((0, 5, 3), np.uint8), Image.new('RGB', (0, 7)), io.BytesIO(), b'x'])
def test_no_picture_at_all(junk, model):
    with pytest.raises(PictureError): Labeller(model).label(junk)
    (r,) = Labeller(model).label_many([junk])
    assert r.error and not r.faces

def test_a_mistake_of_the_caller_stays_with_its_item(model):
    rs = list(Labeller(model).label_many([red, None, object(), np.zeros((4, 4, 3)), red]))
    assert [bool(o.error) for o in rs] == [False, True, True, True, False]
