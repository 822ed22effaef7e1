"""The same request under other settings: the base model alone, and an eager, longer practice.

python examples/settings.py [MODEL]
"""

import sys

from quickstudy import Config, Improver
from quickstudy.model import LanguageModel

TOOL = {
    "name": "set_temperature",
    "description": "Set the heating of a room",
    "parameters": {
        "type": "object",
        "properties": {"room": {"type": "string"}, "degrees": {"type": "integer"}},
        "required": ["room", "degrees"],
    },
}

model = LanguageModel.load(sys.argv[1] if len(sys.argv) > 1 else "smollm2")  # loaded once
for overrides in (["method=base"], ["awareness.threshold=1.01", "learning.epochs=8"]):
    improver = Improver(model, Config.load(overrides=overrides))
    answer = improver.answer("Make the kitchen 19 degrees.", tools=[TOOL])
    print(overrides, answer.tool_calls, [round(loss, 3) for loss in answer.episode.losses])
