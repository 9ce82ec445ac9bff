#!/bin/bash
# VNN-COMP: run_instance.sh VERSION CATEGORY NET.onnx PROPERTY.vnnlib RESULT TIMEOUT. Writes the answer to RESULT.
set -uo pipefail
[ "${1:-}" = v1 ] || { echo "expected version string 'v1', got '${1:-}'" >&2; exit 1; }
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
# Five seconds are left for loading the package; the answer must be written before the organisers' own limit.
limit="$(python3 -c "print(max(1.0, float('$6') - 5))")"
"$root/.vnncomp/bin/acert-zoo" verify-property "$3" "$4" --timeout "$limit" --out "$5"
case $? in
    0 | 1 | 3) ;;  # unsat, sat, not decided
    *) echo error > "$5" ;;
esac
