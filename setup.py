"Everything is read from settings.ini; the wheel also carries the two models, the page of the app and what runs other models"
import shlex, shutil, warnings
from configparser import ConfigParser
from pathlib import Path
from setuptools import setup, find_packages
from setuptools.command.build_py import build_py

root = Path(__file__).absolute().parent
cp = ConfigParser(delimiters=['='], interpolation=None)
cp.read(root/'settings.ini', encoding='utf-8')
cfg = cp['DEFAULT']
pkg = cfg['lib_path']
reqs = {o: shlex.split(cfg.get(f'{o}requirements', '')) for o in ('', 'examples_', 'train_', 'data_', 'distill_', 'dev_')}

carried = [f'models/{m}.{o}' for m in ('gender_resnet18', 'gender_small') for o in ('onnx', 'int8.onnx', 'json', 'safetensors', 'md')] + ['app/gender_classifier.ipynb']

class BuildWithModel(build_py):
    "Copy what lies beside the package in a checkout into the built package, under the same names"
    def run(self):
        super().run()
        if not self.editable_mode:
            for o in carried: self.carry(root/o, Path(self.build_lib)/pkg/o)

    def carry(self, src, dst):
        "Copy `src` to `dst`; one that is not there yet is only a warning"
        if not src.exists(): return warnings.warn(f'{src.relative_to(root)} is not there: this build goes without it')
        dst.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(src, dst)

    def get_outputs(self, *args, **kwargs):
        outs = [Path(self.build_lib)/pkg/o for o in carried]
        return super().get_outputs(*args, **kwargs) + [str(o) for o in outs if o.exists()]

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'],
    long_description=(root/'README.md').read_text(encoding='utf-8') if (root/'README.md').exists() else '',
    long_description_content_type='text/markdown', license='Apache-2.0', license_files=['LICENSE'],
    author=cfg['author'], author_email=cfg['author_email'], keywords=cfg['keywords'].split(),
    packages=find_packages(include=[pkg, f'{pkg}.*']), package_data={pkg: ['static/*.js', 'static/*.css', 'runners/*.js', 'runners/*.py']}, cmdclass={'build_py': BuildWithModel},
    python_requires=f">={cfg['min_python']}", install_requires=reqs[''],
    extras_require={'examples': reqs['examples_'], 'train': reqs['train_'], 'data': reqs['train_'] + reqs['data_'], 'distill': reqs['train_'] + reqs['distill_'],
                    'dev': reqs['examples_'] + reqs['train_'] + reqs['data_'] + reqs['dev_']},
    entry_points={'console_scripts': [cfg['console_scripts']]}, zip_safe=False,
)
