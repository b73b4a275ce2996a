"The shipped model on faces it was not trained on, from the file onward; a sample, so the bars are a little below the card's figures"
import importlib.util
from pathlib import Path
import pytest

root = Path(__file__).parents[1]
model = root/'models'/'gender_resnet18'
spec = importlib.util.spec_from_file_location('train_default', root/'tools'/'train_default.py')

@pytest.fixture(scope='module')
def answers(shared_data):
    "The model's answers for at most 500 held-out pictures of each source"
    if not Path(f'{model}.held_out.txt').exists(): pytest.skip('there is no list of held-out pictures beside a model in models/')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    df = tool.held_out(Path(shared_data), model)
    df = df[~(df.age<10)].groupby('source', group_keys=False).sample(frac=1, random_state=42).groupby('source').head(500)
    from gender_classifier.evaluate import evaluate_model
    return evaluate_model(model, df).df

@pytest.mark.parametrize('source,bar', [('utkface',.94),('celeba',.94),('lfw',.93)])
def test_balanced(answers, source, bar):
    from gender_classifier.evaluate import balanced
    g = answers[answers.source==source]
    assert len(g)>=400
    assert balanced(g.correct, g.labels)['value'] >= bar

def test_women_in_the_news(answers):
    g = answers[(answers.source=='lfw')&(answers.labels=='female')]
    assert g.correct.mean() >= .9

def test_neither(answers):
    assert (answers[answers.labels==''].decision=='neither').mean() >= .99
    assert (answers[answers.labels!=''].decision=='neither').mean() <= .006
