"Write README.md from nbs/index.ipynb; with --check only say whether it is what the notebook says"
import json, posixpath, re, sys
from pathlib import Path

root = Path(__file__).absolute().parents[1]
head = '<!-- Written from nbs/index.ipynb by tools/readme.py: edit the notebook, then run `make prepare`. -->'
link = re.compile(r'(!?\[[^\]]*\]\()([^)\s]+)(\))')

def text(o): return o if isinstance(o, str) else ''.join(o)
def fence(s, lang=''): return f'```{lang}\n{s.rstrip()}\n```'
def is_ours(target): return not re.match(r'[a-z]+:|#|/', target)

def from_root(md):
    "Links of `md`, which start at nbs/, as they are from the README's place; code is left alone"
    def fix(m): return m[1] + (posixpath.normpath('nbs/' + m[2]) if is_ours(m[2]) else m[2]) + m[3]
    return ''.join(o if o.startswith('```') else link.sub(fix, o) for o in re.split(r'(```.*?```)', md, flags=re.S))

def output(o):
    "One output as markdown"
    if o['output_type'] == 'stream': return fence(text(o['text']))
    data = o.get('data', {})
    if 'text/markdown' in data: return from_root(text(data['text/markdown']))
    if any(k.startswith('image/') for k in data): raise SystemExit('index.ipynb: a picture among the outputs cannot go into README.md')
    return fence(text(data.get('text/plain', '')))

def code(cell):
    "A code cell with its outputs, less its directives"
    src = text(cell['source'])
    flags = ' '.join(re.findall(r'^#\|\s*(.*)', src, re.M))
    if re.search(r'\b(hide|default_exp|include: *false)\b', flags): return
    src = re.sub(r'^#\|.*\n?', '', src, flags=re.M).strip()
    if src and 'echo: false' not in flags: yield fence(src, 'python')
    yield from (output(o) for o in cell['outputs'])

def render(fn=root/'nbs/index.ipynb'):
    "README.md as text"
    cells = json.loads(Path(fn).read_text(encoding='utf-8'))['cells']
    parts = [head]
    for c in cells: parts += [from_root(text(c['source']))] if c['cell_type'] == 'markdown' else code(c)
    return '\n\n'.join(o.strip() for o in parts if o.strip()) + '\n'

def out_of_step():
    "What is wrong with README.md"
    readme, want = root/'README.md', render()
    if not readme.exists() or readme.read_text(encoding='utf-8') != want:
        yield 'README.md is not what nbs/index.ipynb says (make prepare writes it)'
    for m in link.finditer(re.sub(r'```.*?```', '', want, flags=re.S)):
        if is_ours(m[2]) and not (root/m[2].split('#')[0]).exists(): yield f'README.md leads to {m[2]}, which is not there'

if __name__ == '__main__':
    if '--check' in sys.argv:
        said = list(out_of_step())
        sys.exit('\n'.join(said) if said else 0)
    (root/'README.md').write_text(render(), encoding='utf-8')
