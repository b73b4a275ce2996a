"The app and the labelling must start fast and in little memory: they load nothing of what only training needs"
import json, subprocess, sys
import pytest

heavy = ['torch', 'torchvision', 'fastai', 'pandas', 'matplotlib', 'sklearn', 'scipy', 'timm', 'onnx']
serving = ['', '.core', '.faces', '.inference', '.app', '.hints', '.why', '.picker', '.page', '.visit', '.cli']

def loaded(module, tmp_path, heavy=heavy):
    "Which of `heavy` importing `module` in a fresh process loads"
    code = f'import sys, json, {module}; print(json.dumps([o for o in {heavy!r} if o in sys.modules]))'
    res = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert res.returncode == 0, res.stderr
    return json.loads(res.stdout.splitlines()[-1])

def test_help_is_light(tmp_path):
    assert loaded('gender_classifier.cli; gender_classifier.cli.parser()', tmp_path, [*heavy, 'numpy', 'cv2', 'fairlearn']) == []

@pytest.mark.parametrize('name', serving)
def test_serving_is_light(name, tmp_path): assert loaded(f'gender_classifier{name}', tmp_path) == []
