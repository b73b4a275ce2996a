"""Train the models in models/ from scratch: each took ten minutes on a GPU, beside two other runs; on two cores with AMX the larger takes 2.4 hours (measured; models/trials.md). `make model FACES=…` makes the first call, `make small` the second.

    pip install -c constraints.txt -e ".[train,distill]"
    python tools/train_default.py FACES     # the default model
    python tools/train_default.py FACES --arch resnet18_small --pupil-of models/gender_resnet18 --out models/gender_small   # the small one
    python tools/train_default.py FACES --leave lfw --out runs/no_lfw   # one source is not trained on, and all of it held out
    python tools/train_default.py FACES --measure          # only the figures, of the model that is there (no dlib needed)
    python tools/train_default.py FACES --measure --card   # the same, into its card
    python tools/train_default.py FACES --int8             # its twin in whole numbers
    python tools/train_default.py FACES --calibrate        # temperatures and thresholds, into the JSON of the model that is there

FACES is a folder that holds `utkface/`, `celeba/`, `lfw/` and `not_a_face/`, each as its publisher packs it. The run goes on from
`--runs` if it was cut off. At the end the model is written, measured from the picture files on through the ONNX file, and its
card made. Digests of the held-out pictures' names are kept beside the model. What is held out and how the net is trained is in `nbs/23_pretrain.ipynb`.
"""
import argparse, hashlib, json, pickle, time
from functools import partial
from pathlib import Path
import numpy as np, torch
from fastai.metrics import AccumMetric
from gender_classifier.calibrate import calibrate_model, halves
from gender_classifier.core import LABELS, n_cpus, sha256, with_big_pages
from gender_classifier.crops import load_crops, make_crops
from gender_classifier.evalcli import disturbed
from gender_classifier.evalreport import _DECIDED as DECIDED, card_figures, card_head
from gender_classifier.evaluate import balanced, evaluate_model, evaluate_scores, md_table, metrics_table, older, pct, rate, selective_risk
from gender_classifier.export import export_learner, read_json, update_spec, write_card
from gender_classifier.faces import MARGIN
from gender_classifier.inference import MODEL_NAME, SMALL_NAME, TWIN, Labeller
from gender_classifier.ingest import concat, read_celeba, read_lfw, read_neither, read_utkface
from gender_classifier.learner import SmoothBCE
from gender_classifier.memory import FaceAug
from gender_classifier.pretrain import EPOCHS, SCHEDULE, SHARE, hold_out, more_rows, prepare, pretrain, with_squares
from gender_classifier.quantize import quantize_model, twin_agreement
from gender_classifier.splits import linked_groups

DATA = [
    dict(set='UTKFace', by='Zhang, Song, Qi, CVPR 2017', terms='non-commercial research only', labels='estimated, then checked by a person; some are wrong'),
    dict(set='CelebA, a subset', by='Liu et al., ICCV 2015', terms='non-commercial research only', labels='annotators; some are wrong'),
    dict(set='LFW, half of its people', by='Huang et al., 2007', terms='a benchmark, no licence text', labels='verified lists of AFIF4'),
    dict(set='Caltech-101 and PACS, pictures without a face', by='Fei-Fei et al., 2004; Li et al., 2017', terms='research', labels='none: the target is "neither"'),
    dict(set='dlib\'s face recognition network, as a teacher', by='King, 2017', terms='CC0', labels=''),
]
TRAINING = '''Every face was found by YuNet and cut out as in use. Targets are halfway between the data
set's label and the out-of-fold opinion of a support vector machine on the 128 numbers of dlib's face recognition network, smoothed by 0.06{pupil}. A second
head, dropped after training, predicts those 128 numbers, and its mean squared error counts {teacher}. Two random squares of each picture without a face were
added. Pictures of the rarer sex of each source were repeated until it had as many women as men, and those of small sources until each sex of them was {least} of the
larger sex of the largest source. A crop was scaled by {zoom}, turned by up to 17°, shifted by up to 12 % either way, mirrored, and changed in light, sharpness, colour and cover. AdamW, weight decay 0.05, one cycle, batches of 128, gradient norm clipped at 1,
weights averaged (0.998), bf16 autocast. Faces of one name, or whose 128 numbers are nearer than 0.3, are on one side of the split, near copies of faces among them, but for CelebA, whose own split is kept.{split}'''
OPTIONS = dict(teacher=2., zoom=[.8,1.2], least=.33, leave=None) # of training, as the models in models/ had them; a run's own are in its JSON where they differ
SPLIT = ''' That does not part all people: 64 of CelebA's 735 held-out faces, 49 of LFW's 938 and 505 of UTKFace's 2,183
have one nearer than 0.4 among those trained on; most of these are UTKFace's, which knows no names, and some will be of the same people. Without such faces CelebA is at 98.8 %, LFW at 98.0 and UTKFace at 97.0
(`tools/try_neighbours.py`, with `gender_resnet18` of November 2026). Pictures without a face were drawn each by itself: of the 735 held out, 49 have a near copy among those trained on.''' # of the pictures as they are divided where nothing is left out
PUPIL = '; halfway between these and the answers of a larger model lies what this one was asked for' # of a small model
DOUBTS = '''Some labels of these sets are wrong, and who sees rightly is counted as wrong there. Two readers, both of them general models that look at pictures and not people, looked for such labels in November 2026, and were shown no answer of ours.
The first saw all 3,856 faces, each with its label and age, and passed over what is merely hard to tell (it had met four of the mistakes before). The second saw, without label and age, what the first had picked out, all 84 mistakes that `gender_resnet18` makes, and 90 faces on which it is right.
Left out below are the {label} faces whose label both contradict, and {age} that both took for a small child while the age is unknown or given as 21. `{name}` lists them. This model answers otherwise than labelled for {of} of them, and for {mistakes} of all.'''
COLUMNS = ['fn','labels','source','age','race','person'] # of a table as readers give it
TITLES = dict(utkface='UTKFace, held out', celeba='CelebA, held out', lfw='LFW, held out') # of the sources of the figures
LIMITS = [
    'It guesses apparent presentation in one photo. It says nothing of who a person is, and "neither" never means a person\'s identity.',
    'The sets it learned from know two labels. People whom these do not fit are not represented, and are labelled all the same.',
    'Children: the younger, the less there is to see, and the more often it is wrong; the table by age has the figures.',
    'Thresholds were set for an error that is a mean over all, children too: the table "The stated error" names the groups for which it is not kept.',
    'The groups of "race" are UTKFace\'s, estimated by a program and checked by one person. They are there to find differences, not to describe people.',
    'CelebA is of celebrities and LFW of people in the news around 2003: both lean to the West, and to men in LFW.',
    'Upside-down faces, heavy occlusion and drawings were not trained for.',
]
UNSEEN = 'A source of which it saw no picture costs it something: `trials.md` has what a net trained in the same way, but without LFW, is worth there.' # not tried for a pupil


def read(root):
    "The table of all four sets"
    return concat(read_utkface(root/'utkface'), read_celeba(root/'celeba'), read_lfw(root/'lfw'), read_neither(root/'not_a_face', 'neither')).df


def prepared(root, runs, margin=MARGIN, leave=None):
    "`prepare`, kept for a run that goes on; of the source `leave` everything is held out; ends the program if what is kept is of another folder or split"
    fn = runs/(f'prepared-{margin:g}'+(f'-no-{leave}' if leave else '')+'.pkl')
    if not fn.exists():
        df = read(root)
        if leave and leave not in set(df.source): raise SystemExit(f'there is no source {leave}; there are {", ".join(sorted(set(df.source)))}')
        df.loc[df.source==leave, 'split'] = 'test'
        fn.write_bytes(pickle.dumps(prepare(df, margin=margin)))
    df,y = pickle.loads(fn.read_bytes())
    try: names = [key(root, o) for o in df.fn] # `finish` needs them, hours later
    except ValueError: names = []
    if not names or (hold_out(df, df.group, SHARE)!=df.valid).any(): raise SystemExit(f'{fn} is of another folder than {root}, or of another division of its pictures: delete it, or give other --runs')
    return df,y


def shown(df):
    "Balanced accuracy on each source's held-out faces, shown after each epoch"
    v = df[df.valid].reset_index(drop=True)
    def bal(p, t, sel):
        ok = (np.array(LABELS)[p.argmax(1)]==v.labels)[sel]
        return balanced(ok, v.labels[sel])['value']
    res = []
    for o in sorted(set(v.source[v.labels!=''])):
        f = partial(bal, sel=((v.source==o)&(v.labels!='')&~(v.age<10)).to_numpy())
        f.__name__ = o
        res.append(AccumMetric(f, flatten=False))
    return res


def held_out(root, out):
    "The held-out pictures of the model `out`, by the list beside it"
    names,df = set(names_file(out).read_text(encoding='utf-8').split()),read(root)
    return df[df.fn.map(lambda o: key(root, o)).isin(names)].reset_index(drop=True)

def names_file(out): return Path(f'{out}.held_out.txt')
def calibration_file(out): return Path(f'{out}.calibration.txt')

def in_calibration(root, out, df):
    "Which rows of `df` the model `out` was calibrated on, by the list beside it; no temperature or threshold was chosen by the other ones of `held_out`"
    names = set(calibration_file(out).read_text(encoding='utf-8').split())
    return df.fn.map(lambda o: key(root, o) in names).to_numpy()

def calibrated(root, out, df):
    "Choose temperatures and thresholds on half of the held-out pictures `df`, people and copies on one side, and note which half it was"
    half = df[halves(df, linked_groups(df.drop(columns='crop', errors='ignore')))] # whole pictures, as `held_out` gives them
    res = calibrate_model(out, evaluate_model(out, half).df) # which may refuse: then the list stays as it is
    calibration_file(out).write_text('\n'.join(sorted(key(root, o) for o in half.fn))+'\n', encoding='utf-8')
    return res

def crops_of(out, df):
    "The pictures of `df` as the model `out` sees them"
    spec = read_json(out)
    return load_crops(make_crops(df, spec['size'], spec['margin'])[0].crop)

def quantized(root, out, n=512):
    "Make the twin in whole numbers: ranges from `n` training pictures, as many of each source, checked on all held-out pictures"
    names,df = set(names_file(out).read_text(encoding='utf-8').split()),read(root)
    held = df.fn.map(lambda o: key(root, o)).isin(names)
    some = df[~held].sample(frac=1, random_state=42).groupby('source').head(n//df.source[~held].nunique())
    return quantize_model(out, crops_of(out, some), crops_of(out, df[held]))

def twin_again(root, out):
    "What the JSON says of the twin of `out`, measured again"
    was = {k:v for k,v in read_json(out).get('int8', {}).items() if k=='ranges_from'}
    return dict(twin_agreement(out, crops_of(out, held_out(root, out))), **was)

def key(root, fn): return hashlib.sha1(Path(fn).relative_to(root).as_posix().encode()).hexdigest()[:12] # LFW's names are people's


def sources_table(groups):
    "The card's table of (name, faces)"
    rows = [['held-out pictures', 'number', 'balanced accuracy, %', 'men, %', 'women, %']]
    for name,g in groups: rows.append([name, f'{len(g):,}', pct(balanced(g.correct, g.labels)), *(pct(rate(g.correct[g.labels==o])) for o in ('male','female'))])
    return md_table(rows)


def doubts_file(out): return Path(f'{out}.doubts.txt')

def doubted(root, out, df):
    "What is doubted of each picture of `df`, by the list beside the model `out`: 'label', 'age', or '' as of most; None if there is no such list"
    if not doubts_file(out).exists(): return None
    why = dict(o.split() for o in doubts_file(out).read_text(encoding='utf-8').splitlines() if o.strip())
    return df.fn.map(lambda o: why.get(key(root, o), ''))

def doubt_text(ev, why):
    "The card's paragraphs and table without the faces of which something is doubted; none if nobody looked"
    if why is None: return
    face,kept = (lambda d: d[d.labels!='']),older(ev.df[why==''], 10)
    d = face(older(ev.df, 10)).assign(why=why)
    s,by = selective_risk(kept),'sex x race'
    yield '### Without the faces that two readers doubt'
    yield DOUBTS.format(label=(d.why=='label').sum(), age=(d.why=='age').sum(), mistakes=(~d.correct).sum(), of=(~d.correct[d.why!='']).sum(), name=doubts_file(ev.name).name)
    yield sources_table([*face(kept).groupby('source'), ('all', face(kept))])
    text = f'Wrong are {pct(s.loc[0.])} % of them, and {pct(s.loc[.01])} % when the hundredth that it is least sure of is left out.'
    groups = evaluate_scores(kept, ev.spec, sensitive_features=[by]).groups[by] if by in ev.groups else None
    if groups is None or not groups.comparable: yield text; return
    g = groups.worst()
    yield text+f' Of sex and race the worst is then {g.name}: {pct(dict(value=g.accuracy, low=g.low, high=g.high))} % of {int(g.n):,}.'


def figures(ev, test=None, error=None, robust=None, flips=None, why=None):
    "The card's tables of an evaluation; `test`: rows that no threshold was chosen on; `why`: from `doubted`"
    d = older(ev.df, 10)
    table = sources_table([*d[d.labels!=''].groupby('source'), ('utkface, all ages', ev.df[(ev.df.source=='utkface')&(ev.df.labels!='')])])
    t = d if test is None else older(ev.df[test], 10)
    face,no = t[t.labels!=''],t[t.labels=='']
    text = f'''Pictures without a face that are "neither": {pct(rate(no.decision=='neither'), 2)} % of {len(no):,}. Faces called "neither": {pct(rate(face.decision=='neither'), 2)} % of {len(face):,}. Faces left "unsure": {pct(rate(face.decision=='unsure'), 2)} %.

In the table the label with the larger probability is the answer; faces under ten years are left out unless said; intervals are 95 %. No held-out picture was trained on. The length of training was chosen with an eye on these figures, so expect a little less elsewhere.'''
    if test is not None: text += f' Temperature and thresholds were chosen on half of the held-out pictures, children among them; what depends on them was measured on the other half, {len(t):,}.'
    return '\n\n'.join([table, text, *doubt_text(ev, why), card_figures(ev, test, error, robust, flips)])


def measured(root, out, n_robust=0):
    "The evaluation of a model on its held-out pictures, the card's text of its figures, and the main ones for its JSON"
    df = held_out(root, out)
    ev,spec = evaluate_model(out, df, min_age=10),read_json(out)
    fit = ev.df.fn.isin(df.fn[in_calibration(root, out, df)]) if spec.get('calibration') else None
    test = None if fit is None else ~fit
    robust,flip = disturbed(Labeller(f'{out}.onnx', precision='fp32'), older(ev.df if test is None else ev.df[test], 10)[COLUMNS], n_robust) if n_robust else (None,None)
    main = ev.metrics()
    if test is not None: main.loc[DECIDED] = metrics_table(older(ev.df[test], 10)).loc[DECIDED] # thresholds change these
    valid = {k: {c: round(float(r[c]), 4) for c in ('value','low','high')} for k,r in main.iterrows()}
    return ev,figures(ev, test, (spec.get('calibration') or {}).get('error'), robust, flip, doubted(root, out, ev.df)),valid


def card(root, out, n_robust=0):
    "Write the card of the model `out`; every figure in it is measured"
    spec,(ev,text,valid) = read_json(out),measured(root, out, n_robust)
    spec = update_spec(out, training={**spec['training'], 'valid': valid}, **(dict(int8=twin_again(root, out)) if TWIN[1:] in spec['sha256'] else {}))
    n,name,runs = spec['training']['pictures'],Path(out).name,spec['training'].get('runs', [])
    pupil,leave = any('pupil_of' in o for o in runs),(OPTIONS|(runs[-1] if runs else {}))['leave']
    start = 'weights="face"' if name==MODEL_NAME else f'arch="{spec["arch"]}", weights="{"face" if name==SMALL_NAME else name+".safetensors"}"'
    facts = dict(head=card_head(spec, ev, TITLES, license_name='non-commercial-research'), command=spec['training']['command'], figures=text, limits=[*LIMITS, *([] if pupil else [UNSEEN])],
        summary=f'A {spec["arch"]} that says of a square crop of a face how likely it is to look male and female. A picture of neither gets two low numbers.',
        uses=['learning and prototyping: labelling faces in photographs by how they appear, with a person who looks at the answers',
              f'a start for training on other pictures of faces (`face_learner({start})`)',
              '**not** decisions about people, identification, or counting people who have not agreed to it'],
        data=[{**o} for o in DATA if not o['set'].lower().startswith(str(leave))], terms='The weights are for non-commercial research, as the pictures are. The code is Apache-2.0.',
        training=f'A {spec["arch"]} with two outputs. '+training_text(runs)+f'\n\nTrained on {sum(n.values()):,} pictures: '+', '.join(f'{k} {v:,}' for k,v in n.items())+'.'+''.join(map(run_text, runs)))
    write_card(out, facts)


def pupil_targets(x, y, train, stem):
    "`y` with the opinion of the model `stem` of the pictures `x` where `train`, halfway between it and what stood there"
    y,p = y.copy(),np.concatenate([*Labeller(f'{stem}.onnx', detector=lambda bgr, score: [], precision='fp32')._run('probs', x[train])])
    y[train,:2] = (y[train,:2]+p)/2
    return y


def training_text(runs):
    "How a net was trained, for a card, by the options of its last run"
    o = OPTIONS|(runs[-1] if runs else {})
    return TRAINING.format(pupil=PUPIL*any('pupil_of' in r for r in runs), teacher='twice' if o['teacher']==2 else f'{o["teacher"]:g} times', zoom=' to '.join(f'{v:g}' for v in o['zoom']),
        least='a third' if o['least']==.33 else f'{o["least"]*100:g} %', split=f' Of {o["leave"]} all is held out.' if o['leave'] else SPLIT)

def run_text(run):
    "How one of a model's runs went, for a card, from what its JSON says"
    at64 = min(run['small'], run['epochs'])
    sizes = f'{at64} of them at 64 px and {run["epochs"]-at64} at 112 px, ' if at64 else ''
    text = f' They were seen in {run["epochs"]} epochs, {sizes}to a peak learning rate of {run["lr"]:g}, on {run["device"]}'+(f' in {run["minutes"]:.0f} minutes.' if run.get('minutes') else '.')
    if 'note' in run: text += f' {run["note"]}.'
    return text+(f' The model that it learned from, `{run["pupil_of"]["name"]}.onnx`, has the SHA-256 {run["pupil_of"]["sha256"][:16]}….' if 'pupil_of' in run else '')

def device_name():
    "What a run is trained on"
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f'{n_cpus(most=10**6)} cores without a GPU'

def trained_before(start):
    "What the net that a run starts from was trained by: commands, and runs"
    t = read_json(start.with_suffix(''))['training'] if start and start.with_suffix('.json').exists() else {}
    return t.get('command', '').splitlines(),t.get('runs', [])

def finish(learn, df, root, out, command, runs, margin=MARGIN, n_robust=0):
    "Write the model, the names of what was held out, measure it and write its card; `runs`: how it was trained, for `run_text`"
    learn.dls.vocab,learn.loss_func = LABELS,SmoothBCE()
    n = df[~df.valid].groupby('source').size().to_dict()
    spec = dict(labels=LABELS, size=112, margin=margin, neither_below=.4, thresholds={o:.5 for o in LABELS}, training=dict(command=command, pictures=n, runs=runs))
    export_learner(learn, out, spec, pkl=False)
    names = '\n'.join(key(root, o) for o in df.fn[df.valid])+'\n'
    if names_file(out).exists() and sorted(names_file(out).read_text(encoding='utf-8').split())!=sorted(names.split()): doubts_file(out).unlink(missing_ok=True) # nobody has looked at these
    names_file(out).write_text(names, encoding='utf-8')
    calibrated(root, out, df[df.valid])
    try: quantized(root, out)
    except ValueError as e: print(f'{out} has no twin in whole numbers: {e}')
    card(root, out, n_robust)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('faces', type=Path)
    p.add_argument('--out', type=Path, default=Path('models/gender_resnet18'))
    p.add_argument('--runs', type=Path, default=Path('runs/default'))
    p.add_argument('--epochs', type=int, default=EPOCHS)
    p.add_argument('--small', type=int, default=max(SCHEDULE), help='of these, epochs at 64 px')
    p.add_argument('--arch', default='resnet18', help='the net, as in `face_learner`')
    p.add_argument('--pupil-of', type=Path, metavar='STEM', help='a model whose opinion of each picture is learned as well as its label')
    p.add_argument('--lr', type=float, default=3e-3, help='peak of the learning rate')
    p.add_argument('--start', type=Path, help='safetensors file of the net to go on from')
    p.add_argument('--margin', type=float, default=MARGIN, help='side of a crop as a multiple of the face')
    p.add_argument('--zoom', type=float, nargs=2, default=OPTIONS['zoom'], metavar=('LEAST','MOST'), help='how much of a crop is seen in training, as shares of its side')
    p.add_argument('--teacher', type=float, default=OPTIONS['teacher'], metavar='W', help="weight of the teacher's numbers beside the labels")
    p.add_argument('--least', type=float, default=OPTIONS['least'], metavar='SHARE', help='of a small source as many faces are seen in an epoch as this share of the largest one')
    p.add_argument('--leave', metavar='SOURCE', help='hold out all of a source: utkface, celeba or lfw')
    p.add_argument('--measure', action='store_true', help='measure the model that is there, and print its figures')
    p.add_argument('--card', action='store_true', help='measure the model that is there, and write its card')
    p.add_argument('--robust', type=int, default=600, metavar='N', help='faces that are blurred, turned, covered … in the card and for --measure; 0: none')
    p.add_argument('--int8', action='store_true', help='make the twin in whole numbers of the model that is there')
    p.add_argument('--calibrate', action='store_true', help='calibrate the model that is there')
    a = p.parse_args()
    if a.calibrate: return print(json.dumps(calibrated(a.faces, a.out, held_out(a.faces, a.out)), indent=1))
    if a.int8: return print(json.dumps(quantized(a.faces, a.out), indent=1))
    if a.card: return card(a.faces, a.out, a.robust)
    if a.measure: return print(measured(a.faces, a.out, a.robust)[1])
    with_big_pages()
    a.runs.mkdir(parents=True, exist_ok=True)
    df,y = prepared(a.faces, a.runs, a.margin, a.leave)
    x,y,valid = with_squares(df, load_crops(df.crop), y, n=2)
    if a.pupil_of:
        if read_json(a.pupil_of)['margin']!=a.margin: raise SystemExit(f'{a.pupil_of} has another margin than {a.margin:g}')
        y = pupil_targets(x, y, ~valid, a.pupil_of)
    rows = np.r_[:len(x), more_rows(df, least=a.least)]
    said = lambda v: ' '.join(map(str, v)) if isinstance(v, list) else v
    opts = {k:f'--{k.replace("_", "-")} {said(getattr(a, k))}' for k in ('arch','pupil_of','epochs','small','lr','start','margin','zoom','teacher','least','leave','out')}
    args = [v for k,v in opts.items() if getattr(a, k)!=p.get_default(k)]
    pupil_of = a.pupil_of and dict(name=a.pupil_of.name, sha256=sha256(f'{a.pupil_of}.onnx'))
    own = hashlib.sha1(' '.join([*opts.values(), str(pupil_of)]).encode()).hexdigest()[:6] # a run of other options is another run
    ckpt,began = a.runs/f'checkpoint-{own}.pt',time.time()
    resumed = ckpt.exists()
    learn = pretrain(x[rows], y[rows], valid[rows], ckpt, n_epoch=a.epochs, schedule={0:64, a.small:112}, lr=a.lr, arch=a.arch, start=a.start,
        metrics=shown(df), w=a.teacher, aug=FaceAug(zoom=tuple(a.zoom)), keep=True)
    run = dict(epochs=a.epochs, small=a.small, lr=a.lr, minutes=None if resumed else round((time.time()-began)/60, 1), device=device_name())|(dict(pupil_of=pupil_of) if pupil_of else {})|{k:getattr(a, k) for k,v in OPTIONS.items() if getattr(a, k)!=v}
    typed,runs = trained_before(a.start)
    finish(learn, df, a.faces, a.out, '\n'.join([*typed, ' '.join(['python tools/train_default.py FACES', *args])]), [*runs, run], a.margin, a.robust)
    ckpt.unlink()


if __name__=='__main__': main()
