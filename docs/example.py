"""Writes docs/episodes.json: two requests of the demonstration, answered by the embedded model.

python docs/example.py        (run it again when an episode has new fields)
"""

import json
from pathlib import Path

from quickstudy import Config, Improver
from quickstudy.evals.demo import tasks

SHOWN = ("move-dentist", "oat-milk")  # one that practises, one that falls back

improver = Improver.load("smollm2", Config.load(overrides=["learning.learning_rate=3e-3"]))
requests = {task.request.id: task.request for task in tasks()}
answers = [improver.answer_request(requests[id]).to_json() for id in SHOWN]
text = json.dumps(answers, indent=1, ensure_ascii=False)
Path(__file__).with_name("episodes.json").write_text(text + "\n", encoding="utf-8")
