"What is measured of a data set survives being killed, is measured once, and finds what was planted"
import os, signal, sqlite3, subprocess, sys, time
from pathlib import Path
import numpy as np, pytest
from PIL import Image
pd = pytest.importorskip('pandas')
from gender_classifier import quality
from gender_classifier.copies import find_copies
from gender_classifier.core import STATE
from gender_classifier.ingest import ingest
from gender_classifier.quality import LOOKED_FOR, find_issues, measure
from gender_classifier.synth import synth_face, synth_faces, synth_messy

@pytest.fixture
def faces(tmp_path):
    synth_faces(tmp_path/'faces', 20, size=64)
    return tmp_path/'faces'

@pytest.fixture
def looked(monkeypatch):
    "Names of the files that are opened"
    seen, real = [], quality.measure_one
    monkeypatch.setattr(quality, 'measure_one', lambda fn, labeller=None: (seen.append(Path(fn).name), real(fn, labeller))[1])
    return seen

def same(a, b): pd.testing.assert_frame_equal(a, b, check_dtype=False)

SLOW = """import sys, time
from gender_classifier import quality
real = quality.measure_one
def slow(fn, labeller=None):
    print('.', end='', flush=True)
    time.sleep(.05)
    return real(fn, labeller)
quality.measure_one = slow
quality._measure_all.__defaults__ = (2, 4)
quality.measure(sys.argv[1], progress=False, faces=False, n_workers=2)"""

def test_killed_in_the_middle(faces, looked):
    p = subprocess.Popen([sys.executable, '-c', SLOW, str(faces)], stdout=subprocess.PIPE)
    while len(p.stdout.read(1)) and not p.poll():
        with sqlite3.connect(f'file:{faces/STATE/"measures.sqlite"}?mode=ro', uri=True) as db:
            if db.execute(f'SELECT COUNT(*) FROM {quality._TABLE}').fetchone()[0]>=8: break
    os.kill(p.pid, signal.SIGKILL)
    p.wait()
    m = measure(faces, progress=False, faces=False)
    assert len(m)==40 and (m.error=='').all()
    assert 0<len(looked)<=32, 'what was written before the kill is not measured again, the rest is'
    same(m, measure(faces, state=faces.parent/'afresh', progress=False, faces=False))

@pytest.mark.parametrize('seed', range(3))
def test_killed_at_any_moment(faces, seed):
    for i in range(3):
        p = subprocess.Popen([sys.executable, '-c', SLOW, str(faces)], stdout=subprocess.PIPE)
        p.stdout.read(np.random.default_rng((seed, i)).integers(1, 12))
        time.sleep(np.random.default_rng((seed, i, 1)).random()*.1)
        p.kill()
        p.wait()
    same(measure(faces, progress=False, faces=False), measure(faces, state=faces.parent/'afresh', progress=False, faces=False))

def test_only_what_is_new(faces, looked):
    first = measure(faces, progress=False, faces=False)
    assert len(looked)==40
    looked.clear()
    same(first, measure(faces, progress=False, faces=False))
    assert looked==[]
    synth_face('male', 7, 80).save(faces/'male/new.jpg')
    synth_face('male', 8, 80).save(faces/'male/male_0003.jpg')
    (faces/'male/male_0004.jpg').unlink()
    m = measure(faces, progress=False, faces=False)
    assert sorted(looked)==['male_0003.jpg', 'new.jpg'] and len(m)==40
    assert m.w[str(faces/'male/male_0003.jpg')]==80

def test_a_table_and_a_folder_share_what_is_known(faces, looked):
    measure(faces, progress=False, faces=False)
    looked.clear()
    df = ingest(faces).df.sample(frac=1, random_state=0)
    m = measure(df, root=faces, progress=False, faces=False)
    assert looked==[] and m.index.tolist()==df.fn.tolist()

def test_moved_folder(faces, looked):
    measure(faces, progress=False, faces=False)
    looked.clear()
    m = measure(faces.rename(faces.parent/'moved'), progress=False, faces=False)
    assert looked==[] and (m.error=='').all()

def test_faces_are_asked_for_later(faces, looked):
    sub = pd.DataFrame(dict(fn=sorted(map(str, faces.rglob('*.jpg')))[:3]))
    assert measure(sub, faces, progress=False, faces=False).n_faces.isna().all()
    looked.clear()
    assert measure(sub, faces, progress=False).n_faces.notna().all() and len(looked)==3
    looked.clear()
    assert measure(sub, faces, progress=False, faces=False).n_faces.notna().all() and looked==[]

@pytest.mark.parametrize('content', [b'', b'no database'*100, b'SQLite format 3\0'+b'x'*5000])
def test_damaged_store(faces, content):
    good = measure(faces, progress=False, faces=False)
    (faces/STATE/'measures.sqlite').write_bytes(content)
    same(good, measure(faces, progress=False, faces=False))

def test_two_at_once(faces):
    ps = [subprocess.Popen([sys.executable, '-c', SLOW, str(faces)], stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [p.wait() for p in ps]==[0, 0]
    assert len(measure(faces, progress=False, faces=False))==40

def test_every_difficult_file(tmp_path):
    files = synth_messy(tmp_path/'messy')
    m = measure(pd.DataFrame(dict(fn=[str(fn) for fn, _ in files.values()])), tmp_path/'messy', progress=False)
    assert ((m.error=='')==[ok for _, ok in files.values()]).all()
    issues = find_issues(pd.DataFrame(dict(fn=m.index, labels='female')), m)
    assert issues.df.is_unreadable_issue.tolist()==[not ok for _, ok in files.values()]
    assert set(issues.summary.issue)==set(LOOKED_FOR)

@pytest.mark.parametrize('n', [0, 1, 2])
def test_few_pictures(faces, n):
    df = ingest(faces).df.head(n)
    if n==0:
        with pytest.raises(ValueError, match='is the folder empty'): find_issues(df, root=faces)
    else:
        issues = find_issues(df, measure(df, faces, progress=False, faces=False))
        assert len(issues.df)==n and not len(issues.pairs)

def test_scores_and_flags(faces):
    df = ingest(faces).df
    issues = find_issues(df, measure(df, faces, progress=False, faces=False))
    assert issues.df.index.equals(df.index)
    for k in LOOKED_FOR:
        s = issues.df[f'{k}_score']
        assert s.between(0, 1).all() and issues.df[f'is_{k}_issue'].dtype==bool, k

def test_copies_across_splits_and_labels(tmp_path):
    im, d = synth_face('female', 5, 120), tmp_path/'set'
    for o in ('train/female', 'train/male', 'valid/female', 'valid/male'): (d/o).mkdir(parents=True)
    for i, o in enumerate(('train/female', 'train/male', 'valid/female', 'valid/male')):
        for j in range(4): synth_face(o.split('/')[1], 10+10*i+j, 120).save(d/o/f'{j}.jpg')
    im.save(d/'train/female/a.jpg', quality=92)
    im.crop((5, 3, 119, 117)).save(d/'valid/female/leak.jpg', quality=85)
    im.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(d/'train/male/conflict.jpg', quality=85)
    df = ingest(d).df
    issues = find_issues(df, measure(df, d, progress=False, faces=False))
    pairs = {Path(o.b).stem: o for o in issues.pairs.itertuples() if Path(o.a).stem=='a'}
    assert (pairs['leak'].kind, pairs['leak'].cross_split, pairs['leak'].cross_label)==('near', True, False)
    assert (pairs['conflict'].kind, pairs['conflict'].cross_split, pairs['conflict'].cross_label)==('mirrored', False, True)
    flagged = {k: {Path(o).stem for o in issues.of(k).fn} for k in ('leak', 'conflict')}
    assert {'a', 'leak'}<=flagged['leak'] and {'a', 'conflict'}<=flagged['conflict']
    assert set(issues.df.set_index('fn').copy_of[[str(d/'valid/female/leak.jpg'), str(d/'train/male/conflict.jpg')]])=={str(d/'train/female/a.jpg')}

def test_many_of_the_same(tmp_path):
    "A placeholder that is there five hundred times is a chain of pairs, not all of them"
    sig = quality.signature(synth_face('male', 1))
    m = pd.DataFrame(dict(w=9, h=9, sha256=['a']*500+['b'], signature=[sig]*501), index=[str(i) for i in range(501)])
    assert len(find_copies(m))==500

def test_real_faces(shared_data, tmp_path):
    "Copies of real faces are found, and no other pairs than those that were there"
    fns = sorted((shared_data/'utkface').glob('*.jpg'))[::60][:300]
    from gender_classifier.synth import make_messy
    df = pd.DataFrame(dict(fn=[str(o) for o in fns], labels='male', source='x', age=np.nan, race='', person=''))
    truth = make_messy(tmp_path/'messy', df, [shared_data/'not_a_face'], n=250, mess=dict(near_duplicates=.1, blurry=.1, no_face=.1, label=0))
    issues = find_issues(truth, measure(truth, tmp_path/'messy', progress=False))
    made = truth[truth.issue.isin(['near_duplicates', 'exact_duplicates'])]
    found, want = ({frozenset(o) for o in zip(x, y)} for x, y in ((issues.pairs.a, issues.pairs.b), (made.fn, made.of)))
    assert len(want&found)>=.95*len(want) and len(found-want)<=1
    def share(k): return issues.df[f'is_{k}_issue'][truth.issue==k].mean()
    assert share('blurry')>=.8
    gone = truth.issue=='no_face'
    assert (issues.df.is_no_face_issue|issues.df.is_doubtful_face_issue)[gone].mean()>=.95
