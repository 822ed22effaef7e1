"""A stronger model writes the practice: an OpenAI-compatible server, or a second local model.

python examples/teacher.py http://127.0.0.1:8000/v1#qwen2.5-7b [MODEL]
python examples/teacher.py TEACHER.gguf [MODEL]
"""

import sys

from quickstudy import Config, Improver
from quickstudy.teaching.teacher import parse_teacher

TOOL = {
    "name": "play_song",
    "description": "Play a song",
    "parameters": {
        "type": "object",
        "properties": {"title": {"type": "string"}, "artist": {"type": "string"}},
        "required": ["title"],
    },
}

teacher = parse_teacher(sys.argv[1])  # {"url": ..., "model": ...}
config = Config(method="tt-d", teacher=teacher, awareness={"threshold": 1.01})
improver = Improver.load(sys.argv[2] if len(sys.argv) > 2 else "smollm2", config)
answer = improver.answer("Play Clair de Lune by Debussy.", tools=[TOOL])
for note in answer.episode.notes:  # what went wrong with the teacher, if anything did
    print("note:", note)
for example in answer.episode.examples:
    print("practised:", example.user_text, "->", example.tool_calls)
print("answer:", answer.content, answer.tool_calls)
