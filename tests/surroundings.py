"The environment that tests and notebooks run in, wherever that is: what lies beside the checkout, and nothing of the shell's own settings"
import re
from pathlib import Path

root = Path(__file__).absolute().parents[1]
beside = root.parent/'shared' # where a machine keeps data that is not ours to commit
OURS = ('MODEL', 'REVIEW', 'MAX_UPLOAD_MB') # settings of the one who runs the tests

def surroundings(env):
    "`env` for tests: one thread each, no proxy for this computer, and a detector: the one beside the checkout or the one that is kept; where there is none to be had, it is asked for only once"
    res = {k: v for k, v in env.items() if k not in ('HF_HUB_OFFLINE', *(f'GENDER_CLASSIFIER_{o}' for o in OURS))}
    for k, v in {'YUNET': 'models/face_detection_yunet_2023mar.onnx', 'DATA': 'data'}.items():
        if (beside/v).exists(): res.setdefault(f'GENDER_CLASSIFIER_{k}', str(beside/v))
    if 'GENDER_CLASSIFIER_YUNET' not in res and not has_detector(): res['GENDER_CLASSIFIER_YUNET'] = str(root/'no_detector_here.onnx')
    for k in ('no_proxy', 'NO_PROXY'): res[k] = ','.join(filter(None, [res.get(k), '127.0.0.1,localhost']))
    return {'OMP_NUM_THREADS': '1', **res}

def has_detector():
    "Is YuNet in the cache, or can it be fetched?"
    from gender_classifier.faces import DetectorError, yunet_path
    try: return yunet_path() is not None
    except DetectorError: return False

def said(err):
    "Standard error without the sentence that an older detector is used, which is of the machine and not of the program"
    return re.sub(r'^gender_classifier: The face detector YuNet is not to be had.*\n', '', err, flags=re.M)
