"The fixed test set under any history: pictures that are added, renamed, relabelled and removed, copies and people among them"
import numpy as np, pandas as pd, pytest
from gender_classifier.synth import synth_faces
pytest.importorskip('fastai', reason='the package fastai, which splits need, is not installed')
hypothesis = pytest.importorskip('hypothesis', reason='the package hypothesis is not installed')
from hypothesis import HealthCheck, given, settings, strategies as st
from gender_classifier.ingest import ingest
from gender_classifier.splits import data_roots, fixed_split, hold_out, linked_groups, read_test_set, strata

def table(pics, root):
    "A table of `pics`: (number of the content, name, label, person)"
    df = pd.DataFrame([dict(fn=f'{root}/{n}.jpg', labels=l, source='s', split='', age=np.nan, race='', person=p) for _, n, l, p in pics])
    return df, [f'hash{h}' for h, *_ in pics]

def pairs(pics, root):
    "Near-copies: contents 3k and 3k+1"
    at = {h: n for h, n, *_ in pics}
    return pd.DataFrame([dict(a=f'{root}/{at[h]}.jpg', b=f'{root}/{at[h+1]}.jpg') for h in at if h % 3 == 0 and h+1 in at], columns=['a', 'b'])

step = st.tuples(st.sampled_from(['add', 'rename', 'relabel', 'remove', 'copy', 'person']), st.integers(0, 10**6))

def change(pics, op, k):
    "`pics` after one more thing has happened to them"
    i, new = k % len(pics), max(h for h, *_ in pics)+2+k % 2
    h, n, l, p = pics[i]
    if op == 'add': return [*pics, (new, f'new{new}', ('male', 'female')[k % 2], '')]
    if op == 'rename': return [*pics[:i], (h, f'{n}x', l, p), *pics[i+1:]]
    if op == 'relabel': return [*pics[:i], (h, n, 'male' if l == 'female' else 'female', p), *pics[i+1:]]
    if op == 'remove': return pics[:i]+pics[i+1:] if len(pics) > 30 else pics
    if op == 'copy': return [*pics, (h, f'{n}_copy{len(pics)}', l, p)]
    return [*pics, (new, f'again{new}', l, p)]

@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(steps=st.lists(step, max_size=25), late=st.sampled_from(['out', 'test']), seed=st.integers(0, 50))
def test_the_test_set_stays(tmp_path_factory, steps, late, seed):
    root = tmp_path_factory.mktemp('d')
    pics = [(h, f'p{h}', ('male', 'female')[h % 2], f'who{h//5}' if h % 4 == 0 else '') for h in range(40)]
    known = None
    for op in [('add', 0), *steps]:
        pics = change(pics, *op)
        df, hashes = table(pics, root)
        try: s = fixed_split(df, root, pairs=pairs(pics, root), hashes=hashes, late=late, seed=seed)
        except ValueError as e:
            assert 'picture' in str(e)
            continue
        now = read_test_set(root)
        known = known or now
        assert now == known                                   # what was drawn is never rewritten
        of = dict(zip(df.fn, hashes))
        test = {of[o] for o in s.df.fn[s.df.split == 'test']}
        here = set(hashes) & set(known['pictures'])
        assert here <= test and (late == 'test' or test == here)  # all of it that is there, and with 'out' nothing else
        assert set(s.df.fn) | set(s.left_out.fn) == set(df.fn) and not set(s.df.fn) & set(s.left_out.fn)
        group = dict(zip(df.fn, linked_groups(df, pairs(pics, root), hashes)))
        parts = s.df.groupby('split').fn.agg(lambda o: {group[x] for x in o})
        assert not parts.get('train', set()) & (parts.get('test', set()) | parts.get('valid', set()))
        people = dict(zip(df.fn, df.person))
        assert not {people[o] for o in s.df.fn[s.df.split == 'train']} & {o.split('/')[1] for o in known['people']}
    assert known                                              # forty pictures are enough for one

def test_shares_hold_in_each_stratum(tmp_path):
    rng = np.random.default_rng(0)
    n = 3000
    df = pd.DataFrame(dict(fn=[f'{tmp_path}/{i}.jpg' for i in range(n)], labels=rng.choice(['male', 'female', ''], n, p=[.6, .35, .05]), source=rng.choice(['a', 'b'], n),
        split='', age=rng.uniform(0, 90, n), race=rng.choice(['White', 'Black', 'Asian'], n, p=[.7, .2, .1]), person=''))
    s = fixed_split(df, tmp_path, pairs=pd.DataFrame(dict(a=[], b=[])), hashes=[f'{i}' for i in range(n)]).df
    share = pd.crosstab(strata(s, least=60), s.split, normalize='index')
    assert share.train.between(.6, .8).all() and share.test.between(.08, .24).all(), share
    assert abs((s.split == 'test').mean()-.15) < .02

def test_a_state_folder_is_that_of_one_data_set(tmp_path):
    "The fixed test set of a folder below is held out, wherever what is known of the folder above lies"
    root = tmp_path/'all'
    synth_faces(root/'mine', 20, size=48)
    test = fixed_split(ingest(root/'mine').df, root/'mine', state=None).df.query('split=="test"')
    df, _ = hold_out(ingest(root).df, data_roots(root), state=tmp_path/'state')
    assert set(df.fn[df.split == 'test']) == set(test.fn) and len(test)
