"""Training speed: this project's step against the plain fastai code of the lesson, side by side in one run.

    python tools/bench_train.py [DATA] [--size 112] [--bs 64] [--batches 20] [--rounds 3] [--small 14/26]

DATA is a folder with a folder per class; without it, 200 px faces are drawn. Both train a resnet18 from scratch on the same
pictures, at the same size and batch, on the device fastai picks. *plain*: fp32, `PILImage` decoded and resized in every epoch,
`aug_transforms()`. *ours*: crops in memory, `FaceAug`, bf16, channels-last and matrix products where the device gains from them, started
as `gender_classifier train` starts itself, with its memory in large pages. The two take turns, each in a process of its own. Time runs from
batch to batch, loading included; the first batches of each round are left out. Images a second, and their ratio in each round.
With --small a third takes its turn, ours at 64 px, and the ratio is also that of a recipe that trains this share of its epochs there.
"""
import argparse, os, platform, subprocess, sys, tempfile, time
from fractions import Fraction
from statistics import median
from pathlib import Path
import numpy as np, pandas as pd, torch, torchvision
from fastai.vision.all import (Callback, CancelFitException, CancelValidException, CategoryBlock, DataBlock, ImageBlock, RandomSplitter, Resize, aug_transforms,
    get_image_files, parent_label, vision_learner)
from gender_classifier.core import BIG_PAGES
from gender_classifier.crops import load_crops, make_crops
from gender_classifier.learner import face_learner, has_fast_bf16
from gender_classifier.memory import memory_dls
from gender_classifier.synth import synth_faces

WARM = 4 # batches before the clock runs


class Clock(Callback):
    "Seconds and images of the training batches after `WARM`, up to `n`"
    order = 100
    def __init__(self, n): self.n,self.i,self.images = n,0,0
    def before_validate(self): raise CancelValidException
    def after_batch(self):
        if torch.cuda.is_available(): torch.cuda.synchronize()
        self.i += 1
        if self.i==WARM: self.start = time.perf_counter()
        if self.i>WARM: self.images,self.end = self.images+len(self.xb[0]),time.perf_counter()
        if self.i>=self.n+WARM: raise CancelFitException

    @property
    def rate(self): return self.images/(self.end-self.start)


def timed(learn, n):
    "Images a second of `n` training batches"
    clock = Clock(n)
    learn.add_cb(clock)
    with learn.no_bar(), learn.no_logging(): learn.fit(100, 1e-3)
    return clock.rate


def plain(path, size, bs, cache):
    "The lesson's learner"
    dls = DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label, splitter=RandomSplitter(.2, seed=42),
        item_tfms=Resize(size), batch_tfms=aug_transforms()).dataloaders(path, bs=bs)
    return vision_learner(dls, torchvision.models.resnet18, pretrained=False)


def ours(path, size, bs, cache):
    "The same pictures through `crops` and `memory`"
    fns = [str(o) for o in get_image_files(path)]
    df = make_crops(pd.DataFrame(dict(fn=fns)), size=size, cache=cache, progress=False)[0]
    names = sorted({Path(o).parent.name for o in df.fn})
    y = np.eye(len(names))[[names.index(Path(o).parent.name) for o in df.fn]]
    return face_learner(memory_dls(load_crops(df.crop), y, np.random.default_rng(42).random(len(df))<.2, bs=bs), weights=None)


def turn(name, path, cache, args, size=None):
    "Images a second of one round of `name`, in a process of its own"
    cmd = [sys.executable, __file__, path, '--only', name, '--cache', cache, f'--size={size or args.size}', f'--bs={args.bs}', f'--batches={args.batches}']
    return float(subprocess.run(cmd, check=True, capture_output=True, text=True, env=os.environ | (BIG_PAGES if name=='ours' else {})).stdout.split()[-1])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('data', nargs='?')
    for name,v in (('size',112),('bs',64),('batches',20),('rounds',3)): p.add_argument(f'--{name}', type=int, default=v)
    p.add_argument('--small', type=Fraction, help='share of epochs at 64 px')
    p.add_argument('--only', choices=['plain','ours'], help='one round of one of them, in this process')
    p.add_argument('--cache', help='folder of the crops')
    a = p.parse_args()
    if a.only: return print(timed(globals()[a.only](a.data, a.size, a.bs, a.cache), a.batches))
    print(f'{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, bf16 {"on" if has_fast_bf16() else "off"}, '
          f'{"CUDA" if torch.cuda.is_available() else "no GPU"}; {a.size} px, batch {a.bs}', flush=True)
    with tempfile.TemporaryDirectory() as tmp, tempfile.TemporaryDirectory() as cache:
        if not a.data: synth_faces(tmp, n=700, size=200)
        rates = {'plain': [], 'ours': [], **({'ours at 64 px': []} if a.small else {})}
        n = len(get_image_files(a.data or tmp))
        if n*.8<a.bs: p.error(f'{a.data} has {n} pictures; four fifths of them are for training, and must fill a batch of {a.bs}: give more, or a smaller --bs')
        for _ in range(a.rounds):
            for name in rates: rates[name].append(turn(name.split()[0], a.data or tmp, cache, a, 64 if '64' in name else None))
            print('  '.join(f'{k} {v[-1]:.0f} images/s' for k,v in rates.items()), flush=True)
    say('ratio', rates['ours'], rates['plain'], a.rounds)
    if a.small: say(f'with {a.small} of the epochs at 64 px', [1/(a.small/q+(1-a.small)/o) for o,q in zip(rates['ours'], rates['ours at 64 px'])], rates['plain'], a.rounds)


def say(what, fast, slow, rounds):
    "The ratios of all rounds in a line"
    r = [float(o/p) for o,p in zip(fast, slow)]
    print(f'{what}: {median(r):.1f}, the median of {rounds} rounds ({min(r):.1f} to {max(r):.1f})')


if __name__=='__main__': main()
