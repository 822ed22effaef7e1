"""Unsure drafts give way to another tool, a call, fewer guesses or a question, without practice.

It is where TT-SI starts from (`awareness.reconsider`): so it is seen apart what learning adds.
"""

from __future__ import annotations

from quickstudy.decoding import Deadline, Draft
from quickstudy.methods.gated import Gated, SecondTry


class Reconsider(Gated):
    name, stage = "reconsider", "answer"

    def second(self, draft: Draft) -> SecondTry:
        return SecondTry(self.improver.reconsider(draft, Deadline()).reply)
