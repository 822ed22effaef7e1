"""quickstudy as a model of lm-evaluation-harness: a few rows of GSM8K on the tiny model."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from quickstudy.errors import ConfigError
from quickstudy.model import LanguageModel

# the original test rows; elsewhere than beside this project, name their folder
FOLDER = Path(
    os.environ.get("QS_REASONING_DATA", Path(__file__).parents[3] / "shared/data/reasoning")
)
needs_harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None,
    reason="lm-evaluation-harness is not here: pip install 'quickstudy[lm-eval]'",
)
TASK = """
task: gsm8k_here
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
output_type: generate_until
test_split: test
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{answer}}"
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    regexes_to_ignore: ["(?s).*#### "]
generation_kwargs: {until: ["Question:"], max_gen_toks: 12, do_sample: false}
"""
ROWS = (
    {"question": "Two ducks lay 3 eggs each. How many eggs?", "answer": "2 * 3 = 6\n#### 6"},
    {"question": "A robe takes 2 bolts and half as much. How many?", "answer": "#### 3"},
)


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return importlib.import_module("quickstudy.evals.harness")


def evaluated(harness: Any, tiny: LanguageModel, file: Path, folder: Path, **more: Any) -> Any:
    import lm_eval
    from lm_eval.tasks import TaskManager

    (folder / "gsm8k_here.yaml").write_text(TASK.replace("FILE", str(file)))
    model = harness.QuickstudyLM(
        tiny,
        episodes=str(folder / "episodes.jsonl"),
        **{"awareness.threshold": 1.01, "awareness.samples": 2, "augmentation.attempts": 1},
    )
    return lm_eval.simple_evaluate(
        model=model,
        tasks=["gsm8k_here"],
        limit=2,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        **more,
    )


@needs_harness
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("templated", [False, True])
def test_gsm8k(harness: Any, tiny: LanguageModel, tmp_path: Path, templated: bool) -> None:
    file = FOLDER / "gsm8k_test.jsonl"
    if not file.is_file():
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    told = evaluated(harness, tiny, file, tmp_path, apply_chat_template=templated)
    assert told["results"]["gsm8k_here"]["exact_match,none"] == 0  # it babbles
    samples = told["samples"]["gsm8k_here"]
    episodes = [json.loads(line) for line in (tmp_path / "episodes.jsonl").open()]
    assert len(samples) == len(episodes) == 2
    for sample, answer in zip(samples, episodes, strict=True):
        assert sample["resps"] == [[answer["content"]]]
        assert answer["episode"]["method"] == "tt-si"
        assert answer["episode"]["certainty"] is not None
        assert 0 < len(tiny.encode(answer["content"])) <= 12 * 3  # bytes that are no text


@needs_harness
class TestModel:
    def test_an_answer_ends_before_a_stop_text(self, harness: Any, tiny: LanguageModel) -> None:
        model = harness.QuickstudyLM(tiny, method="base")
        whole = model._answer("Hello", {"max_gen_toks": 20}, 0)
        stop = whole[5:7]
        assert (
            model._answer("Hello", {"until": [stop], "max_gen_toks": 20}, 0) == whole.split(stop)[0]
        )
        assert (
            model._answer("Hello", {"until": stop, "max_gen_toks": 20}, 0) == whole.split(stop)[0]
        )

    def test_a_conversation_is_told_as_turns(self, harness: Any, tiny: LanguageModel) -> None:
        model = harness.QuickstudyLM(tiny, method="base")
        turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
        assert harness._messages(model.apply_chat_template(turns)) == turns
        for text in ("plain", "[1, 2]", '{"role": "user"}', "[" * 9999):
            assert harness._messages(text) == text

    def test_what_is_no_greedy_text_is_refused(self, harness: Any, tiny: LanguageModel) -> None:
        model = harness.QuickstudyLM(tiny, method="base")
        with pytest.raises(ConfigError, match="do_sample=false"):
            model._answer("Hello", {"temperature": 0.7}, 0)
        for scores in (model.loglikelihood, model.loglikelihood_rolling):
            with pytest.raises(ConfigError, match="generate_until"):
                scores([])

    def test_unknown_settings_are_told(self, harness: Any, tiny: LanguageModel) -> None:
        with pytest.raises(ConfigError, match=r"did you mean learning\.rank"):
            harness.QuickstudyLM(tiny, **{"learning.rnk": 8})


def test_without_the_harness_there_is_a_word_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("lm_eval", "lm_eval.api.instance"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "quickstudy.evals.harness", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'quickstudy\[lm-eval\]'"):
        importlib.import_module("quickstudy.evals.harness")
