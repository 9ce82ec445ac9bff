#!/bin/bash
# VNN-COMP: install_tool.sh VERSION. Installs the package of this checkout with what ONNX files need.
set -euo pipefail
[ "${1:-}" = v1 ] || { echo "expected version string 'v1', got '${1:-}'" >&2; exit 1; }
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
python3 -m venv "$root/.vnncomp"
"$root/.vnncomp/bin/pip" install --quiet "$root[onnx]" vnnlib scipy
