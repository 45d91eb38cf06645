#!/usr/bin/env bash
# Everything that wants a GPU, in stages below ten minutes each, without a network and without installing anything:
#
#   bash bench/on_gpu.sh versions|correct|sanitize|policy|cross-entropy|step|model|sleep|engine|all OUT [SITE]
#
# Logs and JSON go into OUT, flat, at most four files a stage; SITE is where `bench/carry.py unpack` put packages. A stage that fails, or
# runs into its limit, does not stop the next; the last line of each stage says how it ended. PYTHON names the interpreter,
# LIMIT the seconds of a stage (570), SIZE the model of step and sleep (1.5b).
# Python 3.10 or newer, torch 2.11 or newer with CUDA, triton 3.6 or newer, transformers 5.17 or newer.
set -uo pipefail
stage=${1:?a stage} out=$(mkdir -p "${2:?a folder}" && cd "$2" && pwd) site=${3:-}
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD:$PWD/kernels${site:+:$(cd "$site" && pwd)}${PYTHONPATH:+:$PYTHONPATH}
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false VLLM_NO_USAGE_STATS=1
python=${PYTHON:-python3}
tests() { # also wrong where all are skipped
  "$python" -m pytest -q --tb=short -p no:cacheprovider -rfEs "$@" | tee /dev/stderr | grep " passed" >/dev/null
}

versions() { "$python" bench/versions.py "$out/versions.json"; }

# The interpreter's tests and those that compile for other cards need no GPU; ranks of gloo neither.
correct() {
  local workers=()  # most of the time goes into compiling kernels
  "$python" -c "import xdist" 2>/dev/null && workers=(-n 8)
  KERNEL_TESTS_ON=cuda tests "${workers[@]}" tests/kernels -m "not long and not gpu" --ignore tests/kernels/test_interpreter.py \
    --ignore tests/kernels/test_compile.py --ignore tests/kernels/test_ddp.py --timeout 120
  local first=$?
  tests tests/kernels/test_cuda.py tests/test_attention.py -m gpu --timeout 240 -k "not test_the_kernel_tests_pass_on_a_gpu"
  local second=$?
  return $((first | second))
}

# Reads and writes out of bounds, of every launch of the row kernel; without the allocator's cache, whose blocks hide them.
sanitize() {
  command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not on PATH"; return 1; }
  local only=()
  compute-sanitizer --help 2>&1 | grep -q kernel-regex && only=(--kernel-regex kns=row_kernel)
  KERNEL_TESTS_ON=cuda PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck "${only[@]}" --error-exitcode 9 \
    "$python" -m pytest -q -x --tb=short -p no:cacheprovider --timeout 500 tests/kernels/gpu_path/test_triton_row.py \
    -k "columns_beyond or minus_infinity or every_dtype or rows_may_lie or forward_alone or vocabulary_of_qwen"
}

bench_of() {
  tests bench/bench_linear_loss.py -k "$1" --timeout 560 --benchmark-json="$out/$2.json"
  local code=$?
  "$python" bench/table.py "$out/$2.json"
  return $code
}
policy() { bench_of "policy" policy; }
cross-entropy() { bench_of "cross" cross-entropy; }

# The same work in float32 first, where all must agree to rounding; then what counts.
step() {
  local code=0
  whole() { "$python" bench/learning_step.py --out "$out" "$@" || code=1; }
  whole --size toy --dtype float32 --seconds 60 --only fastgrpo "fastgrpo, padded" "fastgrpo, full logits" TRL "TRL, Liger"
  whole --size "${SIZE:-1.5b}" --seconds 330
  whole --size "${SIZE:-1.5b}" --silent 0.4 --seconds 60 --only fastgrpo TRL
  return $code
}
model() { "$python" bench/learning_step.py --size 7b --seconds 400 --out "$out" --only "fastgrpo, recompute" fastgrpo "TRL, recompute"; }

sleep_() { "$python" bench/rollout_memory.py --size "${SIZE:-1.5b}" --out "$out"; }
engine() { tests tests/rollout/test_vllm_gpu.py --timeout 280; }

if [ "$stage" = all ]; then
  for each in versions correct sanitize policy cross-entropy step model sleep engine; do bash "$0" "$each" "$out" ${site:+"$site"}; done
  exit 0
fi
case $stage in
  versions | correct | sanitize | policy | cross-entropy | step | model | engine) run=$stage ;;
  sleep) run=sleep_ ;;
  *) echo "on_gpu.sh: no stage $stage; they are versions, correct, sanitize, policy, cross-entropy, step, model, sleep, engine, all" >&2; exit 2 ;;
esac
if [ -z "${ON_GPU_TIMED:-}" ]; then  # the whole stage under its limit, in a process group that ends with it
  ON_GPU_TIMED=1 timeout --kill-after=10 ""${LIMIT:-570}"" bash "$0" "$stage" "$out" ${site:+"$site"} 2>&1 | tee "$out/$stage.log"
  code=${PIPESTATUS[0]}
  echo "== $stage: $([ "$code" = 0 ] && echo passed || echo "exit $code$([ "$code" = 124 ] && echo ', out of time')")" | tee -a "$out/$stage.log"
  exit "$code"
fi
"$run"
