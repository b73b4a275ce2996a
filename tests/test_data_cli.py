"The commands of `gender_classifier data` as a person or a script meets them, from a pile of pictures to a divided data set"
import csv, json, os, shutil, subprocess, sys
from functools import partial
from pathlib import Path
import pytest
from PIL import Image
for o in ('pandas', 'filelock', 'fastai', 'tqdm'): pytest.importorskip(o, reason=f'the package {o}, which data commands need, is not installed')
from gender_classifier.cli import main
from gender_classifier.core import sha256
from gender_classifier.synth import make_messy, synth_face, synth_faces

code = 'import sys; from gender_classifier.cli import main; sys.exit(main())'

@pytest.fixture
def call(call):
    "`gender_classifier data …`"
    return partial(call, 'data')

@pytest.fixture(scope='module')
def messy(tmp_path_factory):
    "A data set with planted problems, and the truth about it"
    path = tmp_path_factory.mktemp('data')/'messy'
    return path, make_messy(path, n=60, size=96)

@pytest.fixture
def mine(messy, tmp_path):
    "A copy of it that a test may change"
    shutil.copytree(messy[0], tmp_path/'mine', ignore=shutil.ignore_patterns('.gender_classifier'))
    return tmp_path/'mine'

def files(path): return {o.relative_to(path).as_posix(): (sha256(o), o.stat().st_mtime_ns) for o in path.rglob('*.*') if o.is_file() and '.gender_classifier' not in o.parts}

def names(truth, issue): return {Path(o).name for o in truth.fn[truth.issue == issue]}

def test_check_says_what_is_wrong(call, messy, tmp_path):
    path, truth = messy
    rc, out, err = call('check', path, '--json', tmp_path/'r.json', '--csv', tmp_path/'r.csv', '--html', tmp_path/'r.html')
    assert rc == 0, err
    found = {o['issue']: {Path(f['file']).name for f in o['files']} for o in json.loads((tmp_path/'r.json').read_text())['issues']}
    for o in ('unreadable', 'exact_duplicates', 'dark', 'tiny'): assert names(truth, o) <= found[o], o
    assert len(list(csv.DictReader(open(tmp_path/'r.csv')))) == len(truth)
    assert '<img' in (tmp_path/'r.html').read_text() and 'http://' not in (tmp_path/'r.html').read_text().replace('http://www.w3.org', '')
    assert 'Written' in out

def test_check_changes_nothing_but_its_folder(call, mine):
    before = files(mine)
    assert call('check', mine)[0] == 0
    assert files(mine) == before and (mine/'.gender_classifier').is_dir()

def test_state_elsewhere(call, mine, tmp_path):
    (tmp_path/'known').mkdir()
    assert call('check', mine, '--state', tmp_path/'known', '--remove', 'unreadable')[0] == 0
    rc, out, err = call('apply', mine, '--state', tmp_path/'known')
    assert rc == 0 and not (mine/'.gender_classifier').exists()
    assert call('undo', mine, '--state', tmp_path/'known')[0] == 0

def test_remove_apply_undo(call, mine, messy):
    truth, before = messy[1], files(mine)
    rc, out, err = call('check', mine, '--remove', 'unreadable', '--remove', 'exact_duplicates')
    assert rc == 0 and 'Nothing is moved yet' in out and files(mine) == before
    rc, out, err = call('apply', mine, '--dry-run')
    assert rc == 0 and 'remove' in out and files(mine) == before
    rc, out, err = call('apply', mine)
    gone = {Path(o).name for o in before}-{Path(o).name for o in files(mine)}
    assert rc == 0 and names(truth, 'unreadable') <= gone and len(gone) == len(names(truth, 'unreadable'))+len(names(truth, 'exact_duplicates'))
    assert 'removed' in call('history', mine)[1]
    assert call('undo', mine)[0] == 0
    assert files(mine) == before

def test_nothing_to_do_is_no_error(call, mine):
    before = files(mine)
    for args in (['apply', mine], ['undo', mine], ['undo', mine, '--all'], ['history', mine]): assert call(*args)[0] == 0, args
    assert files(mine) == before

def test_labels_are_used_by_what_comes_after(call, mine, messy, tmp_path):
    from gender_classifier.clean import Journal
    truth = messy[1]
    fn = mine/Path(truth.fn[(truth.split == 'train') & (truth.labels == 'male') & (truth.issue == '') & ~truth.fn.isin(truth.of)].iloc[0]).relative_to(messy[0])
    Journal(mine).relabel(str(fn), 'female')
    assert call('apply', mine)[0] == 0 and fn.exists()
    assert call('split', mine, '--csv', tmp_path/'s.csv')[0] == 0
    row = [o for o in csv.DictReader(open(tmp_path/'s.csv')) if o['fn'] == fn.relative_to(mine).as_posix()]
    assert len(row) == 1 and row[0]['labels'] == 'female'
    assert call('crop', mine, tmp_path/'crops', '--none', 'whole')[0] in (0, 1)
    assert list((tmp_path/'crops/train/female').glob(f'{fn.stem}-*'))

def test_get_twice_is_harmless(call, tmp_path):
    synth_faces(tmp_path/'down', 5, ['female'], size=64)
    for i in range(2):
        rc, out, err = call('get', tmp_path/'down/female', tmp_path/'mine', '--label', 'female')
        assert rc == 0 and len(list((tmp_path/'mine').rglob('*.jpg'))) == 5, out+err

def test_get_list_says_licence_and_terms(call):
    rc, out, err = call('get', '--list')
    assert rc == 0 and all(o in out for o in ('fairface', 'utkface', 'celeba', 'lfw', 'licence:', 'terms:'))

def test_test_set_stays(call, tmp_path):
    synth_faces(tmp_path/'d', 20, size=64)
    def test_set(): return {o['fn'] for o in csv.DictReader(open(tmp_path/'s.csv')) if o['split'] == 'test'}
    assert call('split', tmp_path/'d', '--csv', tmp_path/'s.csv')[0] == 0
    first = test_set()
    synth_faces(tmp_path/'more', 10, seed=5, size=64)
    for o in (tmp_path/'more').glob('*/*.jpg'): o.rename(tmp_path/'d'/o.parent.name/f'x_{o.name}')
    one = sorted(first)[0]
    Image.open(tmp_path/'d'/one).resize((56, 56)).save(tmp_path/'d/male/late_copy.jpg')
    rc, out, err = call('split', tmp_path/'d', '--csv', tmp_path/'s.csv')
    assert rc == 0 and test_set() == first and 'was there already' in out
    assert 'late_copy.jpg' in err and 'late_copy' not in (tmp_path/'s.csv').read_text()

def test_train_leaves_the_test_set_alone(tmp_path):
    from argparse import Namespace
    from gender_classifier.cli import _read_data
    synth_faces(tmp_path/'d', 20, size=64)
    assert main(['data', 'split', str(tmp_path/'d')]) == 0
    args = Namespace(data=[str(tmp_path/'d')], neither=[], size=64, cache=str(tmp_path/'c'), threads=1, valid=.2, seed=1, state=None)
    df = _read_data(args)
    known = json.loads((tmp_path/'d/.gender_classifier/test_set.json').read_text())['pictures']
    assert {Path(o).relative_to(tmp_path/'d').as_posix() for o in df.fn[df.split == 'test']} == set(known.values())

def test_train_leaves_out_copies_in_another_data_set(tmp_path, capsys):
    "A data set that names its parts, and one that does not: copies of a test picture are not trained on, those of a validation picture go with it"
    from argparse import Namespace
    from gender_classifier.cli import _read_data
    for i, o in enumerate(('train', 'valid', 'test')): synth_faces(tmp_path/'named'/o, 6, seed=100*i, size=64)
    synth_faces(tmp_path/'free', 10, seed=7000, size=64)
    one = {o: tmp_path/f'named/{o}/male/male_0000.jpg' for o in ('train', 'valid', 'test')}
    for o, fn in one.items(): shutil.copy(fn, tmp_path/f'free/male/of_{o}.jpg')
    shutil.copy(one['test'], tmp_path/'named/train/male/leak.jpg')
    args = Namespace(data=[str(tmp_path/'named'), str(tmp_path/'free')], neither=[], size=64, cache=str(tmp_path/'c'), threads=1, valid=.2, seed=1, state=None)
    df = _read_data(args)
    part = dict(zip(df.fn.map(lambda o: Path(o).name), df.split))
    assert [part[f'of_{o}.jpg'] for o in one] == ['train', 'valid', 'test'] and 'leak.jpg' not in part
    assert '2 training pictures that are copies' in capsys.readouterr().err
    assert set(df.split[df.source == 'free']) >= {'train', 'valid'}

def test_card_keeps_what_a_person_wrote(call, mine):
    assert call('card', mine, '--quick')[0] == 0
    text = (mine/'DATACARD.md').read_text()
    i = text.index('<!-- by hand: consent -->')+len('<!-- by hand: consent -->\n')
    (mine/'DATACARD.md').write_text(text[:i]+'Everybody was asked.\n'+text[i:])
    assert call('card', mine, '--quick')[0] == 0
    assert 'Everybody was asked.' in (mine/'DATACARD.md').read_text()
    (mine/'README.md').write_text('my own words')
    rc, out, err = call('card', mine, '--quick', '--out', mine/'README.md')
    assert rc == 2 and (mine/'README.md').read_text() == 'my own words'

def test_refusals(call, mine, tmp_path):
    (tmp_path/'empty').mkdir()
    for args, says in [(['check', tmp_path/'nowhere'], 'is not there'), (['check', tmp_path/'empty'], 'holds no pictures'), (['check', mine, '--html', 'x.txt'], 'does not end in .html'),
            (['check', mine, '--json', tmp_path/'no/r.json'], 'there is no folder'), (['undo', mine, '-n', '0'], 'less than 1'), (['crop', mine, mine/'faces'], 'give a folder elsewhere'),
            (['crop', mine, tmp_path/'f', '--many', 'all'], 'invalid choice'), (['split', mine, '--test', '.7', '--valid', '.4'], 'leave nothing to train on'),
            (['apply', tmp_path/'nowhere'], 'is not there'), (['get', tmp_path/'nowhere'], 'nowhere'), ([], 'required: COMMAND')]:
        rc, out, err = call(*args)
        assert rc == 2 and says in err, (args, err)

def test_read_only_says_what_to_do(call, mine, tmp_path):
    if os.getuid() == 0: pytest.skip('root may write anywhere')
    mine.chmod(0o500)
    try: rc, out, err = call('check', mine)
    finally: mine.chmod(0o700)
    assert rc == 2 and '--state' in err

def test_a_check_that_is_killed_goes_on(call, mine, monkeypatch):
    "Killed when some measures are written: the next run reads only the others, and finds what a run that was never stopped finds"
    from gender_classifier import quality
    c = f"""
import os
from gender_classifier import quality
from gender_classifier.cli import main
real = quality.Store.put
def put(self, *args):
    real(self, *args)
    os._exit(9)
quality.Store.put = put
quality._measure_all.__defaults__ = (4, 8)
main(['data', 'check', {str(mine)!r}])
"""
    assert subprocess.run([sys.executable, '-c', c], capture_output=True).returncode == 9
    read, real = [], quality.measure_one
    monkeypatch.setattr(quality, 'measure_one', lambda fn, *args: read.append(fn) or real(fn, *args))
    assert call('check', mine, '--json', mine.parent/'a.json')[0] == 0
    n = len(files(mine))
    assert 0 < len(read) < n
    shutil.rmtree(mine/'.gender_classifier')
    assert call('check', mine, '--json', mine.parent/'b.json')[0] == 0
    assert len(set(read)) == n
    a, b = (json.loads((mine.parent/f'{o}.json').read_text())['issues'] for o in 'ab')
    assert a == b

def test_a_folder_of_data_sets(call, tmp_path):
    "What was changed in one of them, and its test set, count when the folder above is trained on or checked; also with --state"
    from argparse import Namespace
    from gender_classifier.clean import Journal
    from gender_classifier.cli import _read_data
    synth_faces(tmp_path/'all/one', 15, size=64)
    synth_faces(tmp_path/'all/two', 5, seed=3, size=64)
    assert call('split', tmp_path/'all/one')[0] == 0
    gone, new = (str(tmp_path/f'all/one/male/male_000{i}.jpg') for i in range(2))
    Journal(tmp_path/'all/one').remove(gone)
    Journal(tmp_path/'all/one').relabel(new, 'female')
    assert call('apply', tmp_path/'all/one')[0] == 0
    known = {str(tmp_path/'all/one'/o) for o in json.loads((tmp_path/'all/one/.gender_classifier/test_set.json').read_text())['pictures'].values()}
    args = Namespace(data=[str(tmp_path/'all')], neither=[], size=64, cache=str(tmp_path/'c'), threads=1, valid=.2, seed=1, state=None)
    df = _read_data(args).set_index('fn')
    assert set(df.index[df.split == 'test']) == known-{gone} and df.labels[new] == 'female' and gone not in df.index
    rc, out, err = call('card', tmp_path/'all', '--quick')
    assert rc == 0 and '| removed | no reason given | 1 |' in (tmp_path/'all/DATACARD.md').read_text()
    rc, out, err = call('split', tmp_path/'all')
    assert rc == 2 and 'has a test set of its own' in err
    shutil.move(tmp_path/'all/one/.gender_classifier', tmp_path/'known')
    args.data, args.state = [str(tmp_path/'all/one')], str(tmp_path/'known')
    df = _read_data(args).set_index('fn')
    assert set(df.index[df.split == 'test']) == known-{gone} and df.labels[new] == 'female'

def test_crop_again_after_cleaning(call, mine, messy, tmp_path):
    "A picture with another label has one crop, a removed one none"
    from gender_classifier.clean import Journal
    truth = messy[1]
    a, b = (mine/Path(o).relative_to(messy[0]) for o in truth.fn[(truth.split == 'train') & (truth.labels == 'male') & (truth.issue == '')][:2])
    assert call('crop', mine, tmp_path/'c', '--none', 'whole')[0] in (0, 1)
    Journal(mine).relabel(str(a), 'female')
    Journal(mine).remove(str(b))
    assert call('apply', mine)[0] == 0
    rc, out, err = call('crop', mine, tmp_path/'c', '--none', 'whole')
    assert [o.parent.name for o in (tmp_path/'c').glob(f'*/*/{a.stem}-*')] == ['female'] and not list((tmp_path/'c').glob(f'*/*/{b.stem}-*'))

def test_crops_of_the_test_set_are_for_testing(call, tmp_path):
    "Drawn before the crops are cut, or between: training on the crops leaves them alone, and a copy that came late has none"
    from argparse import Namespace
    from gender_classifier.cli import _read_data
    synth_faces(tmp_path/'d', 20, size=64)
    assert call('crop', tmp_path/'d', tmp_path/'c', '--none', 'whole')[0] == 0
    assert call('split', tmp_path/'d')[0] == 0
    known = set(json.loads((tmp_path/'d/.gender_classifier/test_set.json').read_text())['pictures'].values())
    Image.open(tmp_path/'d'/sorted(known)[0]).resize((56, 56)).save(tmp_path/'d/male/late.jpg')
    rc, out, err = call('crop', tmp_path/'d', tmp_path/'c', '--none', 'whole')
    assert rc == 0 and 'late.jpg' in err and not list((tmp_path/'c').glob('**/late-*')), err
    assert {o.stem.rpartition('-')[0] for o in (tmp_path/'c/test').glob('*/*.jpg')} == {Path(o).stem for o in known}
    args = Namespace(data=[str(tmp_path/'c')], neither=[], size=64, cache=str(tmp_path/'cache'), threads=1, valid=.2, seed=1, state=None)
    df = _read_data(args)
    assert len(df) == 40 and set(df.split[df.fn.str.contains('/test/')]) == {'test'}
    assert call('split', tmp_path/'c', '--csv', tmp_path/'s.csv')[0] == 0
    assert {o['fn'] for o in csv.DictReader(open(tmp_path/'s.csv')) if o['split'] == 'test'} == {o.relative_to(tmp_path/'c').as_posix() for o in (tmp_path/'c/test').glob('*/*.jpg')}

def test_crop_says_what_it_left_out(call, tmp_path):
    "A folder that is no class, and crops that show little"
    synth_faces(tmp_path/'d', n=3, size=96)
    synth_faces(tmp_path/'d'/'several', n=1, size=96)
    rc, out, err = call('crop', tmp_path/'d', tmp_path/'c', '--none', 'whole', '--score', '.5')
    assert rc == 0 and "a folder 'several' is no class" in err, err
    assert call('crop', tmp_path/'d', tmp_path/'e', '--score', '1')[0] == 2
