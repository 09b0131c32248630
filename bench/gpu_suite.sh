#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds ddkern for the GPU of this machine, tests it, runs it under compute-sanitizer and measures
# it. Needs nvcc, and a Python with torch, pybind11, scikit-build-core, cmake, ninja and pytest;
# no network.
#
#     OUT=results bench/gpu_suite.sh                      # everything
#     OUT=results bench/gpu_suite.sh build bench          # some of build, test, sanitize, bench
#
# Logs and JSON documents go to $OUT (default: build/gpu-suite/out). No step ends the run; the exit
# status is 1 where one failed. Environment, with what holds without it:
#
#     PYTHON=python3
#     BUILD_SECONDS=120 TEST_SECONDS=120 SANITIZE_SECONDS=100   limits of the steps
#     BENCH_SECONDS=400       for all benchmarks together, or rather
#     TOTAL_SECONDS           for the whole run: the benchmarks get what is left
#     BENCH_SUITES="lloyd end_to_end scaling"
#     BENCH_ARGS=""           for every suite, for example "--rounds 5 --peers torch_bf16"
#     LLOYD_ARGS, END_TO_END_ARGS, SCALING_ARGS   for one of them, for example "--shapes latents-k50"
#     TEST_ARGS=""            for pytest
#     SANITIZER_TOOLS="memcheck racecheck initcheck synccheck", SANITIZER_ARGS=""
#     WHEELS=.whl             wheels of further peers lie here, if any
#     DDKERN_COMMIT           which revision this is, where git cannot tell
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
exec </dev/null
begin=$SECONDS

# The interpreter itself: what compute-sanitizer starts must not be a script around it.
PYTHON=$("${PYTHON:-python3}" -c 'import sys; print(sys.executable)') || exit 1
BUILD=$PWD/build/gpu-suite
SITE=$BUILD/site
OUT=${OUT:-$BUILD/out}
mkdir -p "$OUT" "$BUILD"
OUT=$(cd "$OUT" && pwd)
SUMMARY=$OUT/summary.txt
: >"$SUMMARY"
failed=0

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
export PYTHONPATH=$SITE PYTHONDONTWRITEBYTECODE=1
DDKERN_COMMIT=${DDKERN_COMMIT:-$(git rev-parse HEAD 2>/dev/null || true)}
export DDKERN_COMMIT

# step <name> <function>: run it with its output in $OUT/<name>.log, and keep status and time.
step() {
  local name=$1 start=$SECONDS status=0
  shift
  "$@" >"$OUT/$name.log" 2>&1 || status=$?
  [ "$status" -eq 0 ] || failed=1
  local state="ok"
  [ "$status" -eq 0 ] || state="FAILED ($status)"
  [ "$status" -ne 124 ] || state="OUT OF TIME"
  printf '%-10s %4d s  %s\n' "$name" "$((SECONDS - start))" "$state" >>"$SUMMARY"
  return 0
}

build() {
  local capability
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -n 1 | tr -d ' .')
  echo "compute capability: ${capability:-unknown}"
  [ "$capability" != 90 ] || capability=90a
  rm -rf "$SITE"
  DDKERN_CUDA=ON DDKERN_CUDA_ARCHITECTURES="${DDKERN_CUDA_ARCHITECTURES:-${capability:+$capability-real}}" \
    CMAKE_BUILD_PARALLEL_LEVEL="${CMAKE_BUILD_PARALLEL_LEVEL:-$(nproc)}" timeout "${BUILD_SECONDS:-120}" \
    "$PYTHON" -m pip install --verbose --no-index --no-build-isolation --no-deps --target "$SITE" . ||
    return
  local wheel
  for wheel in "${WHEELS:-.whl}"/*.whl; do
    [ -e "$wheel" ] || continue
    "$PYTHON" -m pip install --no-index --no-deps --upgrade --target "$SITE" "$wheel" ||
      echo "not installed: $wheel"
  done
  "$PYTHON" -m ddkern
}

tests() {
  # shellcheck disable=SC2086
  timeout "${TEST_SECONDS:-120}" "$PYTHON" -m pytest tests/cuda -q -p no:cacheprovider ${TEST_ARGS:-}
}

# All tools at the same time: most of the time goes into their start.
sanitize() {
  local tool status=0 limit=${SANITIZE_SECONDS:-100} pids=()
  local tools=(${SANITIZER_TOOLS:-memcheck racecheck initcheck synccheck})
  for tool in "${tools[@]}"; do
    # shellcheck disable=SC2086
    timeout "$limit" compute-sanitizer --tool "$tool" --error-exitcode 9 --print-limit 20 \
      ${SANITIZER_ARGS:-} "$PYTHON" -m bench.gpu.sanitize --seconds "$((limit * 3 / 4))" \
      >"$BUILD/sanitize-$tool.log" 2>&1 &
    pids+=($!)
  done
  local i one
  for i in "${!tools[@]}"; do
    one=0
    wait "${pids[$i]}" || one=$?
    [ "$one" -eq 0 ] || status=$one
    printf '===== %s: status %d =====\n' "${tools[$i]}" "$one"
    tail -c 200000 "$BUILD/sanitize-${tools[$i]}.log"
  done
  return "$status"
}

# bench <suite> <seconds>
bench() {
  local suite=$1 seconds=$2 own
  own=$(printf '%s_ARGS' "$suite" | tr '[:lower:]' '[:upper:]')
  # A line that has begun may end a little after the budget; the hard limit is for what hangs.
  # shellcheck disable=SC2086
  timeout "$((seconds + 45))" "$PYTHON" -m bench.kmeans.gpu_peers --suite "$suite" \
    --budget "$seconds" --out "$OUT/$suite.json" ${BENCH_ARGS:-} ${!own:-}
}

benchmarks() {
  local left suite share status=0 one
  local suites=(${BENCH_SUITES:-lloyd end_to_end scaling})
  left=${BENCH_SECONDS:-400}
  if [ -n "${TOTAL_SECONDS:-}" ]; then
    left=$((TOTAL_SECONDS - (SECONDS - begin) - 20))
  fi
  local end=$((SECONDS + left)) waiting=${#suites[@]}
  for suite in "${suites[@]}"; do
    # Of what is left, half goes to the suite that is next, and all of it to the last one.
    left=$((end - SECONDS))
    share=$((waiting > 1 ? left / 2 : left))
    waiting=$((waiting - 1))
    if [ "$share" -lt 5 ]; then
      echo "$suite: no time left"
      status=124
      continue
    fi
    one=0
    bench "$suite" "$share" || one=$?
    [ "$one" -eq 0 ] || status=$one
  done
  return "$status"
}

steps=("$@")
[ ${#steps[@]} -gt 0 ] || steps=(build test sanitize bench)
for name in "${steps[@]}"; do
  case $name in
    build) step build build ;;
    test) step test tests ;;
    sanitize) step sanitize sanitize ;;
    bench) step bench benchmarks ;;
    *)
      echo "unknown step: $name (build, test, sanitize, bench)" >&2
      exit 2
      ;;
  esac
done

# What a reader wants to know, in few lines.
shown() { [ ! -s "$OUT/$1.log" ] || grep -E "$2" "$OUT/$1.log" | tail -n "$3"; }
{
  ! grep -Eq '^build .*(FAILED|OUT OF TIME)' "$SUMMARY" ||
    shown build '[Ee]rror|FAILED|CMake' 15
  shown test '^(FAILED|ERROR)|[0-9]+ (passed|failed|error)|rror' 15
  shown sanitize '^===== |(ERROR|RACECHECK) SUMMARY|fits done|^FAILED' 24
  shown bench '^(lloyd|end_to_end|scaling|ddkern|  [a-z])|Error|skipped|no time' 90
} | cut -c 1-150
echo
cat "$SUMMARY"
exit "$failed"
