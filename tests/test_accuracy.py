"The shipped models on faces they were not trained on, from the file onward; a sample, so the bars are a little below the cards' figures"
import importlib.util
from pathlib import Path
import pytest

root = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location('train_default', root/'tools'/'train_default.py')

@pytest.fixture(scope='module', params=['gender_resnet18', 'gender_small'])
def answers(shared_data, request):
    "A model's answers for at most 500 held-out pictures of each source"
    model = root/'models'/request.param
    if not Path(f'{model}.held_out.txt').exists(): pytest.skip(f'there is no list of held-out pictures beside {model}')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    df = tool.held_out(Path(shared_data), model)
    df = df[~(df.age<10)].groupby('source', group_keys=False).sample(frac=1, random_state=42).groupby('source').head(500)
    from gender_classifier.evaluate import evaluate_model
    return evaluate_model(model, df).df

@pytest.mark.parametrize('source,bar', [('utkface',.95),('celeba',.965),('lfw',.955)])
def test_balanced(answers, source, bar):
    from gender_classifier.evaluate import balanced
    g = answers[answers.source==source]
    assert len(g)>=400
    assert balanced(g.correct, g.labels)['value'] >= bar

def test_women_in_the_news(answers):
    g = answers[(answers.source=='lfw')&(answers.labels=='female')]
    assert g.correct.mean() >= .94

def test_neither(answers):
    assert (answers[answers.labels==''].decision=='neither').mean() >= .99
    assert (answers[answers.labels!=''].decision=='neither').mean() <= .006

def test_the_small_one_is_small():
    assert (root/'models/gender_small.onnx').stat().st_size < 2e6
