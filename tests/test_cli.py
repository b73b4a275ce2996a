"The command line as a person or a script meets it: in a process of its own"
import argparse, csv, io, json, os, signal, subprocess, sys, time
import pytest
from PIL import Image
from surroundings import said
from gender_classifier.cli import parser
from gender_classifier.inference import Labeller, ModelError, default_model, synth_model

columns = 'file,face,x,y,w,h,decision,p_female,p_male,note'.split(',')
code = 'import sys; from gender_classifier.cli import main; sys.exit(main())'

@pytest.fixture(scope='module')
def model(tmp_path_factory):
    "A model that takes red for female and blue for male"
    pytest.importorskip('onnx', reason='the package onnx, which makes the small model of these tests, is not installed')
    return synth_model(tmp_path_factory.mktemp('model'))

@pytest.fixture
def photos(tmp_path):
    "A folder of four photos without a face, one in a folder below, and what is no photo"
    path = tmp_path/'photos'
    (path/'below').mkdir(parents=True)
    for name, c in dict(a_red='red', b_blue='blue', c_gray='gray').items(): Image.new('RGB', (90, 60), c).save(path/f'{name}.png')
    Image.new('RGB', (90, 60), 'blue').save(path/'below/d_blue.jpg')
    (path/'notes.txt').write_text('not a photo, and not called one')
    return path

def start(*args, **kwargs):
    "The command line with `args`, begun"
    return subprocess.Popen([sys.executable, '-c', code, *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **kwargs)

def run(*args, **kwargs):
    "Exit status, standard output and standard error"
    p = start(*args, **kwargs)
    out, err = p.communicate(timeout=900)
    out, err = out.decode('utf-8', 'surrogateescape'), said(err.decode())
    assert 'Traceback' not in out+err, out+err
    return p.returncode, out, err

def rows(s): return list(csv.DictReader(io.StringIO(s)))

def test_lines(model, photos):
    rc, out, err = run('label', photos, '--model', model)
    assert rc == 0, err
    assert [o.split()[:2] for o in out.splitlines()] == [[str(photos/'a_red.png'), 'female'], [str(photos/'b_blue.png'), 'male'],
        [str(photos/'below/d_blue.jpg'), 'male'], [str(photos/'c_gray.png'), 'neither']]
    assert err == '4 photos, 0 faces: 1 female, 2 male, 1 neither\n'

def test_an_older_detector_is_told_of(model, photos, tmp_path):
    p = start('label', photos/'a_red.png', '--model', model, env={**os.environ, 'GENDER_CLASSIFIER_YUNET': str(tmp_path/'nowhere.onnx')})
    out, err = p.communicate(timeout=120)
    assert p.returncode == 0 and b'female' in out and b'YuNet is not to be had' in err and b'Haar' in err

def test_csv_file_and_stdout(call, model, photos, tmp_path):
    rc, out, err = call('label', photos, '--csv', tmp_path/'labels.csv', '--model', model)
    assert (rc, out) == (0, '')
    text = (tmp_path/'labels.csv').read_text()
    assert text.splitlines()[0] == ','.join(columns)
    assert [(o['face'], o['x'], o['decision'], o['note']) for o in rows(text)] == [('1', '', d, 'no face found, the whole picture was looked at')
        for d in ('female', 'male', 'male', 'neither')]
    rc, out, err = call('label', photos, '--csv', '-', '--model', model)
    assert (rc, out, err) == (0, text, '')

def test_json(call, model, photos):
    rc, out, err = call('label', photos, '--json', '--model', model)
    d = json.loads(out)
    assert (rc, err, len(d)) == (0, '', 4)
    assert d[0] == dict(file=str(photos/'a_red.png'), size=[90, 60], error=None, faces=[dict(box=None, score=None, labels=['female'], decision='female',
        probs=d[0]['faces'][0]['probs'], note='no face found, the whole picture was looked at')])

def test_error_row_keeps_its_place(call, model, photos):
    (photos/'b2.jpg').write_text('hello')
    rc, out, err = call('label', photos/'c_gray.png', photos, photos/'nowhere.png', '--csv', '-', '--model', model)
    assert rc == 1
    r = rows(out)
    assert [o['decision'] for o in r] == ['neither', 'female', 'error', 'male', 'male', 'neither', 'error']
    assert r[2] == dict.fromkeys(columns, '') | dict(file=str(photos/'b2.jpg'), decision='error',
        note='b2.jpg is not a picture this program can read: its content is of no known picture format')
    assert 'there is no such file' in r[-1]['note']

def test_all_faces_of_a_real_photo(call, model, photo):
    rc, out, err = call('label', photo, '--json', '--model', model)
    (d,), w, h = json.loads(out), *Image.open(photo).size
    assert rc == 0 and d['size'] == [w, h] and len(d['faces']) == 1
    x, y, bw, bh = d['faces'][0]['box']
    assert 0 <= x < x+bw <= w and 0 <= y < y+bh <= h and .6 <= d['faces'][0]['score'] <= 1

def test_same_as_the_library(call, model, photos):
    d = json.loads(call('label', photos, '--json', '--model', model, '--threads', 3)[1])
    lbl = Labeller(model)
    assert [o['faces'][0]['probs'] for o in d] == [pytest.approx(lbl.label(o['file'])[0].probs, abs=1e-6) for o in d]

def test_exit_status_2(call, model, photos, tmp_path):
    for args, says in [(['label'], 'required: PATH'), ([], 'required: COMMAND'), (['dance'], 'invalid choice'), (['label', photos, '--score', 2], 'not between 0 and 1'),
            (['label', photos, '--threads', 0], 'less than 1'), (['label', photos, '--threads', 'x'], 'invalid number value'), (['label', photos, '--json', '--csv', 'x'], 'not allowed with'),
            (['label', tmp_path/'nowhere'], 'nothing to label'), (['label', photos, '--model', tmp_path/'nowhere'], 'There is no model at'),
            (['label', photos, '--detector', tmp_path/'nowhere', '--model', model], 'there is no face detector at'),
            (['label', photos, '--csv', tmp_path/'no/such.csv', '--model', model], 'cannot be written'), (['label', photos, '--csv', photos, '--model', model], 'cannot be written')]:
        rc, out, err = call(*args)
        assert (rc, out) == (2, '') and says in err, (args, err)

def test_a_photo_is_never_overwritten(model, photos):
    "--csv *.png, with the name of the CSV forgotten"
    before = (photos/'a_red.png').read_bytes()
    rc, out, err = run('label', '--csv', photos/'a_red.png', photos/'b_blue.png', '--model', model)
    assert rc == 2 and 'would overwrite a picture' in err
    assert (photos/'a_red.png').read_bytes() == before

def commands(p, *names):
    "The words of each command below a parser"
    for a in p._actions:
        for k, v in a.choices.items() if isinstance(a, argparse._SubParsersAction) else (): yield *names, k; yield from commands(v, *names, k)

def test_help_is_quick_and_complete(call):
    found = [(), *commands(parser())]
    assert ('quantize',) in found and ('data', 'check') in found
    for args in found:
        rc, out, err = call(*args, '--help')
        assert (rc, err) == (0, '') and ' '.join(['usage: gender_classifier', *args]) in out
    secs = []
    for _ in range(5):
        t = time.perf_counter()
        assert run('--help')[0] == 0
        secs.append(time.perf_counter()-t)
    assert min(secs) < .6  # 0.1 s where nothing else runs
    assert call('--version')[1].startswith('gender_classifier ')

def test_ctrl_c_is_quiet(model, photos):
    p = start('label', *['a_red.png']*50_000, '--model', model, cwd=photos)
    assert b'female' in p.stdout.readline()
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=20)
    assert (p.returncode, said(err.decode())) == (130, '')

def test_broken_pipe_is_quiet(model, photos):
    for how in ([], ['--csv', '-'], ['--json']):
        p = start('label', *['a_red.png']*20_000, '--model', model, *how, cwd=photos)
        assert p.stdout.readline()
        p.stdout.close()
        err = said(p.stderr.read().decode())
        assert (p.wait(20), err) == (141, ''), how

def test_odd_names(model, tmp_path):
    "A line break, a colour code, letters of many scripts, bytes that are no letters, a comma and a quote, a leading dash"
    names = ['a\nb.png', 'a\x1b[31mb.png', 'жена 女.png', os.fsdecode(b'a\xffb.png'), 'a,"b".png', '=1+1.png', '-x.png']
    for o in names: Image.new('RGB', (60, 60), 'red').save(tmp_path/o)
    rc, out, err = run('label', '--model', model, '--', *names, cwd=tmp_path)
    assert rc == 0 and len(out.splitlines()) == len(names) and '\x1b' not in out
    assert [o['file'] for o in rows(run('label', '--csv', '-', '--model', model, '--', *names, cwd=tmp_path)[1])] == names
    assert [o['file'] for o in json.loads(run('label', '--json', '--model', model, '--', *names, cwd=tmp_path)[1])] == names
    rc, out, err = run('label', '--model', model, '--', *names, cwd=tmp_path, env=os.environ | dict(PYTHONIOENCODING='ascii'))
    assert rc == 0 and len(out.splitlines()) == len(names)

def peak(*args):
    "Exit status and largest resident megabytes of a process with these arguments"
    if not os.path.exists('/proc/self/status'): pytest.skip('only Linux says how much memory a process took')
    code = ("import sys; from gender_classifier.cli import main; rc = main(sys.argv[1:]); "
            "print(rc, next(int(o.split()[1])/1024 for o in open('/proc/self/status') if o.startswith('VmHWM')))")
    out = subprocess.run([sys.executable, '-c', code, *map(str, args)], capture_output=True, text=True, check=True).stdout
    rc, mb = out.splitlines()[-1].split()
    return int(rc), float(mb)

def test_memory_is_flat(model, photos):
    "Seven times as many photos take no more memory"
    few, many = (peak('label', *[photos/'a_red.png']*n, '--csv', os.devnull, '--model', model) for n in (200, 1400))
    assert few[0] == many[0] == 0 and many[1] < few[1]+15

def test_doctor(call, model, tmp_path):
    rc, out, err = call('doctor', '--model', model)
    assert rc == 0 and 'its SHA-256 agrees' in out and 'PROBLEM' not in out
    for o in ('Python', 'processor', 'onnxruntime', 'voila', 'face detector', 'cache', 'labelling'): assert o in out
    rc, out, err = call('doctor', '--model', tmp_path/'nowhere.onnx')
    assert rc == 1 and 'PROBLEM: There is no model' in out
    rc, out, err = call('doctor', '--model', model, '--detector', tmp_path/'nowhere')
    assert rc == 1 and 'PROBLEM' in out

def test_default_model(photo):
    "The model that comes with the program finds a face, and is not of the opinion that it is none"
    try: default_model()
    except ModelError: pytest.skip('there is no model in models/ yet')
    rc, out, err = run('label', photo, '--csv', '-')
    (r,) = rows(out)
    assert rc == 0 and r['decision'] in ('female', 'male', 'unsure') and max(float(r['p_female']), float(r['p_male'])) > .3 and int(r['w']) > 50
    assert run('doctor')[0] == 0

def test_models_by_name(photo, monkeypatch):
    "A model that comes with the program goes by its name, on the command line and in the variable"
    monkeypatch.delenv('GENDER_CLASSIFIER_MODEL', raising=False)
    def p(*args): return [o['p_female'] for o in rows(run('label', photo, '--csv', '-', *args)[1])]
    large, small = p(), p('--model', 'small')
    assert large != small and p('--model', 'gender_small') == small and p('--model', 'default') == large
    monkeypatch.setenv('GENDER_CLASSIFIER_MODEL', 'small')
    assert p() == small and p('--model', 'gender_resnet18') == large
    rc, out, err = run('app', '--model', 'nowhere')
    assert rc == 2 and err.strip() == 'gender_classifier: There is no model at nowhere'

def test_crops_are_cut_as_training_cuts_them():
    "What the command says without loading anything is what the library does"
    from gender_classifier.cli import parser
    from gender_classifier.faces import MARGIN
    assert parser().parse_args(['data', 'crop', 'data', 'crops']).margin == MARGIN
