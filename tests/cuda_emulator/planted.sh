#!/usr/bin/env bash
# Plants fifteen mistakes in kernels, one at a time, and says which variant of the emulator finds each: run it when the
# emulator changes (some two minutes). Fails where a mistake is found by none, or something is found where none is.
set -uo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
compile="${CXX:-g++} -std=c++17 -g -w -DFASTPDR_CUDA_EMULATOR -I. -I../cuda -I../../csrc/cuda"
declare -A flags=([plain]=-O2 [asan]="-O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined"
  [tsan]="-O1 -fsanitize=thread")
fixed=$(setarch -R true 2>/dev/null && echo "setarch -R")
for variant in plain asan tsan; do
  $compile -O2 "-DCUDA_EMULATOR_${variant^^}" -c cuda_emulator.cpp -o "$work/$variant.o" || exit 1
done

missed=0
printf '%-8s %-12s %-12s %-12s\n' planted plain asan tsan
for planted in ${*:-$(seq 0 15)}; do
  row=() found=0
  for variant in plain asan tsan; do
    # shellcheck disable=SC2086
    $compile ${flags[$variant]} -DPLANTED="$planted" -x c++ planted.cu -x none "$work/$variant.o" -o "$work/test" || exit 1
    CUDA_EMULATOR_UNORDERED=1 TSAN_OPTIONS=halt_on_error=1 ASAN_OPTIONS=detect_leaks=$((planted == 0)) \
      $fixed "$work/test" >"$work/log" 2>&1 && row+=(-) && continue
    found=1
    case $(cat "$work/log") in
      *STOPPED*) row+=("stopped") ;;
      *"ERROR: AddressSanitizer"*) row+=("address") ;;
      *"runtime error"*) row+=("undefined") ;;
      *"ThreadSanitizer: data race"*) row+=("race") ;;
      *WRONG*) row+=("wrong") ;;
      *) row+=("died") ;;
    esac
    if ((planted == 0)); then cat "$work/log"; fi
  done
  printf '%-8s %-12s %-12s %-12s\n' "$planted" "${row[@]}"
  ((found == (planted > 0))) || missed=$((missed + 1))
done
((missed == 0)) && echo "every planted mistake is found, and no other" || { echo "$missed wrong rows"; exit 1; }
