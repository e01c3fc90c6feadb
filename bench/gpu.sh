#!/usr/bin/env bash
# All that needs a GPU, in one command and within a quarter of an hour:
#
#   bench/gpu.sh            build from source, run the kernels' tests there and in the emulator, and under
#                           compute-sanitizer, benchmarks, whole fits, all tests
#   bench/gpu.sh --dry-run  the same without a GPU, as far as that goes, on small inputs
#
# PYTHON names the interpreter (python3); it has torch >= 2.11, numpy, scipy, scikit-learn, tqdm, safetensors, click,
# pytest, setuptools and pybind11, and nvcc, cmake and ninja are on the PATH. Nothing is downloaded; FAISS is not needed.
# OUT is where the JSON goes (bench/results/<name of the GPU>/); FASTPDR_DATA, if set, is where bench/quality's sets
# are. What fails is said again at the end.
set -uo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
LIMIT=${LIMIT:-900} # seconds in all
dry=0
case "${1:-}" in
  "") ;;
  --dry-run) dry=1 ;;
  *) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac

failed=()
part() {
  echo
  echo "=== $1 (after ${SECONDS} s)"
}
limited() { # at most SECONDS-OF-ITS-OWN, and what is left: limited SECONDS COMMAND...
  local left=$((LIMIT - SECONDS)) own=$1
  shift
  ((left > 5)) || { echo "left out: no time"; return 124; }
  timeout --signal=INT --kill-after=5 $((own < left ? own : left)) "$@"
}
require() { command -v "$1" >/dev/null || { echo "bench/gpu.sh needs $1: $2"; exit 2; }; }

require "$PYTHON" "set PYTHON"
require cmake "pip install cmake"
require ninja "pip install ninja"
gpu=$("$PYTHON" - <<'PYTHON_END'
import re, torch
name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
print("-".join(re.findall(r"[a-z]*[0-9]+[a-z]*|[a-z]+", name.lower().replace("nvidia", ""))[:1]))
PYTHON_END
) || { echo "bench/gpu.sh needs torch in $PYTHON"; exit 2; }
if [ -z "$gpu" ] && [ $dry = 0 ]; then
  echo "bench/gpu.sh needs a GPU, and PyTorch sees none here. bench/gpu.sh --dry-run does what can be done without."
  exit 2
fi
require nvcc "the CUDA toolkit; or put it on the PATH"
build=${BUILD:-build/gpu}
[ -n "$gpu" ] && OUT=${OUT:-bench/results/$gpu} || OUT=${OUT:-$build}
jobs=$(nproc)
mkdir -p "$build" "$OUT"

part "build: the Python module, the kernels' tests for the GPU and for the emulator"
extension() {
  FASTPDR_CUDA=ON "$PYTHON" setup.py -q build_ext --inplace >"$build/extension.log" 2>&1 ||
    { tail -20 "$build/extension.log"; return 1; }
}
kernels() { # FOLDER OPTION...: one target for the emulator, all for a GPU
  local folder=$build/$1 targets=()
  shift
  cmake -S tests/cuda -B "$folder" -G Ninja "$@" >"$folder.log" 2>&1 || { tail -20 "$folder.log"; return 1; }
  if [ "$folder" = "$build/emulator" ]; then
    for test in tests/cuda/test_*.cu; do targets+=("$(basename "$test" .cu)_plain"); done
  fi
  cmake --build "$folder" -j "$jobs" ${targets:+--target} "${targets[@]}" >>"$folder.log" 2>&1 ||
    { tail -20 "$folder.log"; return 1; }
}
(extension) & one=$!
(kernels emulator) & two=$!
(kernels hardware -DFASTPDR_GPU=ON -DCMAKE_CUDA_ARCHITECTURES="$([ -n "$gpu" ] && echo native || echo 90-virtual)") & three=$!
wait $one || { echo "the Python module could not be built"; exit 1; }
wait $two || failed+=("build of the emulator's tests")
wait $three || failed+=("build of the kernels' tests for the GPU")
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
"$PYTHON" -c 'import fastpdr; info = fastpdr.build_info(); print("nvcc:", *info["cuda_architectures"]); assert info["cuda_architectures"]' ||
  exit 1

part "the kernels' tests, in the emulator and on the GPU: the same programs, each against the CPU kernels"
for source in tests/cuda/test_*.cu; do
  name=$(basename "$source" .cu)
  for where in emulator hardware; do
    program=$build/$where/$name
    [ $where = emulator ] && program+=_plain
    if [ $where = hardware ] && [ -z "$gpu" ]; then
      printf '%-18s %-9s %s\n' "$name" $where "built, not run: no GPU"
      continue
    fi
    result=$(OMP_NUM_THREADS=4 limited 60 "$program" 2>&1) || failed+=("$name, $where")
    printf '%-18s %-9s %s\n' "$name" $where "$(tail -1 <<<"$result")"
    grep -E '^(WRONG|STOPPED)' <<<"$result" | head -5
  done
done >"$OUT/kernels.txt"
cat "$OUT/kernels.txt"

if [ -n "$gpu" ] && command -v compute-sanitizer >/dev/null; then
  part "the kernels' tests under compute-sanitizer: memory, and races with fewer sizes"
  for source in tests/cuda/test_*.cu; do
    name=$(basename "$source" .cu)
    for tool in memcheck racecheck; do
      quick=$([ $tool = racecheck ] && echo FASTPDR_CHECK_QUICK=1)
      result=$(limited 120 env OMP_NUM_THREADS=4 $quick compute-sanitizer --tool $tool --error-exitcode 1 \
        "$build/hardware/$name" 2>&1) || failed+=("$name, $tool")
      printf '%-21s %-9s %s\n' "$name" $tool "$(tail -1 <<<"$result")"
    done
  done >"$OUT/sanitizer.txt" # no pipe, in whose shell what failed would be lost
  cat "$OUT/sanitizer.txt"
fi

part "benchmarks"
if [ -n "$gpu" ]; then
  nvcc -O3 -arch=native bench/roofline.cu -o "$build/roofline" && "$build/roofline" >"$OUT/roofline.json" &&
    PYTHONPATH=bench:$PYTHONPATH limited 120 "$PYTHON" bench/gpu.py --seconds 90 --roofline "$OUT/roofline.json" \
      --json "$OUT/gpu.json" || failed+=("benchmarks")
  sets=(--set blobs)
  [ -n "${FASTPDR_DATA:-}" ] && sets=()
  limited 240 "$PYTHON" bench/gpu_fits.py run "${sets[@]}" --seconds 180 --output "$build/fits" &&
    limited 200 "$PYTHON" bench/gpu_fits.py judge "$build/fits" && cp "$build/fits/fits.json" "$OUT/" || failed+=("fits")
else
  nvcc -O3 -arch=sm_90 bench/roofline.cu -o "$build/roofline" || failed+=("build of the roofline")
  PYTHONPATH=bench:$PYTHONPATH limited 200 "$PYTHON" bench/gpu.py --device cpu --small --json "$build/dry-run.json" ||
    failed+=("benchmarks")
fi

part "tests: those that use the GPU first, then all the others"
first=(tests/ops tests/training tests/estimators/test_gpu.py tests/graph tests/test_build.py)
if [ $dry = 1 ]; then first=(tests/training/test_step.py tests/estimators/test_gpu.py); fi
limited 200 "$PYTHON" -m pytest -q -p no:cacheprovider "${first[@]}" >"$build/tests.log" 2>&1 || failed+=("tests")
grep -E '^(FAILED|ERROR)|passed|failed' "$build/tests.log" | tail -25
if [ $dry = 0 ]; then
  limited 400 "$PYTHON" -m pytest -q -p no:cacheprovider "${first[@]/#/--ignore=}" tests >"$build/rest.log" 2>&1 ||
    failed+=("the other tests, or the time for them")
  grep -E '^(FAILED|ERROR)|passed|failed' "$build/rest.log" | tail -25
fi

part "done; results are in $OUT"
if ((${#failed[@]})); then
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
