"What `make` calls: the checks find what they are for, README.md is made as it should be, the sum is right"
import importlib.util, json, os, subprocess, sys
import pytest

@pytest.fixture(scope='module')
def tool(project):
    "Load tools/NAME.py"
    sys.path.insert(0, str(project/'tools'))
    def load(name):
        spec = importlib.util.spec_from_file_location(f'tool_{name}', project/'tools'/f'{name}.py')
        mod = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(mod)
        return mod
    yield load
    sys.path.remove(str(project/'tools'))

def cell(source, *outputs, **metadata):
    return dict(cell_type='code', id='abc', metadata=metadata, execution_count=None, source=source, outputs=list(outputs))

def shown(**data): return dict(output_type='display_data', metadata={}, data={k.replace('_', '/'): v for k, v in data.items()})
def printed(text): return dict(output_type='stream', name='stdout', text=text)
def nb(*cells, **metadata): return dict(cells=list(cells), metadata=metadata, nbformat=4, nbformat_minor=5)

faults = dict(
    is_unclean=nb(cell('1', tags=['x'])), has_widgets=nb(cell('1'), widgets={}), is_heavy=nb(cell('1', shown(image_png='x'*400_000))),
    has_litter=nb(cell('1', printed('/home/me/photo.jpg'))), has_late_directive=nb(cell('# why\n#| export\nx = 1')))

@pytest.mark.parametrize('name', faults)
def test_fault_is_found(tool, name):
    check, text = tool('check'), lambda o: json.dumps(o)
    good = check.cleaned(text(nb(cell('#| export\nx = 1', printed('1'), shown(image_png='x')))))
    assert not getattr(check, name)(good, json.loads(good))
    assert getattr(check, name)(text(faults[name]), faults[name])

def test_a_check_that_breaks_is_a_failure(tool, capsys):
    assert tool('check').run({'good': lambda: [], 'bad': lambda: ['why'], 'broken': lambda: 1/0}) == (1, 2)
    assert 'ZeroDivisionError' in capsys.readouterr().out

def test_links_lead_from_the_root(tool):
    md = '[a](b.ipynb) ![i](../app/i.svg) [c](#x) [d](https://e.org)\n```sh\n[a](b)\n```'
    assert tool('readme').from_root(md) == '[a](nbs/b.ipynb) ![i](app/i.svg) [c](#x) [d](https://e.org)\n```sh\n[a](b)\n```'

def test_code_in_readme(tool):
    code = tool('readme').code
    assert list(code(cell('#| hide\nx'))) == []
    assert list(code(cell('#| slow\nprint(1)', printed('1\n')))) == ['```python\nprint(1)\n```', '```\n1\n```']
    assert list(code(cell('#| echo: false\nx', shown(text_plain="'a'", text_html='<b>')))) == ["```\n'a'\n```"]

def test_sum(tool, tmp_path):
    counts, xml = tool('test').counts, tmp_path/'report.xml'
    assert counts(xml) == (0, 1, 0)
    (tmp_path/'test_it.py').write_text('import pytest\ndef test_a(): pass\ndef test_b(): assert 0\ndef test_c(): pytest.skip("why")\ndef test_d(nothing): pass')
    subprocess.run([sys.executable, '-m', 'pytest', '-q', f'--junitxml={xml}', tmp_path], capture_output=True)
    assert counts(xml) == (1, 2, 1)

def test_versions_of_the_list(tool):
    "A build for processors alone is the same version; what holds for one Python only says so; what is not there is named"
    from types import SimpleNamespace as N
    lock = tool('lock')
    def pin(version, python): return lock.pin('a', N(version=version, metadata={'Requires-Python': python}))
    assert pin('2.14.1+cpu', '>=3.10') == 'a==2.14.1' and pin('1.0', '>=3.12') == 'a==1.0; python_full_version >= "3.12"'
    assert lock.lacking(('dev',)) == []

@pytest.mark.skipif(sys.platform=='win32', reason='a shell of Unix is needed')
def test_environments_are_made_by_a_new_enough_python(project, tmp_path):
    def mkenv(path, **env): return subprocess.run([project/'tools/mkenv', path], capture_output=True, text=True, env={**os.environ, **env}, timeout=60)
    res = mkenv(tmp_path/'env', PYTHON='false')
    assert res.returncode == 1 and 'PYTHON=false is not a Python of version 3.11 or newer' in res.stderr and not (tmp_path/'env').exists()
    (old := tmp_path/'python3').write_text('#!/bin/sh\nexit 1\n')
    old.chmod(0o755)
    res = mkenv(tmp_path/'env', PYTHON=str(old))
    assert res.returncode == 1 and str(old) in res.stderr

@pytest.mark.skipif(sys.platform=='win32', reason='the tool tells the load of the machine, which Windows does not')
def test_networks_alone_are_timed(project, tmp_path):
    "Of two models, one with larger crops; neither has a twin in whole numbers, which is said"
    pytest.importorskip('onnx', reason='models are written with onnx, which is not installed')
    from gender_classifier.inference import synth_model
    fns = [synth_model(tmp_path, name='a'), synth_model(tmp_path, 224, 'b')]
    res = subprocess.run([sys.executable, project/'tools/bench_net.py', *map(str, fns), '--rounds', '3'], capture_output=True, text=True)
    assert res.returncode == 0, res.stderr
    lines = res.stdout.splitlines()[1:]
    assert [o.split(':')[0] for o in lines[:4]] == [f'fp32, {n} at a time, {o}' for n in (1,8) for o in 'ab']
    assert all('ms a face' in o for o in lines[:4]) and ['times as fast' in o for o in lines[:4]] == [False,True,False,True]
    assert len(lines) == 5 and 'a.int8.onnx cannot be used' in lines[4]
