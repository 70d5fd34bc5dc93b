#!/usr/bin/env bash
# From a fresh clone to AUROC tables, ROC curves and Grad-CAM figures.
#
#   ./run_all.sh              the demo: about 10 minutes on 2 CPU cores, with an installation that
#                             downloads torch (a few minutes and a few GB)
#   ./run_all.sh --help       all options
#   ./run_all.sh test         the tests, on up to 8 cores; what follows goes to pytest (-n 0: on one)
#
# It uses the active environment (conda, venv) if this checkout is installed there, else makes
# .venv beside this file, or where ADNLIB_VENV says. The work itself is `python -m adnlib run-all`.
set -euo pipefail

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
venv=${ADNLIB_VENV:-$root/.venv}
child=
trap 'kill $child 2>/dev/null || true; echo "interrupted; the same command goes on from here" >&2; exit 130' INT TERM HUP

fail() {
    echo "error: $*" >&2
    exit 2
}

# Is this checkout installed for that Python, with what the workflow needs? (-P: not for the reason
# alone that the working directory holds a folder adnlib; Python before 3.11 has no -P, nor Snakemake 9.)
is_ready() {
    "$1" -P - "$root" >/dev/null 2>&1 <<'PYTHON'
import importlib.util, pathlib, sys
needed = ["adnlib", "torch", "FrEIA", "papermill", "ipykernel", "snakemake"]
found = [importlib.util.find_spec(name) for name in needed]
here = pathlib.Path(sys.argv[1], "adnlib", "__init__.py")
sys.exit(not (all(found) and found[0].origin and here.samefile(found[0].origin)))
PYTHON
}

# A Python on PATH that runs, is released, and can make an environment: the newest that all packages
# have wheels for (for 3.14 one of Snakemake's has none), else the newest. Each is tried: a pyenv
# shim exists also for a Python that is not chosen, and Debian's may lack ensurepip.
find_python() {
    local minor name old=""
    for minor in 13 12 11 20 19 18 17 16 15 14 ""; do
        name=python3${minor:+.$minor}
        if "$name" -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) or v.releaselevel != "final")' \
            >/dev/null 2>&1; then
            if "$name" -c 'import ensurepip, venv' >/dev/null 2>&1; then
                echo "$name"
                return
            fi
            old="$name cannot make virtual environments: install its venv package (Debian: apt install $name-venv)"
        fi
    done
    fail "${old:-no Python 3.11 or newer is on PATH, which Snakemake 9 needs: install one, or activate a conda environment made from environment.yml}."
}

make_environment() {
    local stamp=$venv/adnlib-installed wanted base
    wanted=$(cat "$root/pyproject.toml" "$root/requirements.lock" | cksum)
    if is_installed; then
        return
    fi
    lock
    if is_installed; then
        return  # by another call, in the meantime
    fi
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        base=$(find_python)
        if [[ -e $venv && ! -f $venv/pyvenv.cfg ]]; then
            fail "$venv is there and is no virtual environment: move it, or set ADNLIB_VENV."
        fi
        echo "Making $venv with $("$base" --version) ..."
        # --clear: an interrupted start, or an upgrade of Python, may have left half of one.
        "$base" -m venv --clear "$venv" || fail "cannot make $venv: set ADNLIB_VENV to another place."
    fi
    rm -f "$stamp"
    log=$venv/install.log
    echo "Installing into $venv (once; a few minutes and GB) ..."
    if ! install -c "$root/requirements.lock"; then
        if ! grep -qE 'No matching distribution|ResolutionImpossible|different Python|[Ff]ailed to build|metadata-generation' "$log"; then
            not_installed
        fi
        echo "The versions of requirements.lock cannot be had for this Python; installing the newest that pyproject.toml allows ..."
        install || not_installed
    fi
    echo "$wanted" >"$stamp"
}

# Did a call of make_environment, whose variables this takes, get to its end?
is_installed() {
    [[ -f $stamp && $(<"$stamp") == "$wanted" ]] && is_ready "$venv/bin/python"
}

# One call at a time makes an environment; the system frees the lock of one that was killed.
lock() {
    local code=0
    if ! command -v flock >/dev/null; then
        return
    fi
    if ! { mkdir -p "$(dirname -- "$venv")" && exec 9>"$venv.lock"; }; then
        fail "cannot make $venv: set ADNLIB_VENV to another place."
    fi
    flock -n 9 2>/dev/null || code=$?
    if [[ $code == 1 ]]; then  # else it has the lock, or is on a file system without any
        echo "Another call is installing into $venv; waiting for it ..."
        flock 9 &  # in the background, as `install` is
        child=$!
        wait "$child"
    fi
}

install() {
    # In the background, so that a signal to this script is handled at once.
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off \
        -e "${root}[test]" "$@" >"$log" 2>&1 &
    child=$!
    wait "$child"
}

not_installed() {
    local reason package
    reason=$(tail -n 1 "$log")
    if grep -qE 'gcc|Python\.h' "$log" && package=$(grep -m 1 -oP 'Failed building wheel for \K\S+' "$log"); then
        reason="$package has no wheel for this Python and cannot be compiled: put Python 3.13, 3.12 or 3.11 on PATH, or install a C compiler and Python's headers (Debian: apt install gcc python3-dev)."
    fi
    fail "the installation failed: $reason Its log: $log"
}

python=
for candidate in python python3; do
    if is_ready "$candidate"; then
        python=$candidate
        break
    fi
done

case "${1-}" in
-h | --help | help)
    # The options need no installation where some Python can read them.
    if [[ -z $python ]] && PYTHONPATH=$root python3 -c 'import adnlib.cli' >/dev/null 2>&1; then
        PYTHONPATH=$root exec python3 -m adnlib run-all --help
    fi
    set -- --help
    ;;
esac

if [[ -z $python ]]; then
    make_environment
    exec 9>&-  # the lock, which the runs shall not keep
    python=$venv/bin/python
fi
if [[ ${1-} == test ]]; then
    shift
    "$python" -c 'import pytest, xdist' 2>/dev/null ||
        fail "the active environment lacks pytest or pytest-xdist: call pip install -e '${root}[test]' there."
    cd "$root"
    # A file of tests on each core, one thread a file.
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
    exec "$python" -P -m pytest -n auto --maxprocesses 8 --dist loadfile "$@"
fi
exec "$python" -P -m adnlib run-all "$@"
