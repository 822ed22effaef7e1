"""The test sets, one a file. None of their rows is in this repository: `--data` names a folder.

Each module's docstring shows what a row looks like (invented values), names the official scorer,
and says what is done to rows before a model sees them.
"""

from collections.abc import Mapping

from quickstudy.evals.benchmarks import abstain, apibank, nexusraven, sealtool, toolalpaca, train
from quickstudy.evals.benchmarks.benchmark import Benchmark, DataFile, Row, Scores

BENCHMARKS: Mapping[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        nexusraven.BENCHMARK,
        sealtool.BENCHMARK,
        toolalpaca.BENCHMARK,
        apibank.BENCHMARK,
        apibank.LEVEL_1,
        apibank.LEVEL_2,
        abstain.BENCHMARK,
    )
}
# every file once, in the order of the benchmarks
FILES: tuple[DataFile, ...] = tuple(
    dict.fromkeys(file for benchmark in BENCHMARKS.values() for file in benchmark.files)
)

__all__ = ["BENCHMARKS", "FILES", "Benchmark", "DataFile", "Row", "Scores", "train"]
