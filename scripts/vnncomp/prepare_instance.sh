#!/bin/bash
# VNN-COMP: prepare_instance.sh VERSION CATEGORY NET.onnx PROPERTY.vnnlib. Exits with 1 where the instance cannot be run.
set -euo pipefail
[ "${1:-}" = v1 ] || { echo "expected version string 'v1', got '${1:-}'" >&2; exit 1; }
[ -f "$3" ] && [ -f "$4" ]
