"Readers and splits on the real data sets, where they are"
import numpy as np, pandas as pd, pytest

pytest.importorskip('fastai')
from gender_classifier.ingest import ingest, read_celeba, read_folders, read_lfw, read_neither, read_utkface

COLS = ['fn','labels','source','split','age','race','person']

def part(path, *names):
    "A folder of the real data, or skip"
    for o in names: path = path/o
    if not path.is_dir(): pytest.skip(f"the real data has no folder {'/'.join(names)}")
    return path

@pytest.fixture(scope='module')
def utk(shared_data): return read_utkface(part(shared_data, 'utkface'))

@pytest.fixture(scope='module')
def lfw(shared_data): return read_lfw(part(shared_data, 'lfw'))

def test_utkface(utk):
    df, bad = utk
    assert list(df)==COLS and len(df)==20929 and not len(bad)
    assert df.labels.value_counts().to_dict()=={'male':10929, 'female':10000}
    assert df.age.between(1, 116).all() and set(df.race)=={'White','Black','Asian','Indian','Other'}
    one = df[df.fn.str.contains('/100_1_0_20170112213001988')].iloc[0]
    assert (one.labels, one.age, one.race)==('female', 100, 'White')

def test_lfw(lfw):
    df, bad = lfw
    assert df.labels.value_counts().to_dict()=={'male':2094, 'female':983} and not len(bad)
    n = df[df.labels=='female'].groupby('person').size()
    assert n.max()==2 and df[df.labels=='male'].person.is_unique
    assert not df.person.str.contains(r'\d').any()

def test_celeba(shared_data):
    df, bad = read_celeba(part(shared_data, 'celeba'))
    assert len(df)==4247 and not len(bad) and set(df.source)=={'celeba'}
    assert df.split.value_counts().to_dict()=={'train':3512, 'valid':735}

def test_neither(shared_data):
    df, bad = read_neither(part(shared_data, 'not_a_face'))
    assert len(df)==3010 and not len(bad) and set(df.labels)=={''}

def test_all_at_once(shared_data):
    for o in ('utkface','lfw','celeba','not_a_face'): part(shared_data, o)
    df, bad = ingest(shared_data)
    assert df.source.value_counts().to_dict()=={'utkface':20929, 'celeba':4247, 'lfw':3077, 'not_a_face':3010}
    assert (df.person!='').equals(df.source=='lfw')
    assert bad.fn.str.endswith('photos').any()  # no labels there, and it says so

def test_folder_without_classes(shared_data):
    with pytest.raises(ValueError, match="no folders named 'male' and 'female'"): read_folders(part(shared_data, 'utkface'))

def test_group_split(utk, lfw):
    "People on one side; the copies of UTKFace too"
    from gender_classifier.data import group_split, group_summary, picture_groups
    few = utk.df[utk.df.age<=1].sample(600, random_state=0)  # the babies, where UTKFace has most copies
    df = pd.concat([few, lfw.df[lfw.df.labels=='female'], lfw.df[lfw.df.labels=='male'][:200]], ignore_index=True)
    groups = picture_groups(df)
    n = group_summary(groups)
    utk_copies = (np.bincount(groups)[groups]>1)[:len(few)].sum()
    assert utk_copies>=20 and n['largest']<=12, (n, utk_copies)
    for fracs in ((.7,.15,.15), (.8,.2)):
        split = group_split(df, fracs, groups=groups)
        assert split.groupby(groups).nunique().max()==1
        people = df.person!=''
        assert split[people].groupby(df.person[people]).nunique().max()==1
        shares = pd.crosstab(df.source+df.labels, split, normalize='index')
        assert np.allclose(shares[['train','valid','test'][:len(fracs)]], fracs, atol=.02)

def test_splits_repeat(lfw):
    from gender_classifier.data import group_split
    groups = pd.factorize(lfw.df.person)[0]
    a, b, c = (group_split(lfw.df, seed=o, groups=groups) for o in (1,1,2))
    assert a.equals(b) and not a.equals(c)
