"""This project's model, as `Labeller.label` uses it: option MODEL, its .onnx"""
import sys
import cv2, gender_classifier, onnxruntime
from gender_classifier.inference import Labeller
from common import serve

cv2.setNumThreads(int(sys.argv[2])) # it counts the machine's processors, not those this process may use
labeller = Labeller(sys.argv[3] if len(sys.argv) > 3 else None)

def face(p):
    "The likelier label, unless the answer is neither"
    return dict(box=p.box, gender=None if p.decision == 'neither' else max(p.probs, key=p.probs.get), score=max(p.probs.values()), decision=p.decision)

def look(file): return [face(o) for o in labeller.label(file)]

serve(look, backend=f'onnxruntime and OpenCV, {labeller.device}, {labeller.precision}', threads=cv2.getNumThreads(),
      versions={'gender_classifier': gender_classifier.__version__, 'onnxruntime': onnxruntime.__version__, 'opencv': cv2.__version__})
