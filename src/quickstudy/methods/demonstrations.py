"""In-context learning from labelled rows: the nearest training requests, told as turns before.

Nearest by cosine of TF-IDF vectors of words; as many as `augmentation.examples`. No gate. A row
that asks the item's own question is passed over: it would tell the answer.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from quickstudy.augmentation.synthesis import Synthesis
from quickstudy.config import Config
from quickstudy.decoding import Deadline, Draft
from quickstudy.improve import Given
from quickstudy.methods.cycle import Cycle
from quickstudy.methods.interface import Item, Outcome, Workbench
from quickstudy.types import Example


class InContext(Cycle):
    def __init__(self, bench: Workbench, config: Config) -> None:
        super().__init__(bench, config)
        self.rows = list(bench.training())
        self.vectorizer = TfidfVectorizer(sublinear_tf=True)
        self.vectors = self.vectorizer.fit_transform(row.request.user_text for row in self.rows)

    def answer(self, item: Item) -> Outcome:
        draft, before = self.bench.draft(self.improver, item.request)
        return self.improved(draft, before)

    def make(self, draft: Draft, deadline: Deadline) -> Given:
        asked = draft.context.request.user_text
        likeness = (self.vectors @ self.vectorizer.transform([asked]).T).toarray().ravel()
        order = np.argsort(-likeness, kind="stable")  # of equals the earlier row first
        others = (self.rows[i] for i in order if self.rows[i].request.user_text != asked)
        nearest = list(islice(others, self.config.augmentation.examples))
        if not nearest:
            return Given(Synthesis(), 0.0, "there are no training rows")
        # the nearest last, next to the request
        return Given(
            Synthesis(
                [Example(row.request.messages, row.gold, "training") for row in nearest[::-1]]
            )
        )
