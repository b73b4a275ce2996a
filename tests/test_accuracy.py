"The shipped models on faces they were not trained on, from the file onward; a sample, so the bars are a little below the cards' figures"
import importlib.util
from pathlib import Path
import pytest

root = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location('train_default', root/'tools'/'train_default.py')

BARS = dict(gender_resnet18=dict(utkface=.96, celeba=.975, lfw=.97), gender_small=dict(utkface=.955, celeba=.97, lfw=.96))

@pytest.fixture(scope='module', params=list(BARS))
def answers(shared_data, request):
    "A model's answers for at most 500 held-out pictures of each source"
    model = root/'models'/request.param
    if not Path(f'{model}.held_out.txt').exists(): pytest.skip(f'there is no list of held-out pictures beside {model}')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    df = tool.held_out(Path(shared_data), model)
    df = df[~(df.age<10)].groupby('source', group_keys=False).sample(frac=1, random_state=42).groupby('source').head(500)
    from gender_classifier.evaluate import evaluate_model
    return request.param, evaluate_model(model, df).df

@pytest.mark.parametrize('source', ['utkface', 'celeba', 'lfw'])
def test_balanced(answers, source):
    from gender_classifier.evaluate import balanced
    name, df = answers
    g = df[df.source==source]
    assert len(g)>=400
    assert balanced(g.correct, g.labels)['value'] >= BARS[name][source]

def test_women_in_the_news(answers):
    _, df = answers
    g = df[(df.source=='lfw')&(df.labels=='female')]
    assert g.correct.mean() >= .94

def test_neither(answers):
    _, df = answers
    assert (df[df.labels==''].decision=='neither').mean() >= .99
    assert (df[df.labels!=''].decision=='neither').mean() <= .006

def test_the_small_one_is_small():
    assert (root/'models/gender_small.onnx').stat().st_size < 2e6
