"""How much of what is wrong with a data set does `gender_classifier data check` find, how fast, and what is it good for?

    python tools/bench_check.py [--faces FOLDER ...] [--others FOLDER] [--people FOLDER] [--n 4000] [--seed 42] [--keep FOLDER]
    python tools/bench_check.py --scale 20000 [--add 100]
    python tools/bench_check.py --train [--seeds 42 43 44] [--epochs 8] [--side 48] [--keep FOLDER]

Copies N faces of the folders (by default of utkface and celeba in ../shared/data, or what GENDER_CLASSIFIER_DATA names) to a
temporary folder and plants problems in them (`synth.make_messy`): 10 % wrong labels, 3 % near-copies, 2 % blurred, 2 % without a face
and more. People of whom there are two pictures (of --people) are put on both sides of the split, in files named by the person. Then prints
for each kind how many were planted, how many of them were found, and how much of what was found was planted.
Faces of real sets have problems of their own, so what was found and not planted is not always wrong: pairs are compared once more
at full size by another measure, which tells copies that were there before from mistakes.
With --scale, the seconds and memory of a check of that many pictures, of a second one, and of one more after --add pictures are added.
With --train, what cleaning does to accuracy: nets are trained from scratch on N broken pictures as they are, on what is left when all
that the check suspects is taken out unseen, on what a person leaves who looks at what it shows, and on the pictures as they were before. All
are measured on the same other faces, which nothing was done to, and of which no copy and no person is among the N. Three seeds, of the
mess and of the net. With --keep it goes on where it was cut off."""
import argparse, json, os, pickle, platform, random, shutil, subprocess, sys, tempfile, time
from pathlib import Path

import cv2, numpy as np, pandas as pd
from gender_classifier.core import cpu_name, image_files, n_cpus, open_image, with_big_pages

repo = Path(__file__).resolve().parent.parent
CHECK = """import pickle, sys, time
start = time.perf_counter()
from gender_classifier.ingest import read_folders
from gender_classifier.quality import find_issues, measure
df = read_folders(sys.argv[1], person=r'(who\\d+)_').df
m = measure(df, root=sys.argv[1], progress=False)
mid = time.perf_counter()
issues = find_issues(df, m, root=sys.argv[1])
pickle.dump((issues.df, issues.pairs, issues.summary, m.drop(columns='signature'), mid-start, time.perf_counter()-mid), open(sys.argv[2], 'wb'))"""

def check(d, out):
    "(what the check found, seconds of all, largest resident megabytes, processor seconds), in a process of its own"
    start = time.perf_counter()
    p = subprocess.Popen([sys.executable, '-c', CHECK, str(d), str(out)])
    _, status, use = os.wait4(p.pid, 0)
    if status: sys.exit(f'the check ended with status {os.waitstatus_to_exitcode(status)}')
    return pickle.loads(out.read_bytes()), time.perf_counter()-start, use.ru_maxrss/1024, use.ru_utime+use.ru_stime

def same_photo(a, b, side=160):
    "Agreement (0 to 1) of the fine detail of two pictures at full size, laid over one another; `b` also mirrored"
    def fine(img):
        g = cv2.resize(cv2.cvtColor(np.asarray(img), cv2.COLOR_RGB2GRAY), (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
        return cv2.GaussianBlur(g, (0, 0), 1.2)-cv2.GaussianBlur(g, (0, 0), 6)
    x, y = fine(open_image(a)), fine(open_image(b))
    def fit(x, y):
        try: return cv2.findTransformECC(x, y, np.eye(2, 3, dtype=np.float32), cv2.MOTION_AFFINE, (3, 60, 1e-5), None, 5)[0]
        except cv2.error: return 0.
    return max(fit(x, y), fit(y, x), fit(x, np.ascontiguousarray(y[:, ::-1])), fit(np.ascontiguousarray(y[:, ::-1]), x))

def pair_set(a, b): return {frozenset(o) for o in zip(map(str, a), map(str, b))}

def report_copies(truth, pairs, n):
    "Print how many planted copies are found, and which pairs are none"
    made = truth[truth.issue.isin(['near_duplicates', 'exact_duplicates'])]
    found = pair_set(pairs.a, pairs.b)
    for (issue, how), o in made.groupby(['issue', 'how']):
        got = sum(frozenset((r.fn, r.of)) in found for r in o.itertuples())
        print(f'  {how:14}{got:4} of {len(o):4} found ({got/len(o):.1%})')
    near = made[made.issue=='near_duplicates']
    planted = pair_set(made.fn, made.of)
    hit = sum(frozenset((r.fn, r.of)) in found for r in near.itertuples())
    other = [o for o in pairs.itertuples() if frozenset((o.a, o.b)) not in planted]
    sims = [same_photo(o.a, o.b) for o in other]
    false = [(o, s) for o, s in zip(other, sims) if s<.9]
    print(f'  near-copies   {hit} of {len(near)} found ({hit/max(len(near), 1):.1%}); {len(other)} pairs besides the planted ones, of which {len(other)-len(false)} agree at full size '
          f'too (copies that were there before), and {len(false)} do not: {len(false)/max(len(pairs), 1):.2%} of {len(pairs)} pairs found, {len(false)/n:.3%} of the pictures')

def report_issues(truth, df):
    "Print recall and precision of each kind of issue, and what the false ones are"
    df = df[df.fn.isin(truth.fn)]
    t = truth.set_index('fn').issue.reindex(df.fn).fillna('')
    print(f'  {"":18}planted  found          flagged: this was planted, another problem was, nothing was')
    for k in sorted(set(t)-{'', 'label', 'near_duplicates', 'exact_duplicates'}):
        flag = df[f'is_{k}_issue'].to_numpy()
        if k=='no_face': flag = flag|df.is_doubtful_face_issue.to_numpy()
        y = (t==k).to_numpy()
        clean = (t=='').to_numpy()
        a, b, c = (y&flag).sum(), (flag&~y&~clean).sum(), (flag&clean).sum()
        print(f'  {k:18}{y.sum():7}  {a:5} ({a/y.sum():6.1%})  {a:7} {b:7} {c:7}   precision {a/max(a+c, 1):.1%}')
    print('  clean ones flagged:', {k:int(df[f'is_{k}_issue'].to_numpy()[(t=='').to_numpy()].sum()) for k in [c[3:-6] for c in df if c.startswith('is_') and c.endswith('_issue')]})

def unseen(truth, root):
    "Which planted pictures are of faces that the shipped model was not trained on: those in the list beside it"
    from train_default import key, names_file
    names = set(names_file(repo/'models/gender_resnet18').read_text().split())
    return {r.fn for r in truth.itertuples() if Path(r.src).is_relative_to(root) and key(root, r.src) in names}

def report_labels(truth, df, issues, root):
    "Print how many wrong labels are in the worst tenth, by the shipped model's features and by others that were never trained"
    from gender_classifier.crops import make_crops
    from gender_classifier.suspects import label_errors, out_of_fold
    use = make_crops(df[~issues.is_unreadable_issue.to_numpy()], progress=False)[0]
    wrong,new = set(truth.fn[truth.issue=='label']),unseen(truth, root)
    for features in ('body','hog'):
        start = time.perf_counter()
        worst = label_errors(use, out_of_fold(use, features=features, progress=False))
        tenth,flagged = set(worst.fn.head(round(.1*len(use)))),set(worst.fn[worst.is_label_issue])
        print(f'  wrong labels      {len(wrong&tenth)} of {len(wrong)} in the worst tenth by {features} ({len(wrong&tenth)/len(wrong):.1%}; {len(wrong&tenth)/len(tenth):.1%} of it); '
              f'called wrong: {len(flagged)}, of which {len(flagged&wrong)/max(len(flagged), 1):.1%} are; of faces that the shipped model never saw '
              f'{len(wrong&tenth&new)} of {len(wrong&new)} ({len(wrong&tenth&new)/max(len(wrong&new), 1):.1%}); {time.perf_counter()-start:.0f} s')

def plant_people(d, folder, n, seed):
    "Put two pictures of each of `n` people into the data set `d`, one in train and one in valid, under a name that says who it is; their files"
    from gender_classifier.ingest import read_lfw
    df = read_lfw(folder).df.sample(frac=1, random_state=seed)
    two = [o for _,o in df.groupby('person', sort=False) if len(o)>1][:n]
    fns = [(r.fn, d/split/r.labels/f'who{i:04}_{split}.jpg') for i,o in enumerate(two) for r,split in zip(o.itertuples(), ('train','valid'))]
    for a,b in fns: shutil.copy(a, b)
    return [str(b) for _,b in fns]

def report_leaks(truth, df, people):
    "Print how many of the copies across splits, of those across labels and of the people on both sides are flagged, and what else is"
    found,t = df.set_index(df.fn.map(str)),truth.set_index('fn')
    made = truth[truth.of!='']
    orig = t.reindex(made.of)
    seen = {}
    for k,text,apart in (('leak','copies across train and valid',made.split.to_numpy()!=orig.split.to_numpy()), ('conflict','copies with different labels',made.labels.to_numpy()!=orig.labels.to_numpy())):
        fns = made[apart]
        got = found[f'is_{k}_issue'].reindex(fns.fn).to_numpy()&found[f'is_{k}_issue'].reindex(fns.of).to_numpy()
        seen[k] = {*fns.fn, *fns.of, *people}
        print(f'  {text:32}{got.sum():4} of {len(got):4} found ({got.mean():.1%}); flagged besides: {len(set(found.index[found[f"is_{k}_issue"]])-seen[k])} pictures')
    if people: print(f'  {"people on both sides, named":32}{found.is_leak_issue.reindex(people).sum():4} of {len(people):4} pictures found; of these as copies of one another, names unknown: {found.is_near_duplicates_issue.reindex(people).sum()}')

def run_quality(args, d):
    "Recall and precision of each kind"
    from gender_classifier.synth import make_messy
    truth = make_messy(d/'messy', args.faces, [args.others], n=args.n, seed=args.seed)
    people = plant_people(d/'messy', args.people, args.n//80, args.seed) if args.people.exists() else []
    (df, pairs, _, m, secs, more), wall, mb, cpu = check(d/'messy', d/'found.pkl')
    print(f'{len(df)} pictures: {wall:.1f} s ({secs:.1f} s to measure, {more:.1f} s to compare), {cpu:.0f} s of processor, at most {mb:.0f} MB')
    report_copies(truth, pairs, args.n)
    report_leaks(truth, df, people)
    report_issues(truth, df)
    if args.keep: pickle.dump((truth, df, pairs, m), open(Path(args.keep)/'bench.pkl', 'wb'))
    if not args.quick: report_labels(truth, df[[*truth.columns.intersection(df.columns)]], df, args.faces[0].parent)

def run_scale(args, d):
    "Seconds and memory of a large set, again, and with some added"
    fns = [o for f in args.faces for o in image_files(f)]
    random.Random(args.seed).shuffle(fns)
    if len(fns)<args.scale+args.add: sys.exit(f'{len(fns)} faces are there, and {args.scale+args.add} are needed: name more folders')
    for o in ('male', 'female'): (d/'large'/o).mkdir(parents=True)
    def add(a, b):
        for i in range(a, b): shutil.copy(fns[i], d/'large'/('male', 'female')[i%2]/f'{i:06}{fns[i].suffix}')
    add(0, args.scale)
    for what in ('first', 'again', f'{args.add} added'):
        if what.endswith('added'): add(args.scale, args.scale+args.add)
        (df, pairs, _, _, secs, more), wall, mb, cpu = check(d/'large', d/'found.pkl')
        print(f'{what}: {len(df)} pictures in {wall:.1f} s ({secs:.1f} s to measure, {more:.1f} s to compare), {cpu:.0f} s of processor, at most {mb:.0f} MB; {len(pairs)} pairs', flush=True)

def kept(fn, f):
    "What `f` gives, or gave once before"
    if not fn.exists():
        fn.parent.mkdir(parents=True, exist_ok=True)
        part = fn.with_suffix('.part')
        part.write_bytes(pickle.dumps(f()))
        part.replace(fn)
    return pickle.loads(fn.read_bytes())

def messy_faces(args, d, seed):
    "A messy folder and what is wrong with it; its test part, to which nothing is done, is half as large as the rest"
    from gender_classifier.synth import make_messy
    if d.exists(): shutil.rmtree(d) # cut off
    return make_messy(d, args.faces, [args.others], n=round(1.5*args.n), fracs=(8/15,2/15,1/3), seed=seed)

LOOKED_AT = .1 # the share of the pictures whose labels a person looks at

def arms(truth, d):
    "What there is to learn from: name -> table of `fn` and `labels`"
    from gender_classifier.quality import find_issues
    from gender_classifier.suspects import label_errors, out_of_fold
    df = truth[truth.split!='test'].reset_index(drop=True)
    found = find_issues(df, root=d).df
    flags = found[[o for o in found if o.startswith('is_') and o.endswith('_issue') and o[3:-6] not in ('exact_duplicates','near_duplicates','leak','odd_size')]]
    copy,flagged = found.copy_of!='',flags.any(axis=1)
    use = df[~found.is_unreadable_issue]
    worst = label_errors(use, out_of_fold(use, progress=False))
    seen = df.index.isin(worst.index[:round(LOOKED_AT*len(use))])
    return dict(
        broken=use[['fn','labels']],
        suggested=df.loc[~flagged&~copy&~df.index.isin(worst.index[worst.is_label_issue]), ['fn','labels']],
        looked_at=df.assign(labels=df.true.where(seen|found.is_conflict_issue, df.labels))[lambda o: ~copy&(~flagged|o.issue.isin(['','label']))&(o.labels!='')][['fn','labels']],
        as_it_was=df[(df.of=='')&(df.true!='')].drop(columns=['fn','labels']).rename(columns=dict(src='fn', true='labels'))[['fn','labels']])

def valid_faces(truth, crops):
    "The faces to measure by: the test part without those under ten years, and without copies of the others"
    from gender_classifier.data import picture_groups
    t = truth[truth.fn.isin(crops)].reset_index(drop=True)
    groups = picture_groups(t, np.stack([crops[o] for o in t.fn]))
    test = (t.split=='test').to_numpy()
    return t[test&~np.isin(groups, groups[~test])&~(t.age<10).to_numpy()][['fn','labels']]

def prepare_train(args, d, seed):
    "The tables to learn from, that to measure by, and the crops of all their pictures, by file"
    from gender_classifier.crops import load_crops, make_crops
    truth = kept(d/'truth.pkl', lambda: messy_faces(args, d/'messy', seed))
    res = arms(truth, d/'messy')
    fns = pd.DataFrame(dict(fn=pd.unique(pd.concat([*(o.fn for o in res.values()), truth.fn[truth.split=='test']]))))
    cut = make_crops(fns, size=args.side, cache=d/'crops', progress=False)[0]
    crops = dict(zip(cut.fn, load_crops(cut.crop)))
    left = {k:int((o.set_index('fn').labels!=truth.set_index('fn').true.reindex(o.fn)).sum()) if k!='as_it_was' else 0 for k,o in res.items()}
    return res,valid_faces(truth, crops),crops,left

def balanced_of(df, valid, crops, seed, n_epoch, ckpt):
    "Balanced accuracy on `valid` of a resnet18 that learned from `df`, from scratch"
    from fastai.torch_core import trainable_params
    from gender_classifier.core import LABELS
    from gender_classifier.learner import EMA, face_learner, fit_resumable, learn_probs
    from gender_classifier.memory import memory_dls
    from sklearn.metrics import balanced_accuracy_score
    x,xv = (np.stack([crops[o] for o in t.fn]) for t in (df,valid))
    y = np.stack([df.labels==o for o in LABELS], 1).astype(np.float32)
    few = np.arange(len(x)+64)>=len(x) # fastai wants some to look at after each epoch
    dls = memory_dls(np.concatenate([x,x[:64]]), np.concatenate([y,y[:64]]), few)
    learn = face_learner(dls, weights=None, seed=seed, clip=1., wd=.05, metrics=[], n_out=2, splitter=trainable_params, lin_ftrs=[], concat_pool=False, ps=.2, cbs=[EMA(.99)])
    with learn.no_bar(), learn.no_logging(): fit_resumable(learn, ckpt, n_epoch, 3e-3, pct_start=.2)
    return float(balanced_accuracy_score(valid.labels, np.array(LABELS)[learn_probs(learn, xv, 256).argmax(1)]))

def run_train(args, d):
    "What cleaning does to accuracy"
    d = args.keep or d
    d.mkdir(parents=True, exist_ok=True)
    log = d/'runs.jsonl'
    done = [json.loads(o) for o in log.read_text().splitlines()] if log.exists() else []
    for seed in args.seeds:
        names = ['broken','suggested','looked_at','as_it_was']
        if {(seed,o) for o in names}<={(o['seed'],o['arm']) for o in done}: continue
        start = time.perf_counter()
        tables,valid,crops,left = kept(d/f'{seed}'/'prepared.pkl', lambda: prepare_train(args, d/f'{seed}', seed))
        print(f'seed {seed}: {len(valid)} faces to measure by; made ready in {time.perf_counter()-start:.0f} s', flush=True)
        for name in names:
            if any((o['seed'],o['arm'])==(seed,name) for o in done): continue
            df,start = tables[name][tables[name].fn.isin(crops)],time.perf_counter()
            n_epoch = round(args.epochs*len(tables['broken'])/len(df)) # as many steps for all
            b = balanced_of(df, valid, crops, seed, n_epoch, d/f'{seed}'/f'{name}.pt')
            done.append(dict(seed=seed, arm=name, pictures=len(df), wrong=left[name], valid=len(valid), epochs=n_epoch, balanced=round(b, 5), seconds=round(time.perf_counter()-start)))
            with log.open('a') as f: f.write(json.dumps(done[-1])+'\n')
            print(json.dumps(done[-1]), flush=True)
    report_train(pd.DataFrame(done)[lambda o: o.seed.isin(args.seeds)])

def report_train(df):
    "Print the balanced accuracy of each way, and how far it is from that of the broken pictures, seed by seed"
    about = dict(broken='broken, as it is', suggested='all suspects taken out unseen', looked_at='a person looked at what was shown', as_it_was='never broken')
    p = df.pivot(index='seed', columns='arm', values='balanced')*100
    for k,text in about.items():
        o,gain = df[df.arm==k],p[k]-p.broken
        print(f'  {text:34} {o.pictures.mean():6.0f} pictures, {o.wrong.mean():4.0f} wrong; balanced accuracy {p[k].mean():.1f} % (sd {p[k].std():.1f}; '
              f'{", ".join(f"{v:.1f}" for v in p[k])}); {gain.mean():+.1f} points ({gain.min():+.1f} to {gain.max():+.1f})')

def main():
    data = Path(os.environ.get('GENDER_CLASSIFIER_DATA') or repo.parent/'shared/data')
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--faces', type=Path, nargs='+', default=[data/'utkface', data/'celeba']); p.add_argument('--others', type=Path, default=data/'not_a_face'); p.add_argument('--people', type=Path, default=data/'lfw')
    p.add_argument('--n', type=int, default=4000); p.add_argument('--seed', type=int, default=42); p.add_argument('--keep', type=Path)
    p.add_argument('--quick', action='store_true', help='leave out the wrong labels')
    p.add_argument('--scale', type=int); p.add_argument('--add', type=int, default=100)
    p.add_argument('--train', action='store_true', help='accuracy before and after cleaning')
    p.add_argument('--seeds', type=int, nargs='+', default=[42,43,44])
    p.add_argument('--epochs', type=int, default=8); p.add_argument('--side', type=int, default=48, help='of the crops that the nets see, pixels')
    args = p.parse_args()
    if args.train: with_big_pages()
    print(f'{cpu_name()}, {n_cpus(most=10**6)} usable, load {os.getloadavg()[0]:.1f}; Python {platform.python_version()}', flush=True)
    with tempfile.TemporaryDirectory() as d: (run_scale if args.scale else run_train if args.train else run_quality)(args, Path(d))

if __name__ == '__main__': main()
