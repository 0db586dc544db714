#!/bin/sh
# Builds carat and asks the bundled model a question: ./run.sh ["question"]
# Installs what is missing first (Debian or Ubuntu, as root or with sudo).
set -eu
cd "$(dirname "$0")"
question=${1:-What is 23 + 45?}
tools/deps.sh
echo "run: building"
mkdir -p build
if ! make -j"$(nproc)" >build/run.log 2>&1; then
    tail -n 40 build/run.log
    echo "run: the build failed (build/run.log)"
    exit 1
fi
echo "run: build/carat run nano \"$question\""
build/carat run nano "$question"
