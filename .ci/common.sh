# Functions that .ci/run and .ci/full share. Each job runs in a subshell, in a clone of what is committed.
set -euo pipefail
unset CC CFLAGS LDFLAGS PYTHONPATH PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS MLGRAPH_ISA MLGRAPH_DEBUG_BUILD
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_QUIET=1

root=$(git -C "$(dirname "${BASH_SOURCE[0]}")" rev-parse --show-toplevel)
base=$(python3 -c 'import sys; print(sys.executable)')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

fail() { echo "FAILED: $*" >&2; exit 1; }
skip() { echo "SKIPPED: $*"; exit 77; }
say() { printf '+ %s\n' "$*"; "$@"; }
# Runs a command and shows its output only if it fails.
quietly() { printf '+ %s\n' "$*"; "$@" >"$work/log" 2>&1 || { cat "$work/log"; fail "$*"; }; }
unchanged() { [[ -z $(git status --porcelain) ]] || { git status --short; fail "git status is not empty"; }; }
# Enters the clone of that name, and creates it first if there is none.
clone() { [[ -d $work/$1 ]] || git clone --quiet "$root" "$work/$1"; cd "$work/$1"; }
# Activates the virtual environment of that name, and creates it first if there is none.
venv() { [[ -d $work/venv-$1 ]] || "${2:-$base}" -m venv "$work/venv-$1"; . "$work/venv-$1/bin/activate"; }
tests() { say python -m pytest -q --no-header -n 2 "$@"; }

# Tests that depend on how the kernels were compiled.
kernel_tests() {
    local files
    files=$(grep -rlE '^def test_.*\bsweep\b' tests | grep -v ^tests/kernels/)
    tests tests/kernels tests/test_packaging.py tests/models/test_network.py $files "$@"
}

# Creates $work/dist with the sdist and the wheel that is built from it, unless it is there.
distributions() {
    [[ ! -d $work/dist ]] || return 0
    clone dist-tree
    venv build
    say pip install build
    quietly python -m build --outdir "$work/dist"
    unchanged
}

# Runs the jobs named, each by `perform NAME`, goes on past failures and reports at the end.
run_jobs() {
    local name status outcome began passed=0 failed=0 report=()
    for name in "$@"; do
        printf '\n== %s\n' "$name"
        began=$SECONDS
        set +e
        (set -e; perform "$name")
        status=$?
        set -e
        case $status in
            0) outcome=passed; passed=$((passed + 1)) ;;
            77) outcome=skipped ;;
            *) outcome=FAILED; failed=$((failed + 1)) ;;
        esac
        report+=("$(printf '%-8s %4d s  %s' "$outcome" $((SECONDS - began)) "$name")")
        printf -- '-- %s\n' "${report[-1]}"
    done
    printf '\nJobs, %d s in all:\n' "$SECONDS"
    printf '%s\n' "${report[@]}"
    printf '%d passed, %d failed\n' "$passed" "$failed"
    ((failed == 0))
}
