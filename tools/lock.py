"Print constraints.txt from the environment this runs in: the exact versions of everything the project asks for, and of what those ask for"
import re, sys
from importlib.metadata import distribution, PackageNotFoundError
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

head = """# Exact versions that were seen to work together: pip install -c constraints.txt -e .[dev]
# Written by `make lock`. What only some machines need (CUDA and the like) is left to torch."""
pythons = '3.11.0', '3.12.0', '3.13.0', '3.14.0'  # releases the file has to serve
skip = re.compile(r'nvidia-|cuda-|triton|pip$|gender-classifier')

def norm(name): return re.sub(r'[-_.]+', '-', name).lower()

def requires(dist, extras):
    "Requirements of `dist` that hold here, with any of `extras`"
    for o in map(Requirement, dist.requires or []):
        if not o.marker or any(o.marker.evaluate({'extra': e}) for e in ['', *extras]): yield o

def walk(name, extras=(), seen=None):
    "Distributions reached from `name`, by normalised name"
    seen = {} if seen is None else seen
    try: dist = distribution(name)
    except PackageNotFoundError: return seen
    if (key := (norm(name), tuple(sorted(extras)))) in seen: return seen
    seen[key] = dist
    for o in requires(dist, extras): walk(o.name, o.extras, seen)
    return seen

def pin(name, dist):
    "The line for `dist`, without the mark of a build such as +cpu; one that is not for every Python is pinned for its own only"
    spec = SpecifierSet(dist.metadata['Requires-Python'] or '')
    own = sorted(f'python_full_version {o.operator} "{o.version}"' for o in spec)
    return f'{name}=={dist.version.split("+")[0]}' + ('' if all(o in spec for o in pythons) else f'; {" and ".join(own)}')

def lacking(extras):
    "What the project asks for and is not installed here"
    def there(name):
        try: return bool(distribution(name))
        except PackageNotFoundError: return False
    return [o.name for o in requires(distribution('gender_classifier'), extras) if not there(o.name)]

if __name__ == '__main__':
    if no := lacking(('dev', 'distill')): sys.exit(f'not installed here, so no list: {", ".join(no)}. First: pip install -c constraints.txt -e ".[dev,distill]"')
    dists = {n: d for (n, _), d in walk('gender_classifier', ('dev', 'distill')).items() if not skip.match(n)}
    print(head, *(pin(*o) for o in sorted(dists.items())), sep='\n')
