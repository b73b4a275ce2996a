"""How long does the network alone take for a face? Models in turns, in one process, on one core and without a GPU.

    python tools/bench_net.py [MODEL ...] [--rounds 60]

MODEL as `gender_classifier label` takes it; by default `default` and `small`. Printed are medians in milliseconds, for faces one at a time and
eight at a time, in 32-bit and in whole numbers, and how many times as fast as the first each is: the median of the rounds' ratios, and their 10th and 90th percentile."""
import argparse, os, time
import numpy as np
from gender_classifier.core import cpu_name, n_cpus
from gender_classifier.inference import Labeller, ModelError
from gender_classifier.peers import held_to

def turns(models, rounds, warm=10):
    "Seconds (rounds, models) for one call each, in turns; `models`: (labeller, its crops)"
    res = np.empty((warm+rounds, len(models)))
    for row in res:
        for i,(o,x) in enumerate(models):
            start = time.perf_counter()
            o.probs(x)
            row[i] = time.perf_counter()-start
    return res[warm:]

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('models', nargs='*', default=['default','small'], metavar='MODEL'); p.add_argument('--rounds', type=int, default=60)
    a = p.parse_args()
    print(f'{cpu_name()}, {n_cpus(most=10**6)} usable, load {os.getloadavg()[0]:.1f}')
    for precision in ('fp32','int8'):
        try: ls = [Labeller(o, precision=precision) for o in a.models]
        except ModelError as e: print(e); continue
        for n in (1,8):
            t = turns([(o, np.random.default_rng(0).integers(0, 255, (n, o.spec.size, o.spec.size, 3), dtype=np.uint8)) for o in ls], a.rounds)
            for i,o in enumerate(ls):
                lo,mid,hi = np.percentile(t[:,0]/t[:,i], [10,50,90])
                print(f'{precision}, {n} at a time, {o.path.stem}: {np.median(t[:,i])*1e3/n:.2f} ms a face'+(f', {mid:.1f} times as fast ({lo:.1f}–{hi:.1f})' if i else ''))

if __name__=='__main__':
    with held_to(1): main()
