"""How long does the search for faces take, beside OpenCV's own class for the same network?

    python tools/bench_detect.py [PHOTO …] [--runs 100]

Each PHOTO (by default matplotlib's Grace Hopper at 250, 512 and 640 px) is searched by both in turns, on one core each, in one process;
printed are the median milliseconds of processor time of each and their ratio, and whether both found the same."""
import argparse, platform, time
from pathlib import Path
import cv2, numpy as np
from gender_classifier.core import open_image
from gender_classifier.faces import MAX_SIDE, SCORE, DetectorError, _to_bgr, _YuNet, yunet_path

def samples():
    "One face at three sizes"
    from matplotlib.cbook import get_sample_data
    img = open_image(get_sample_data('grace_hopper.jpg', asfileobj=False))
    return {f'sample, {o} px': img.resize((o,o)) for o in (250,512,640)}

def by_opencv(net, bgr):
    "(n, 15) as OpenCV finds them"
    net.setInputSize(bgr.shape[1::-1])
    rows = net.detect(bgr)[1]
    return np.empty((0,15), np.float32) if rows is None else rows

def by_us(net, bgr): return np.array([[*o.box, *o.landmarks.ravel(), o.score] for o in net(bgr, SCORE)], np.float32).reshape(-1,15)

def in_turns(fs, runs):
    "Median milliseconds of processor time of each function"
    ms = np.zeros((runs,len(fs)))
    for r in range(runs):
        for i,f in enumerate(fs):
            start = time.process_time()
            f()
            ms[r,i] = (time.process_time()-start)*1e3
    return np.median(ms, 0)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('photos', nargs='*', type=Path)
    p.add_argument('--runs', type=int, default=100)
    a = p.parse_args()
    try: fn = yunet_path()
    except DetectorError as e: raise SystemExit(str(e))
    cv2.setNumThreads(1)
    cv,own = cv2.FaceDetectorYN.create(str(fn), '', (320,320), SCORE, .3, 5000),_YuNet(fn)
    print(f'{platform.processor() or platform.machine()}, OpenCV {cv2.__version__}, Python {platform.python_version()}')
    for name,img in ({o.name: open_image(o) for o in a.photos} or samples()).items():
        bgr = _to_bgr(img, MAX_SIDE)[0]
        x,y = by_opencv(cv, bgr),by_us(own, bgr)
        same = x.shape==y.shape and np.allclose(x, y, atol=.05)
        t = in_turns([lambda: by_opencv(cv, bgr), lambda: by_us(own, bgr)], a.runs)
        print(f'{name}: {len(y)} faces, {"the same" if same else "NOT the same"}; OpenCV {t[0]:.1f} ms, onnxruntime {t[1]:.1f} ms, {t[0]/t[1]:.1f} times as fast')

if __name__=='__main__': main()
