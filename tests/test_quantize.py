"The twin of a model in whole numbers: it answers as the model does, and is taken where it should be"
import json, random, shutil
from pathlib import Path
import numpy as np, pytest
from gender_classifier.core import image_files
from gender_classifier.inference import TWIN, Labeller, ModelError, default_model, fast_int8

@pytest.fixture(scope='module')
def shipped():
    "The .onnx of the shipped model, which has a twin"
    try: fn = default_model()
    except ModelError as e: pytest.skip(str(e))
    assert fn.with_suffix(TWIN).is_file(), 'the shipped model has lost its twin'
    return fn

@pytest.fixture
def own(shipped, tmp_path):
    "A copy of the shipped model, without its twin"
    for o in ('.onnx', '.json'): shutil.copy(shipped.with_suffix(o), tmp_path/f'mine{o}')
    d = json.loads((tmp_path/'mine.json').read_text())
    d['sha256'].pop(TWIN[1:])
    d.pop('int8')
    (tmp_path/'mine.json').write_text(json.dumps(d))
    return tmp_path/'mine.onnx'

@pytest.fixture(scope='module')
def faces(tmp_path_factory):
    "Drawn faces in a folder"
    from gender_classifier.synth import synth_faces
    path = tmp_path_factory.mktemp('faces')
    synth_faces(path, n=20, neither=4)
    return path

def answers(fn, fns, precision):
    "Decision, and female before male, of the first face of each photo"
    ps = [o.faces[0] for o in Labeller(fn, precision=precision).label_many(fns)]
    return np.array([p.decision for p in ps]), np.array([p.probs['female']>p.probs['male'] for p in ps])

def test_same_answers_on_real_pictures(shipped, shared_data):
    rng = random.Random(7)
    fns = [o for k, n in dict(utkface=200, celeba=80, lfw=80, not_a_face=40).items() for o in rng.sample(sorted(image_files(shared_data/k)), n)]
    (a, fa), (b, fb) = (answers(shipped, fns, o) for o in ('fp32', 'int8'))
    assert (a==b).mean() >= .98
    assert Labeller(shipped, precision='int8').precision == 'int8'
    assert (fa==fb)[(a!='neither')|(b!='neither')].mean() >= .99
    assert len(set(b)) > 2 # it is no twin that always says the same

def test_taken_where_it_gains(shipped):
    lbl = Labeller(shipped)
    assert lbl.precision == ('int8' if fast_int8() and lbl.device=='CPU' else 'fp32')
    assert Labeller(shipped, precision='fp32').precision == 'fp32'

def test_maps_are_of_the_same_place(shipped, photo):
    "The twin says where it looked, as its original does"
    crop = Labeller(shipped).label(photo, keep=True)[0].crop[None]
    a, b = (Labeller(shipped, precision=o).maps(crop) for o in ('fp32', 'int8'))
    assert a.shape == b.shape and not np.array_equal(a, b) and np.corrcoef(a.ravel(), b.ravel())[0, 1] > .95

def test_command(own, faces, call):
    rc, out, err = call('label', faces, '--model', own, '--precision', 'int8')
    assert rc == 2 and 'gender_classifier quantize' in err
    rc, out, err = call('quantize', own, faces, '--most', '.9')
    assert rc == 0 and 'mine.int8.onnx' in out, err
    assert own.with_suffix(TWIN).stat().st_size < .6*own.stat().st_size
    rc, out, err = call('label', faces, '--model', own, '--precision', 'int8', '--csv', '-')
    assert rc == 0 and len(out.splitlines()) > 40, err

def test_too_few_faces(own, faces, tmp_path, call):
    (tmp_path/'few').mkdir()
    for o in sorted(image_files(faces))[:5]: shutil.copy(o, tmp_path/'few')
    rc, out, err = call('quantize', own, tmp_path/'few')
    assert rc == 2 and 'at least 16 faces' in err
    for o in ('default', 'small', 'gender_resnet18'):
        rc, out, err = call('quantize', o, faces)
        assert rc == 2 and 'of your own' in err
    rc, out, err = call('quantize', own, tmp_path/'nowhere')
    assert rc == 2 and 'nowhere' in err
    assert not own.with_suffix(TWIN).exists()

def test_damaged_twin(shipped, faces, tmp_path, call):
    for o in ('.onnx', '.json', TWIN): shutil.copy(shipped.with_suffix(o), tmp_path/f'mine{o}')
    twin = tmp_path/f'mine{TWIN}'
    twin.write_bytes(twin.read_bytes()[:1000])
    one = next(iter(image_files(faces)))
    rc, out, err = call('label', one, '--model', tmp_path/'mine.onnx', '--precision', 'int8')
    assert rc == 2 and 'cut short' in err
    assert call('label', one, '--model', tmp_path/'mine.onnx', '--precision', 'fp32')[0] == 0
