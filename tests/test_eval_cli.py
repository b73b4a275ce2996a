"`gender_classifier evaluate`, `compare`, `calibrate` and the pages they write, as a person or a script meets them"
import hashlib, importlib.util, json, re, subprocess, sys
from pathlib import Path
import numpy as np, pandas as pd, pytest
from PIL import Image
for o in ('pandas', 'filelock', 'fastai', 'tqdm', 'fairlearn', 'onnx'): pytest.importorskip(o, reason=f'the package {o}, which measuring needs, is not installed')
from gender_classifier.inference import synth_model

root = Path(__file__).parents[1]

@pytest.fixture(scope='module')
def model(tmp_path_factory): return synth_model(tmp_path_factory.mktemp('model'), name='colour')

def draw(path, n=12, wrong=2, seed=0):
    "Red pictures in female, blue in male, grey in neither; the first `wrong` of each label are of the other colour"
    rng, colours = np.random.default_rng(seed), dict(female=(220, 20, 40), male=(40, 20, 220), neither=(90, 90, 90))
    for lbl, c in colours.items():
        (path/lbl).mkdir(parents=True)
        for i in range(n):
            shown = c if i >= wrong or lbl == 'neither' else c[::-1]
            Image.new('RGB', (64, 64), tuple(int(min(255, o+rng.integers(0, 30))) for o in shown)).save(path/lbl/f'{lbl[0]}{i:03}.png')
    return path

@pytest.fixture
def data(tmp_path): return draw(tmp_path/'data')

def test_measuring_loads_no_torch(model, data):
    "Modules of measuring do without torch and fastai; only the reading of data may load them"
    c = ('import sys\nimport gender_classifier.evaluate, gender_classifier.fairness, gender_classifier.calibrate, gender_classifier.robust, gender_classifier.compare, '
         'gender_classifier.evalreport, gender_classifier.evalcli\nprint([o for o in ("torch","fastai") if o in sys.modules])')
    p = subprocess.run([sys.executable, '-c', c], capture_output=True, text=True)
    assert p.stdout.strip() == '[]', p.stdout+p.stderr

def test_evaluate_says_the_figures(call, model, data):
    rc, out, err = call('evaluate', model, data)
    assert rc == 0, err
    assert 'colour, on 24 faces and 12 pictures without one' in out
    assert re.search(r'^balanced accuracy +83\.3 \(', out, re.M) and 'All faces are from one source, data' in out

def test_json_is_whole_and_alone(call, model, data):
    rc, out, err = call('evaluate', model, data, '--json')
    d = json.loads(out)
    assert rc == 0 and err == '' and d['pictures'] == 36 and d['model'] == 'colour'
    assert d['confusion']['female'] == dict(female=10, male=2, neither=0, both=0, unsure=0)
    assert sum(sum(o.values()) for o in d['confusion'].values()) == 36
    assert {o['figure']: o['value'] for o in d['figures']}['recall female'] == pytest.approx(10/12)

def test_html_folder(call, model, data, tmp_path):
    rc, out, err = call('evaluate', model, data, '--html', tmp_path/'out', '--pictures', 3)
    page = (tmp_path/'out/index.html').read_text()
    assert rc == 0 and 'Written' in out and page.count('<figcaption>') == 3
    assert '<script' not in page and not re.search(r'(src|href)="https?:', page)
    assert all(o.split('"')[0] for o in page.split('<img ')[1:]) and 'alt=""' not in page
    t = pd.read_csv(tmp_path/'out/answers.csv')
    assert len(t) == 36 and set(t.labels) == {'female', 'male', 'neither'} and {'decision', 'p_female'} <= set(t)
    assert json.loads((tmp_path/'out/figures.json').read_text())['pictures'] == 36

def test_held_out_list(call, model, data, tmp_path):
    def digest(o): return hashlib.sha1(o.encode()).hexdigest()[:12]
    (tmp_path/'list.txt').write_text('\n'.join(digest(f'{l}/{l[0]}{i:03}.png') for l in ('female', 'male') for i in (1, 5, 6))+'\n'+'0'*12)
    rc, out, err = call('evaluate', model, data, '--held-out', tmp_path/'list.txt', '--json')
    assert rc == 0 and json.loads(out)['pictures'] == 6 and '1 of the 7 pictures in list.txt are not here' in err
    (tmp_path/'none.txt').write_text('0'*12)
    rc, out, err = call('evaluate', model, data, '--held-out', tmp_path/'none.txt')
    assert rc == 2 and 'names none of these pictures' in err

def test_part_is_the_fixed_test_set(call, model, data):
    rc, out, err = call('evaluate', model, data, '--part', 'test')
    assert rc == 2 and 'gender_classifier data split' in err
    assert call('data', 'split', data, '--test', '.4')[0] == 0
    known = json.loads((data/'.gender_classifier/test_set.json').read_text())['pictures']
    rc, out, err = call('evaluate', model, data, '--part', 'test', '--json')
    assert rc == 0 and json.loads(out)['pictures'] == len(known)

def test_what_cannot_be_read_is_said(call, model, data):
    (data/'male/broken.png').write_bytes(b'\x89PNG broken')
    rc, out, err = call('evaluate', model, data)
    assert rc == 1 and 'left out:' in err and 'broken.png' in err and 'on 24 faces' in out

def test_refusals(call, model, data, tmp_path):
    (tmp_path/'women/female').mkdir(parents=True)
    for i in range(3): Image.new('RGB', (64, 64), 'red').save(tmp_path/f'women/female/{i}.png')
    (tmp_path/'things/neither').mkdir(parents=True)
    for i in range(3): Image.new('RGB', (64, 64), 'gray').save(tmp_path/f'things/neither/{i}.png')
    for args, says in [(['evaluate', model, tmp_path/'nowhere'], 'is not there'), (['evaluate', tmp_path/'no.onnx', data], 'There is no model'), (['evaluate', model], 'required: DATA'),
            (['evaluate', model, tmp_path/'women'], 'female'), (['evaluate', model, tmp_path/'things'], 'face'), (['evaluate', model, data, '--pictures', -1], 'less than 0'),
            (['compare', model, tmp_path/'no.onnx', data], 'There is no model'), (['calibrate', 'default', data], 'of your own'), (['calibrate', 'small', data], 'of your own'), (['calibrate', model, data, '--error', 2], 'both excluded'),
            (['calibrate', model, data], 'at least are needed')]:
        rc, out, err = call(*args)
        assert rc == 2 and says in err and len(err.strip().splitlines()) <= 3 or 'usage' in err and says in err, (args, out, err)

def test_compare_names_the_better_one(call, model, data, tmp_path):
    bad = synth_model(tmp_path/'m', name='swapped')
    d = json.loads(bad.with_suffix('.json').read_text())
    bad.with_suffix('.json').write_text(json.dumps({**d, 'labels': d['labels'][::-1]}))
    rc, out, err = call('compare', model, bad, data, '--html', tmp_path/'c')
    assert rc == 0 and out.startswith('colour is better: balanced accuracy 83.3 and 16.7 %') and 'McNemar' in out
    assert (tmp_path/'c/index.html').read_text().count('<figcaption>') == 16 and len(pd.read_csv(tmp_path/'c/disagreements.csv')) == 24
    rc, out, err = call('compare', model, bad, data, '--json')
    d = json.loads(out)
    assert d['better'] == 'colour' and d['mcnemar']['only_a'] == 20 and d['mcnemar']['only_b'] == 4
    rc, out, err = call('compare', model, model, data)
    assert rc == 0 and out.startswith('No difference between colour (1) and colour (2) that could not be chance')
    bad.with_suffix('.json').write_text(json.dumps({**d, **json.loads(model.with_suffix('.json').read_text()), 'labels': ['cat', 'dog'], 'thresholds': dict(cat=.5, dog=.5)}))
    rc, out, err = call('compare', model, bad, data)
    assert rc == 2 and 'cat' in err

def test_calibrate_writes_and_keeps_answers(call, tmp_path):
    model, data = synth_model(tmp_path/'m', name='mine'), draw(tmp_path/'d', 130, wrong=6)
    fn, before = model.with_suffix('.json'), model.with_suffix('.json').read_text()
    first = json.loads(call('evaluate', model, data, '--json')[1])
    rc, out, err = call('calibrate', model, data, '--error', .1, '--dry-run')
    assert rc == 0 and fn.read_text() == before and 'An error of 10 % was stated' in out, err
    assert call('calibrate', model, data, '--error', .1)[0] == 0
    d = json.loads(fn.read_text())
    assert d['calibration']['error'] == .1 and set(d['temperature']) == set(d['labels'])
    again = json.loads(call('evaluate', model, data, '--json')[1])
    value = lambda d: {o['figure']: o['value'] for o in d['figures']}['balanced accuracy']
    assert value(again) == value(first)
    assert call('label', data/'female', '--model', model, '--csv', '-')[0] == 0

def test_a_learner_can_be_measured(call, data, tmp_path):
    "The learner in models/ says what its ONNX model says, but for the crops: pictures without a face have the same"
    from gender_classifier.inference import ModelError, default_model
    try: onnx = default_model()
    except ModelError: pytest.skip('there is no model in models/ yet')
    a, b = (json.loads(call('evaluate', o, data, '--json')[1]) for o in (onnx, onnx.with_suffix('.safetensors')))
    assert a['confusion'] == b['confusion']

def test_a_pickle_is_tempered_once(call, data, tmp_path):
    "A learner with a temperature beside it says what its ONNX model says, and decides by the same thresholds"
    from gender_classifier.export import export_learner, update_spec
    from gender_classifier.inference import ModelError, default_model
    from gender_classifier.pickles import load_learner_file
    from gender_classifier.rebuild import rebuild_learner
    try: learn = rebuild_learner(default_model())
    except ModelError: pytest.skip('there is no model in models/ yet')
    fn = export_learner(learn, tmp_path/'mine', dict(labels=['female', 'male'], size=112))
    update_spec(tmp_path/'mine', temperature=dict(female=3., male=.5), thresholds=dict(female=.3, male=.7))
    said = {}
    for o in ('onnx', 'pkl', 'safetensors'):
        rc, out, err = call('evaluate', f'{tmp_path}/mine.{o}', data, '--html', tmp_path/o, '--pictures', 0, *(['--trust'] if o=='pkl' else []))
        assert rc == 0, err
        said[o] = pd.read_csv(tmp_path/o/'answers.csv').sort_values('fn').reset_index(drop=True)
    for o in ('pkl', 'safetensors'):
        np.testing.assert_allclose(said[o][['p_female', 'p_male']], said['onnx'][['p_female', 'p_male']], atol=2e-3)
        assert (said[o].decision == said['onnx'].decision).all()
        bands = ['size_band', 'blur_band']
        assert said[o][bands].notna().all().all() and (said[o][bands] == said['onnx'][bands]).all().all()
    page, figures = (tmp_path/'pkl/index.html').read_text(), json.loads((tmp_path/'pkl/figures.json').read_text())
    assert 'Pictures without a face' in page and 'How it was trained' not in page
    assert {'called a face', 'called neither'} <= {o['answer'] for o in figures['no_face']} and all(o['n']==12 for o in figures['no_face'])
    assert all(o['ratio'] is None or 0 <= o['ratio'] <= 1 for o in figures['gaps'])
    assert call('compare', tmp_path/'mine.onnx', tmp_path/'mine.pkl', data, '--trust')[0] == 0
    for again in (rebuild_learner(tmp_path/'mine'), load_learner_file(tmp_path/'mine.pkl', trust=True)):
        assert again.loss_func.thresh.tolist() == pytest.approx([.3, .7])

def tool():
    spec = importlib.util.spec_from_file_location('train_default', root/'tools/train_default.py')
    res = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(res)
    return res

@pytest.mark.parametrize('name', ['gender_resnet18', 'gender_small'])
def test_the_card_is_what_a_hub_reads(name):
    ModelCard = pytest.importorskip('huggingface_hub').ModelCard
    d = ModelCard.load(root/f'models/{name}.md').data
    t, card = tool(), (root/f'models/{name}.md').read_text(encoding='utf-8')
    runs = t.read_json(root/'models'/name)['training']['runs']
    assert runs and all(t.run_text(o) in card for o in runs) and ('halfway between these and the answers of a larger model' in card) == ('pupil_of' in runs[0]) and t.training_text(runs) in card
    assert d.license == 'other' and d.pipeline_tag == 'image-classification' and len(d.eval_results) >= 4

def test_the_training_text_follows_the_options():
    t = tool()
    said = t.training_text([dict(teacher=3., zoom=[.5, 1.], least=.25, leave='lfw')])
    assert all(o in said for o in ('counts 3 times', 'was 25 % of the', 'scaled by 0.5 to 1,', 'Of lfw all is held out')) and '938' not in said
    assert all(o in t.training_text([{}]) for o in ('counts twice', 'was a third of the', 'scaled by 0.8 to 1.2,', '938'))

def test_a_kept_table_is_of_this_folder_and_split(tmp_path):
    import pickle
    t, fns = tool(), [str(tmp_path/'faces'/f'{i}.jpg') for i in range(40)]
    df = pd.DataFrame(dict(fn=fns, source='lfw', split='', group=range(40)))
    df['valid'] = t.hold_out(df, df.group, t.SHARE)
    (tmp_path/f'prepared-{t.MARGIN:g}.pkl').write_bytes(pickle.dumps((df, None)))
    assert len(t.prepared(tmp_path/'faces', tmp_path)[0]) == 40
    with pytest.raises(SystemExit, match='another folder'): t.prepared(tmp_path/'others', tmp_path)
    (tmp_path/f'prepared-{t.MARGIN:g}.pkl').write_bytes(pickle.dumps((df.assign(valid=~df.valid), None)))
    with pytest.raises(SystemExit, match='another division'): t.prepared(tmp_path/'faces', tmp_path)

def test_readme_says_what_the_card_says():
    "Every figure with an interval in README.md stands in the card"
    part = (root/'README.md').read_text().split('## How good is it')[1].split('\n## ')[0]
    found, card = re.findall(r'\d+\.\d \(\d+\.\d–\d+\.\d\)', part.replace(' %', '')), (root/'models/gender_resnet18.md').read_text()
    assert len(found) >= 4 and [o for o in found if o not in card] == []
    twin = json.loads((root/'models/gender_resnet18.json').read_text())['int8']
    said = re.search(r'differs by ([\d.]+) in the mean from that on another machine, by ([\d.]+) at most of ([\d,]+) pictures', (root/'README.md').read_text())
    assert said.groups() == (f"{twin['mean_difference']:.3f}", f"{twin['largest_difference']:.2f}", f"{twin['pictures']:,}")
    small = (root/'models/gender_small.md').read_text()
    shares = re.search(r'is right for ([\d.]+), ([\d.]+) and ([\d.]+) %', part).groups()
    assert shares == tuple(re.search(rf'^\| {o} \| [\d,]+ \| ([\d.]+)', small, re.M)[1] for o in ('celeba', 'lfw', 'utkface'))

@pytest.mark.parametrize('name', ['gender_resnet18', 'gender_small'])
def test_doubts_are_of_held_out_pictures(name):
    t, stem = tool(), root/'models'/name
    why = dict(o.split() for o in t.doubts_file(stem).read_text().splitlines())
    assert set(why) <= set(t.names_file(stem).read_text().split()) and set(why.values()) == {'label','age'}

def test_doubts_are_what_both_readers_said():
    "Label: the second, too, sees another, and is not just guessing. Age: both see a small child, where the age is unknown or the one that UTKFace gives to many"
    d = pd.read_csv(root/'models/readings.csv', keep_default_na=False)
    against = (d.second!='?')&(d.second!=d.label)
    label = (d['first']=='doubts')&against&(d.sure>=2)
    age = (d['first']=='doubts')&~label&(d.child!='')&d.age.isin(['','21'])
    why = dict(o.split() for o in tool().doubts_file(root/'models/gender_resnet18').read_text().splitlines())
    assert why == {**dict.fromkeys(d.picture[label], 'label'), **dict.fromkeys(d.picture[age], 'age')}
    wrong, passed = d.model=='wrong', (d.model=='right')&(d['first']=='')
    said = re.search(r'Of the (\d+) labels that the model gets wrong the second reader alone contradicts (\d+); of (\d+) that', (root/'models/trials.md').read_text())
    assert [int(o) for o in said.groups()] == [wrong.sum(), (against&wrong).sum(), passed.sum()] and not (against&passed).any()

@pytest.mark.parametrize('known', [['race'], []])
def test_doubted_faces_are_left_out(tmp_path, known):
    from gender_classifier.evaluate import evaluate_scores, scored
    t, n, out = tool(), 240, tmp_path/'mine'
    df = pd.DataFrame(dict(fn=[str(tmp_path/f'{i}.jpg') for i in range(n)], labels=['female','male']*(n//2), source='utkface', age=[5.]+[30.]*(n-1), race=['Black','Black','White','White']*(n//4)))
    p = np.where(df.labels.to_numpy()[:,None]==['female','male'], .9, .1)
    p[[1,2,3]] = p[[1,2,3],::-1] # three mistakes
    ev = evaluate_scores(scored(df.drop(columns={'race'}-set(known)), p, dict(labels=['female','male'], thresholds=.5, neither_below=.3)), dict(labels=['female','male']), 'mine', min_age=10)
    assert t.doubted(tmp_path, out, ev.df) is None and [*t.doubt_text(ev, None)] == []
    t.doubts_file(out).write_text(''.join(f'{t.key(tmp_path, df.fn[i])} {o}\n' for i,o in ((0,'label'),(1,'label'),(3,'age'),(7,'label')))) # the first is too young to count
    _, said, table, last = t.doubt_text(ev, t.doubted(tmp_path, out, ev.df))
    assert 'the 2 faces whose label both contradict, and 1 that both took' in said and 'for 2 of them, and for 3 of all' in said and '`mine.doubts.txt`' in said
    assert f'| all | {n-4} |' in table and last.startswith('Wrong are 0.4 ') and ('Of sex and race the worst is then female, White' in last) == bool(known)

@pytest.mark.parametrize('name', ['gender_resnet18', 'gender_small'])
def test_the_card_comes_out_again(shared_data, monkeypatch, name):
    "Every figure of the committed card to the digit, but of bad conditions only two, since all of them take minutes more"
    from gender_classifier.export import model_card
    from gender_classifier.inference import fast_int8
    from gender_classifier.robust import robustness
    t, stem = tool(), root/'models'/name
    card = Path(f'{stem}.md').read_text(encoding='utf-8')
    monkeypatch.setattr(t, 'disturbed', lambda labeller, df, n: (robustness(labeller, df, ['grey','mask'], n, progress=False), None))
    spec, (ev, text, _) = t.read_json(stem), t.measured(shared_data, stem, 600)
    text, bad = text.split('### In bad conditions')
    rows = [o for o in bad.splitlines() if o.startswith(('| as they are', '| grey', '| mask'))]
    assert text.strip() in card and len(rows) == 6 and [o for o in rows if o not in card] == []
    assert card.startswith(t.card_head(spec, ev, t.TITLES, license_name='non-commercial-research')+'\n')
    assert model_card(spec).split('## Input and output')[1].split('## Meant for')[0] in card
    if fast_int8(): assert t.twin_again(shared_data, stem) == spec['int8'] # other processors round otherwise
