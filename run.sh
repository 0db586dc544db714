#!/bin/sh
# Builds carat, asks the bundled model a question, and serves the app: ./run.sh ["question"]
# Ctrl-C ends it. Installs what is missing first (Debian or Ubuntu, as root or with sudo).
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

if ! make -j"$(nproc)" web >build/web.log 2>&1; then
    tail -n 5 build/web.log
    echo "run: NO APP: it could not be built (build/web.log); there is only the command line"
    exit 0
fi
if ! ldd build/carat | grep -q microhttpd; then
    echo "run: NO APP: this carat was built without libmicrohttpd, so it cannot serve"
    exit 0
fi
echo "run: build/carat serve (Ctrl-C ends it)"
echo "run: http://127.0.0.1:11435/"
exec build/carat serve
