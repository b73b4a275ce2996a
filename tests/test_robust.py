"Spoiling pictures: what is drawn sits where it belongs, levels get worse, faces that are lost are counted, bad input is one clear line"
import numpy as np, pytest
pd = pytest.importorskip('pandas')
from PIL import Image
from gender_classifier.faces import Face, crop_face, find_faces, get_detector, main_face
from gender_classifier.inference import Labeller, synth_model
from gender_classifier.robust import (CORRUPTIONS, Corruption, corrupt, corrupted_answers, flips, in_crop, md_robustness, plot_robustness, robustness,
    robustness_table, sample_faces, shift, upright_landmarks, worst)
from gender_classifier.synth import synth_face

WORN = ['sunglasses','mask','hat']
side = 300
level = np.array([(-.5,0),(.5,0),(0,.57),(-.41,1.15),(.41,1.15)])  # landmarks of an average face, in distances of the eyes

def face_at(deg=0, turn=0, eyes=40., centre=(150,150)):
    "A face that leans clockwise by `deg`, and looks to the right as one sees it by `turn`"
    pts = np.c_[level*(np.cos(turn),1)+np.outer([0,0,.45,.05,.05], (np.sin(turn),0))]
    t = np.radians(deg)
    pts = (pts-(0,.4))@np.array([[np.cos(t),np.sin(t)],[-np.sin(t),np.cos(t)]])*eyes+centre
    wh = np.float32([2*eyes, 2.6*eyes])
    return Face(np.r_[np.array(centre)-wh/2, wh].astype(np.float32), .9, pts.astype(np.float32))

def place(face, x, y):
    "The pixel at (x,y) in distances of the eyes, from the middle between them"
    p = face.landmarks
    o,ex = p[:2].mean(0),p[1]-p[0]
    ey = np.array([-ex[1],ex[0]])/np.linalg.norm(ex)*40
    return tuple(int(v) for v in (o+x*ex+y*ey)[::-1])

def changed(name, face, level=None):
    "Which pixels of a white picture are changed"
    white = np.full((side,side,3), 255, np.uint8)
    return (corrupt(white, name, level, face)!=255).any(-1)

@pytest.mark.parametrize('deg', range(-180, 180, 30))
def test_sits_where_it_belongs(deg):
    f = face_at(deg)
    m = {o:changed(o, f) for o in WORN}
    on = lambda name, *xy: m[name][place(f, *xy)]
    for s in (-.5,.5):
        assert on('sunglasses', s, 0) and not on('mask', s, 0) and not on('hat', s, 0), 'an eye'
        assert on('mask', .8*s, 1.15) and not on('sunglasses', .8*s, 1.15) and not on('hat', .8*s, 1.15), 'a corner of the mouth'
    assert on('mask', 0, .57) and on('mask', 0, 1.8) and not on('sunglasses', 0, .57), 'the nose and the chin'
    assert on('hat', 0, -1.2) and on('hat', 0, -1.9) and not on('mask', 0, -1.2) and not on('sunglasses', 0, -1.2), 'the hair'

@pytest.mark.parametrize('turn', [-.6,-.3,.3,.6])
@pytest.mark.parametrize('deg', [-45,0,45])
def test_turned_heads(turn, deg):
    f = face_at(deg, turn)
    m = {o:changed(o, f) for o in WORN}
    rows = f.landmarks.round().astype(int)[:,::-1]
    assert [bool(m['sunglasses'][tuple(o)]) for o in rows] == [True,True,False,False,False]
    assert [bool(m['mask'][tuple(o)]) for o in rows] == [False,False,True,True,True]
    assert not any(m['hat'][tuple(o)] for o in rows)

@pytest.mark.parametrize('name', WORN)
def test_turning_the_face_turns_what_it_wears(name):
    a,b = changed(name, face_at(0)),changed(name, face_at(90))
    turned = np.rot90(a, -1)
    assert (turned!=b).sum() < .05*a.sum()
    assert abs(changed(name, face_at(0, eyes=20)).sum()/a.sum()-.25) < .06, 'half as large, a quarter of the pixels'

def test_more_is_covered_from_level_to_level():
    for o in WORN:
        n = [changed(o, face_at(), l).sum() for l in CORRUPTIONS[o].levels]
        assert n==sorted(n) and n[-1]>1.15*n[0]

def test_levels_get_worse():
    im = np.asarray(synth_face('female', 3, 200)).astype(float)
    for o in ('blur','noise','JPEG','grey','darkness'):
        d = [abs(corrupt(im.astype(np.uint8), o, l, face_at(centre=(100,100)))-im).mean() for l in CORRUPTIONS[o].levels]
        assert d==sorted(d), o

@pytest.mark.parametrize('name', list(CORRUPTIONS))
def test_pictures_stay_pictures(name):
    a = np.asarray(synth_face('male', 1, 150))
    before = a.copy()
    for l in CORRUPTIONS[name].levels:
        b = corrupt(a, name, l, face_at(eyes=25, centre=(75,75)))
        assert b.dtype==np.uint8 and b.ndim==3 and b.shape[2]==3 and b.size
        assert (b==corrupt(a, name, l, face_at(eyes=25, centre=(75,75)))).all(), 'the same again'
    assert (a==before).all(), 'the picture that was given is not touched'

@pytest.mark.parametrize('name', list(CORRUPTIONS))
@pytest.mark.parametrize('centre', [(-40,-40),(0,70),(150,150),(400,30)])
def test_faces_at_and_over_the_edge(name, centre):
    a = np.asarray(synth_face('male', 1, 150))
    for l in CORRUPTIONS[name].levels: assert corrupt(a, name, l, face_at(20, eyes=25, centre=centre)).size

def test_odd_landmarks():
    a = np.asarray(synth_face('male', 1, 150))
    f = face_at(eyes=25, centre=(75,75))
    for pts in (np.zeros((5,2)), np.full((5,2), 75.), f.landmarks*[1,0]+[0,75], f.landmarks*1e3):
        for o in WORN: corrupt(a, o, None, f._replace(landmarks=np.float32(pts)))

def test_in_crop_is_crop_face():
    a = np.zeros((side,side,3), np.uint8)
    f = face_at(25, centre=(140,160))
    for p in f.landmarks.round().astype(int): a[p[1]-2:p[1]+3, p[0]-2:p[0]+3] = 255
    crop,g = crop_face(a, f),in_crop(f)
    for p in g.landmarks.round().astype(int): assert crop[p[1]-1:p[1]+2, p[0]-1:p[0]+2].max()>120

def test_landmarks_of_a_leaning_photo(photo):
    if get_detector().name=='haar': pytest.skip('the Haar cascade has no landmarks of its own')
    from gender_classifier.robust import _rotate, _turned_back
    a = np.asarray(Image.open(photo).convert('RGB').resize((256,300)))
    f0 = main_face(find_faces(a), a.shape[:2])
    for deg in (-90,-60,40,75):
        b = _rotate(a, None, deg)
        f = main_face(find_faces(b), b.shape[:2])
        if f is None: continue
        back = _turned_back(upright_landmarks(b, f), a.shape, deg)
        eyes = np.linalg.norm(f0.landmarks[1]-f0.landmarks[0])
        assert np.linalg.norm(back.landmarks-f0.landmarks, axis=1).mean() < .35*eyes, deg

class Found:
    "A detector that finds one face in the middle of every picture that is light, large and upright enough"
    name = 'found'
    def __call__(self, bgr, score):
        h,w = bgr.shape[:2]
        if bgr.max()<60 or min(h,w)<50: return []
        return [face_at(eyes=w/6, centre=(w/2,h/2))]

def tinted(tmp, label, seed, size=120):
    "A drawn face in reddish or bluish light"
    fn = tmp/f'{label}_{seed}.png'
    grey = np.asarray(synth_face(label, seed, size).convert('L'))[...,None]
    Image.fromarray((grey*np.array([1,.8,.5])[::1 if label=='female' else -1]).astype(np.uint8)).save(fn)
    return dict(fn=str(fn), labels=label)

@pytest.fixture(scope='module')
def labeller(tmp_path_factory): return Labeller(synth_model(tmp_path_factory.mktemp('model')), detector=Found(), threads=2)

@pytest.fixture(scope='module')
def df(tmp_path_factory):
    tmp = tmp_path_factory.mktemp('faces')
    return pd.DataFrame([tinted(tmp, l, i) for l in ('female','male') for i in range(5)])

def test_known_answers(labeller, df):
    t = robustness(labeller, df, progress=False)
    assert len(t)==1+sum(len(o.levels) for o in CORRUPTIONS.values()) and (t.n==10).all()
    g = t.set_index('what')
    assert g.value['as they are']==1 and g.flipped['as they are']==0 and g.lost['as they are']==0
    assert g.neither['grey: 100 % of the colour lost']==1, 'the model goes by colour alone'
    assert g.value['blur: 6 % of the face']==1 and g.flipped['JPEG: quality 40']==0
    assert g.lost['darkness: 8 stops']==1 and g.lost['small size: a face of 12 pixels']==1 and g.lost['darkness: 2 stops']==0
    assert (g.lost[[o for o in g.index if o.startswith(('blur','framing','noise'))]]==0).all()
    assert ((t.low<=t.value+1e-9)&(t.value<=t.high+1e-9)).all() and np.allclose(t.change, t.value-1) and ((t.change_low<=t.change+1e-9)&(t.change<=t.change_high+1e-9)).all()
    w = worst(t)
    assert len(w)==5 and w.value.is_monotonic_increasing and w.corruption.is_unique and w.value[0]==t.value[1:].min()
    assert len(md_robustness(t).splitlines())==len(t)+2
    assert len([o for o in plot_robustness(t).axes if o.get_title()])==len(CORRUPTIONS)

def test_any_number_of_threads(labeller, df):
    one = Labeller(labeller.path, detector=Found(), threads=1)
    a,b = (corrupted_answers(o, df, ['noise','mask'], progress=False) for o in (labeller, one))
    pd.testing.assert_frame_equal(a, b)

def test_table_of_random_numbers():
    rng = np.random.default_rng(0)
    rows = [dict(fn=str(i), labels=('female','male')[i%2], corruption=k, level=l, lost=False) for k,l in [('none',0.),('blur',1.),('mine',2.)] for i in range(40)]
    ans = pd.DataFrame(rows)
    ans['p_female'] = rng.random(120)
    ans['p_male'] = 1-ans.p_female
    t = robustness_table(ans, dict_spec())
    for r in t.itertuples():
        g = ans[ans.corruption==r.corruption]
        ok = (g.p_female>.5).map({True:'female',False:'male'})==g.labels
        assert np.isclose(r.value, np.mean([ok[g.labels==o].mean() for o in ('female','male')]))
    assert list(t.what)==['as they are','blur: 1 % of the face','mine: 2']

def dict_spec():
    from gender_classifier.inference import Spec
    return Spec(['female','male'], 112, 1.2, dict(female=.5, male=.5))

def test_sample():
    df = pd.DataFrame(dict(fn=[str(i) for i in range(100)], labels=['female']*20+['male']*70+['']*10))
    s = sample_faces(df, 30)
    assert s.labels.value_counts().to_dict()=={'female':15,'male':15}
    assert sample_faces(df, 30).fn.tolist()==s.fn.tolist() and sample_faces(df, 30, seed=1).fn.tolist()!=s.fn.tolist()
    assert len(sample_faces(df, 1000))==90
    assert len(sample_faces(df[df.labels=='male'], 10))==10

def test_one_label_only(labeller, df):
    t = robustness(labeller, df[df.labels=='male'], 'grey', progress=False)
    assert (t.n==5).all() and t.value.iloc[0]==1 and 'recall female' not in t

def test_what_cannot_be_used(labeller, df, tmp_path):
    (tmp_path/'bad.jpg').write_text('no picture')
    more = pd.concat([df, pd.DataFrame([dict(fn=str(tmp_path/'bad.jpg'), labels='male'), dict(fn=str(tmp_path/'gone.jpg'), labels='male')])])
    ans = corrupted_answers(labeller, more, 'grey', progress=False)
    assert set(map(len, ans.attrs['skipped']))==set(map(len, (str(tmp_path/'bad.jpg'), str(tmp_path/'gone.jpg')))) and ans.fn.nunique()==10

@pytest.mark.parametrize('change,says', [
    (dict(df=lambda d: d[['labels']]), 'it lacks fn'), (dict(df=lambda d: d[:0]), 'not one face in the table'),
    (dict(df=lambda d: d.assign(labels='')), 'not one face in the table'), (dict(df=lambda d: d.assign(labels=np.nan)), 'not one face in the table'),
    (dict(df=lambda d: d.assign(fn='gone.jpg')), 'not one of the'), (dict(df=lambda d: d.assign(labels='cat')), 'cat'),
    (dict(corruptions='fog'), 'fog is no corruption'), (dict(corruptions=[]), 'an empty list'), (dict(n=0), 'not 0')])
def test_bad_input(labeller, df, change, says):
    kw = {**dict(df=df, corruptions='grey'), **{k:v(df) if callable(v) else v for k,v in change.items()}}
    with pytest.raises(ValueError) as e: robustness(labeller, **kw, progress=False)
    assert says in str(e.value) and '\n' not in str(e.value)

def test_own_way(labeller, df):
    t = robustness(labeller, df, Corruption('negative', (1,), 'all of it', lambda a,face,level: 255-a), progress=False)
    assert t.what.iloc[1]=='negative: all of it' and t.value.iloc[1]==0 and t.flipped.iloc[1]==1

def test_flips(labeller):
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (30,112,112,3), dtype=np.uint8)
    f = flips(labeller, crops, progress=False)
    assert f.value['mirror']==0 and list(f.n)==[30]*5
    half = np.zeros((2,112,112,3), np.uint8)  # red on the left, a little less blue on the right: moved to the left, blue has more
    half[:,:,:57,0],half[:,:,57:,2] = 255,255
    g = flips(labeller, half, shifts=(8,), progress=False)
    assert g.value['mirror']==0 and g.value['shift 8 %']==.25 and g.low['shift 8 %']<.25<g.high['shift 8 %']
    assert (shift(crops, 3, -2)[:,:-2,3:]==crops[:,2:,:-3]).all()

def test_no_torch():
    import subprocess, sys
    code = 'import sys; import gender_classifier.robust; sys.exit(any(o in sys.modules for o in ("torch","fastai","matplotlib.pyplot")))'
    assert subprocess.run([sys.executable, '-c', code]).returncode==0
