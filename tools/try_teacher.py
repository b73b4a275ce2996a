"""How far could a pupil come? A logistic regression on the teacher's 128 numbers, on the pictures that `train_default` holds out.

    python tools/try_teacher.py FACES [--runs runs/default] [--leave lfw] [--rows 8000]

FACES, `--runs` and `--leave` are as for `tools/train_default.py`, whose prepared table is taken if it is there. Ages 10 and up; a minute on one core.
"""
import argparse
from pathlib import Path
import numpy as np
from sklearn.linear_model import LogisticRegression
from train_default import prepared
from gender_classifier.evaluate import balanced, md_table, pct


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('faces', type=Path); p.add_argument('--runs', type=Path, default=Path('runs/default'))
    p.add_argument('--leave', metavar='SOURCE'); p.add_argument('--rows', type=int, default=8000)
    a = p.parse_args()
    a.runs.mkdir(parents=True, exist_ok=True)
    df,y = prepared(a.faces, a.runs, leave=a.leave)
    has = (df.labels!='').to_numpy()&~np.isnan(y[:,2:]).any(1)
    train,test = has&~df.valid.to_numpy(bool),has&df.valid.to_numpy(bool)&~(df.age<10).to_numpy()
    some = np.random.default_rng(0).choice(np.flatnonzero(train), min(a.rows, train.sum()), replace=False)
    fit = LogisticRegression(max_iter=2000, class_weight='balanced').fit(y[some,2:], df.labels.to_numpy()[some])
    d = df[test].assign(correct=fit.predict(y[test,2:])==df.labels[test])
    rows = [[k, f'{len(g):,}', pct(balanced(g.correct, g.labels)), *(f'{g.correct[g.labels==o].mean()*100:.1f}' for o in ('male','female'))] for k,g in d.groupby('source')]
    print(md_table([['source', 'faces', 'balanced accuracy, %', 'men, %', 'women, %'], *rows]))


if __name__=='__main__': main()
