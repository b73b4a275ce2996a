"""Does a second look in the mirror help where the network is in doubt? Mistakes on the held-out pictures, once with it and once without.

    python tools/try_mirror.py FACES [--low .05 .15 .25] [--out models/gender_resnet18]

FACES is as for `tools/train_default.py`. Faces of ten years and up. A face is in doubt if the network, before temperatures, gives either label a
probability between `--low` and one less `--low`; its logits are then the mean of those of the crop and of its mirror image. 0 is a second look at all.
"""
import argparse
from pathlib import Path
import numpy as np
from scipy.special import logit
from train_default import crops_of, held_out
from gender_classifier.core import LABELS
from gender_classifier.evaluate import md_table, pct, rate
from gender_classifier.inference import Labeller, temperatures


def mistakes(z, labels):
    "Which answers are wrong, by the larger of the logits (n, 2)"
    return np.array(LABELS)[z.argmax(1)]!=labels


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('faces', type=Path); p.add_argument('--out', type=Path, default=Path('models/gender_resnet18')); p.add_argument('--low', type=float, nargs='+', default=[.05,.15,.25,0.])
    a = p.parse_args()
    df = held_out(a.faces, a.out)
    df = df[(df.labels!='')&~(df.age<10)].reset_index(drop=True)
    lbl,x,labels = Labeller(f'{a.out}.onnx', precision='fp32'),crops_of(a.out, df),df.labels.to_numpy()
    raw,mirrored = (np.concatenate([*lbl._run('probs', o)]).astype(float).clip(1e-7, 1-1e-7) for o in (x, np.ascontiguousarray(x[:,:,::-1])))
    t = temperatures(lbl.spec)
    once,twice = logit(raw)/t,(logit(raw)+logit(mirrored))/2/t
    was = mistakes(once, labels)
    rows = [['in doubt from', 'faces, %', 'mistakes', 'mended', 'new'], ['no second look', '', f'{was.sum()} of {len(df):,}', '', '']]
    for low in a.low:
        doubt = ((raw>low)&(raw<1-low)).any(1)
        now = mistakes(np.where(doubt[:,None], twice, once), labels)
        rows.append([low, pct(rate(doubt)), now.sum(), (was&~now).sum(), (now&~was).sum()])
    print(f'{lbl!r}\n\n{md_table(rows)}')


if __name__=='__main__': main()
