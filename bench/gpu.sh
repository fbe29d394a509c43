#!/usr/bin/env bash
# On a machine with a GPU: the device's tests, then ftrain beside PyTorch, into one Markdown page.
# Within ten minutes; what does not fit is named.
#
#   bench/gpu.sh [--bundle ftrain-VERSION.tar.gz] [--seconds 600] [--out gpu.md]
#
# Uses the bundle that it came with, or the one that is named, which is unpacked beside the page
# (docs/gpu.md), or else this tree's build/release: nothing is built here. CUDA's libraries may
# be the system's or those inside python3's packages; PyTorch comes from python3, or
# $FTRAIN_PEER_PYTHON.
set -euo pipefail
begin=$SECONDS
tree=$(cd "$(dirname "$0")/.." && pwd)
bundle= seconds=600 out=gpu.md
while [ $# -gt 0 ]; do
  case $1 in
    --bundle) bundle=$2 ;;
    --seconds) seconds=$2 ;;
    --out) out=$2 ;;
    *) sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
  esac
  shift 2
done
python=${FTRAIN_PEER_PYTHON:-python3}

home=$tree/build/release
tests=$home/tests
[ -x "$tree/../../bin/ftrain" ] && home=$(realpath "$tree/../..")
if [ -n "$bundle" ]; then
  home=$(dirname "$(realpath -m "$out")")/$(basename "$bundle" .tar.gz)
  mkdir -p "$home"
  tar -xzf "$bundle" -C "$home" --strip-components=1
fi
[ -e "$home/libexec" ] && tests=$home/libexec/ftrain
ftrain=$home/bin/ftrain

# Where pip's packages keep cuDNN, cuBLAS and NCCL.
packages=$("$python" - <<'PY' 2> /dev/null || true
import glob, os, site
roots = site.getsitepackages() + [site.getusersitepackages()]
print(":".join(d for r in roots for d in sorted(glob.glob(os.path.join(r, "nvidia", "*", "lib")))))
PY
)
export LD_LIBRARY_PATH=${packages}${packages:+:}${LD_LIBRARY_PATH:-}

{
  echo "# ftrain on $(nvidia-smi --query-gpu=name --format=csv,noheader 2> /dev/null | head -1)"
  echo
  echo "Driver $(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2> /dev/null | head -1)," \
       "$("$ftrain" --version), $(date -u +%F)."
  echo
  echo "## Tests"
  echo
  echo '```'
} > "$out"
status=0
# Each kernel against the CPU's; then whole jobs, of one rank: curves beside the CPU's, bits.
timeout $((seconds / 5)) "$tests/cuda_gpu_test" --gtest_brief=1 > "$out.tests" 2>&1 || status=$?
FTRAIN_TEST_GPU=1 FTRAIN_TEST_PROGRAM=$ftrain timeout $((seconds / 5)) \
  "$tests/cuda_program_test" --gtest_brief=1 \
  --gtest_filter='*_1:*Captured*:*Stopped*:*MadeAgain*:*OtherPrecisions' \
  >> "$out.tests" 2>&1 || status=$?
tail -n 60 "$out.tests" >> "$out"
{
  echo '```'
  echo "Exit code $status."
  echo
  echo "## Speed"
  echo
} >> "$out"
"$python" "$tree/bench/gpu" --ftrain "$ftrain" --python "$(command -v "$python")" \
  --seconds $((seconds - (SECONDS - begin) - 5)) --out "$out"
exit "$status"
