"Everything is read from settings.ini"
import shlex
from configparser import ConfigParser
from pathlib import Path

from setuptools import setup, find_packages

cp = ConfigParser(delimiters=['='], interpolation=None)
cp.read(Path(__file__).with_name('settings.ini'), encoding='utf-8')
cfg = cp['DEFAULT']
reqs = {o: shlex.split(cfg.get(f'{o}requirements', '')) for o in ('', 'train_', 'dev_')}

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], license='Apache-2.0',
    packages=find_packages(include=['gender_classifier', 'gender_classifier.*']),
    python_requires=f">={cfg['min_python']}", install_requires=reqs[''],
    extras_require={'train': reqs['train_'], 'dev': reqs['train_'] + reqs['dev_']},
    entry_points={'console_scripts': [cfg['console_scripts']]},
)
