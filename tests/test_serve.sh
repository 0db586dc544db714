#!/bin/sh
# `carat serve` from outside, by curl: tests/test_serve.sh CARAT. The app's files, the models' files
# and their ranges, who is refused, limits, the end. What clients of the APIs see is in
# tests/web/serve.test.mjs. The last line is "N passed, N failed[, N skipped]".
# shellcheck source=tests/cli.sh
. "$(dirname "$0")/cli.sh"
nano=$tests/../models/nano.gguf
export OLLAMA_MODELS="$dir/store"

result() { # NAME STATUS
    if [ "$2" -eq 0 ]; then
        passed=$((passed + 1))
        echo "ok $1"
    else
        failed=$((failed + 1))
        echo "not ok $1"
        echo "--- head:" && head -c 900 headers && echo "--- body:" && head -c 400 body
        echo "--- stderr of the server:" && tail -n 5 log
    fi
}

: >headers && : >body && : >log
if ! command -v curl >/dev/null; then
    skip "carat serve" "there is no curl to ask it with"
    finish
fi
if timeout 20 "$carat" serve --port 0 --app /nowhere 2>&1 | grep -q 'without libmicrohttpd'; then
    skip "carat serve" "this carat was built without libmicrohttpd"
    finish
fi

# start ARG...: a server in the background; its address to $url.
start() {
    rm -f out
    "$carat" serve --port 0 --device cpu "$@" >out 2>log </dev/null &
    server=$!
    url=
    for _ in $(seq 200); do
        url=$(sed -n 's/^carat serves \(.*\)\/$/\1/p' out 2>/dev/null)
        [ -n "$url" ] && return
        kill -0 $server 2>/dev/null || break
        sleep 0.05
    done
    echo "the server did not start" && cat out log
    failed=$((failed + 1))
}

stop() { # [SIGNAL]: ends it; the exit code to $status
    kill -"${1:-INT}" $server
    wait $server
    status=$?
    server=
}

# get PATH [CURL-OPTION...]: the status to $code, headers to headers, body to body.
get() {
    path=$1
    shift
    code=$(curl -s --max-time 20 --path-as-is -D headers -o body -w '%{http_code}' "$@" "$url$path")
}

# expect NAME STATUS [PATTERN...]: the status, and what headers and body together must match.
expect() {
    name=$1
    bad=0
    [ "$code" = "$2" ] || bad=1
    shift 2
    cat headers body | tr -d '\r' >both
    for pattern in "$@"; do grep -aqiE -e "$pattern" both || bad=1; done
    result "$name (status $code)" $bad
}

# ---- an app, and a store with one model ----
mkdir -p app/app app/sub app/.git secret
echo '<!doctype html><title>app</title>' >app/index.html
echo 'export default 1;' >app/app/main.js
printf '\0asm\1\0\0\0' >app/carat.wasm
echo '{}' >app/manifest.webmanifest
echo 'hidden' >app/.git/config
echo 'sub' >app/sub/index.html
echo 'confidential' >secret/file.txt
ln -s ../secret/file.txt app/leads-out.txt
ln -s ../secret app/leads-out
ln -s app/main.js app/leads-in.js
mkfifo app/pipe
hex=$(sha256sum "$nano" | cut -c 1-64)
size=$(stat -c %s "$nano")
mkdir -p store/blobs store/manifests/registry.ollama.ai/library/tiny
cp "$nano" "store/blobs/sha256-$hex"
layer='"mediaType":"application/vnd.ollama.image.model"'
printf '{"schemaVersion":2,"layers":[{%s,"digest":"sha256:%s","size":%s}]}' \
    "$layer" "$hex" "$size" >store/manifests/registry.ollama.ai/library/tiny/latest
cp "$nano" given.gguf
head -c 1000000 "$nano" >bad.gguf
: >app/empty.js

# ---- the command ----
"$carat" help serve >body 2>&1
code=$?
expect "help" 0 "usage: carat serve" "allow-origin" "examples" "exit codes"
code=0
timeout 20 "$carat" serve --app /nowhere >body 2>log || code=$?
cat log >>body
expect "a folder that is no app" 1 "/nowhere.*index.html"
code=0
timeout 20 "$carat" serve /nowhere/x.gguf >body 2>log || code=$?
cat log >>body
expect "a model that is not there" 1 "/nowhere/x.gguf"
code=0
timeout 20 "$carat" serve --port 99999 >body 2>log || code=$?
cat log >>body
expect "a port that cannot be" 2 "port.*65535"
code=0
timeout 20 "$carat" serve --port 0 --allow-origin https://example.com/app >body 2>log || code=$?
cat log >>body
expect "an origin that is none" 2 "allow-origin.*without a path"

# ---- files ----
start --app app given.gguf bad.gguf
get /
expect "the app's page" 200 "^content-type: text/html" "<title>app" "^etag:" \
    "^content-security-policy: default-src 'self'; script-src 'self' 'wasm-unsafe-eval'" \
    "^x-content-type-options: nosniff" "^cache-control: no-cache"
etag=$(tr -d '\r' <headers | sed -n 's/^ETag: //Ip')
get / -H "If-None-Match: $etag"
expect "it is not sent again" 304
get / -H "If-None-Match: \"other\", W/$etag"
expect "nor when the tag is one of several" 304
get / -H 'If-None-Match: "other"'
expect "but when it has changed" 200
get /app/main.js
expect "a script" 200 "^content-type: text/javascript"
get '/app/main.js?v=1'
expect "its query does not matter" 200 "export default"
get /empty.js
expect "an empty file" 200 "^content-length: 0"
get /empty.js -H "Range: bytes=0-"
expect "has no ranges" 416 "^content-range: bytes \*/0"
get /carat.wasm
expect "wasm has its type" 200 "^content-type: application/wasm"
get /manifest.webmanifest
expect "a manifest has its type" 200 "^content-type: application/manifest\+json"
get /sub
expect "a folder leads to its page" 301 "^location: /sub/"
get /sub/
expect "a folder's page" 200 "^sub"
get / -I
expect "HEAD" 200 "^content-length: [1-9]"
! grep -aq "<title>" body
result "has no body" $?
get /leads-in.js
expect "a link that stays in the folder" 200 "export default"
for path in /nothing /../secret/file.txt /%2e%2e/secret/file.txt /sub/..%2f../secret/file.txt \
    /leads-out.txt /leads-out/file.txt /.git/config /sub/../index.html //index.html \
    /./index.html '/sub\..\index.html' /pipe /app /app//main.js; do
    get "$path"
    case $path in /app) expect "$path" 301 ;; *) expect "$path" 404 ;; esac
    ! grep -aq confidential body
    result "$path gives nothing away" $?
done
for path in /%00 /index.html%00.js /%zz /%f /%0d%0aX:1 /%ff; do
    get "$path"
    expect "$path is no path" 400
done
get / -X POST -d x
expect "a file is not posted to" 405 "^allow: GET"
get / -X DELETE
expect "nor deleted" 405
get /api/chat
expect "a route with another method" 405 "^allow: POST" '"error"'
get /v1/nothing
expect "an unknown route of OpenAI's" 404 '"error":\{"message"'
get /api/nothing
expect "an unknown route of Ollama's" 404 '^\{"error":"'

# ---- models ----
question='"temperature":0,"messages":[{"role":"user","content":"What is 23 + 45?"}]'
get /models
expect "the index" 200 '"name":"nano","size":'"$size"',"digest":null,"url":"/models/blob/nano"' \
    '"name":"tiny","size":'"$size"',"digest":"sha256:'"$hex"'","url":"/models/blob/tiny"' \
    '"name":"given.gguf".*"/models/blob/given.gguf"' "^content-type: application/json"
get /models/blob/tiny -I
expect "its size without its bytes" 200 "^content-length: $size" "^accept-ranges: bytes" \
    "^etag: \"sha256:$hex\""
get /models/blob/tiny
cmp -s body "$nano"
result "all of it" $?
for range in 0-3/0-3/4 5-5/5-5/1 -4/$((size - 4))-$((size - 1))/4 \
    $((size - 3))-/$((size - 3))-$((size - 1))/3 \
    10-99999999999999999999/10-$((size - 1))/$((size - 10)) \
    -99999999999999999999/0-$((size - 1))/$size; do
    wanted=${range#*/}
    get /models/blob/tiny -H "Range: bytes=${range%%/*}"
    first=${wanted%%-*}
    n=${wanted##*/}
    expect "range ${range%%/*}" 206 "^content-range: bytes ${wanted%/*}/$size" \
        "^content-length: $n"
    tail -c +$((first + 1)) "$nano" | head -c "$n" | cmp -s - body
    result "and its bytes" $?
done
for range in "bytes=$size-" "bytes=$size-$((size + 5))" bytes=-0; do
    get /models/blob/tiny -H "Range: $range"
    expect "range $range is not there" 416 "^content-range: bytes \*/$size"
done
for range in "lines=0-3" "bytes=3-1" "bytes=-" "bytes=a-b" "bytes=0-1,5-6" "bytes=0-3x"; do
    get /models/blob/tiny -H "Range: $range" -I
    expect "range $range is none" 200 "^content-length: $size"
    get /models/blob/tiny -H "Range: $range"
    expect "and all is sent" 200 "^content-length: $size"
done
get /models/blob/tiny -H "Range: bytes=0-3" -H "If-Range: \"sha256:$hex\""
expect "If-Range, unchanged" 206
get /models/blob/tiny -H "Range: bytes=0-3" -H 'If-Range: "other"'
expect "If-Range, changed" 200
get /models/blob/tiny -H "If-None-Match: \"sha256:$hex\""
expect "a blob that is known already" 304
for path in /models/blob/nothing /models/blob/..%2f..%2fsecret%2ffile.txt /models/blob/ \
    /models/blob/%2fetc%2fpasswd "/models/blob/sha256-$hex" /models/blob/secret/file.txt; do
    get "$path"
    expect "$path" 404
done
get /models/blob/TINY:latest -I
expect "a name as Ollama writes it" 200
get /models/blob/given -I
expect "a file that was given" 200 "^content-length: $size"
get /api/chat -d '{"model":"/etc/passwd","messages":[]}'
expect "a path is no model's name" 404 '"error"'
get /api/chat -d '{"model":"secret/file.txt","messages":[]}'
expect "nor is one from here" 404 '"error"'
get /v1/chat/completions -d "{\"model\":\"tiny\",$question}"
expect "a model of the store answers" 200 '"content":"23 \+ 45 = 68\."'
get /v1/chat/completions -d "{\"model\":\"given.gguf\",$question}"
expect "so does one that was given, in its place" 200 '"content":"23 \+ 45 = 68\."'
get /api/ps
expect "which is the one in memory" 200 '"name":"given.gguf"'
get /api/chat -d '{"model":"bad.gguf","messages":[]}'
expect "a damaged one is an error" 500 'bad.gguf'
get /api/ps
expect "and does not push it out" 200 '"name":"given.gguf"'
rm "store/blobs/sha256-$hex"
get /models
! grep -aq tiny body
result "a blob that vanished is not offered" $?
get /v1/chat/completions -d '{"model":"tiny","messages":[{"role":"user","content":"x"}]}'
expect "and is said to be missing" 404 "missing|no model"
head -c 1000000 "$nano" >given.gguf
get /v1/chat/completions -d '{"model":"given.gguf","messages":[{"role":"user","content":"x"}]}'
expect "a damaged model is an error" 500 '"error":\{"message":".*given.gguf' '"api_error"'
get /api/version
expect "and the server lives on" 200 '"version":"'

# ---- who asks ----
port=${url##*:}
for host in localhost "localhost:$port" LOCALHOST:1 127.0.0.1 "[::1]:$port"; do
    get /api/version -H "Host: $host"
    expect "Host $host" 200
done
for host in evil.example "evil.example:$port" 127.0.0.1.evil.example 192.168.1.7 localhost.; do
    get /api/version -H "Host: $host"
    expect "Host $host" 403 "--allow-host"
done
for host in "[::1" "localhost:x" "" ":80"; do
    get /api/version -H "Host;" -H "Host: $host"
    expect "Host '$host'" 400
done
get /api/version --http1.0 -H "Host:"
expect "no Host" 400
get /api/version -H "Origin: $url"
expect "a page of its own" 200
for origin in https://evil.example null "http://localhost:1" "${url}0" "http://127.0.0.1"; do
    get /models/blob/nano -H "Origin: $origin"
    expect "Origin $origin" 403 "--allow-origin"
    ! grep -aqi access-control headers
    result "and no header lets it" $?
done
get /v1/chat/completions -X OPTIONS -H "Origin: https://evil.example" \
    -H "Access-Control-Request-Method: POST"
expect "it is told so before" 403
get /v1/chat/completions -H "Origin: https://evil.example" -d '{}'
expect "a post of it" 403 '"error":\{"message":"web pages of https://evil.example'
get /api/version -X OPTIONS
expect "OPTIONS" 204 "^allow: GET, HEAD, POST"

# ---- limits ----
head -c 34603008 /dev/zero >large
get /api/chat --data-binary @large -H "Expect:"
expect "a body that is too large" 413 "32 MiB"
get /api/chat --data-binary @large -H "Transfer-Encoding: chunked" -H "Expect:"
expect "also one of unknown size" 413 "32 MiB"
get /api/version -H "X: $(head -c 60000 /dev/zero | tr '\0' x)"
case $code in 4?? | 000) true ;; *) false ;; esac
result "headers that are too large (status $code)" $?
get /api/version
expect "the server lives on" 200

# ---- another one at the same port; the end ----
code=0
timeout 20 "$carat" serve --port "$port" >body 2>&1 || code=$?
expect "a taken port" 1 "port $port of 127.0.0.1 is in use"
stop
[ $status -eq 130 ] && [ ! -s log ]
result "Ctrl-C ends it with 130 (was $status)" $?
start --app app
stop TERM
[ $status -eq 0 ]
result "SIGTERM with 0 (was $status)" $?

# ---- what was allowed ----
start --app app --allow-host my.computer --allow-origin https://good.example --host 0.0.0.0 \
    --model nano --verbose
get /api/ps
expect "--model loads before anything asks" 200 '"name":"nano"'
get /v1/chat/completions -d '{"max_tokens":1,"messages":[{"role":"user","content":"classified"}]}'
expect "and is meant when none is named" 200 '"model":"nano"'
get /api/version -H "Host: my.computer:80"
expect "--allow-host" 200
get /api/version -H "Host: 192.168.1.7"
expect "any address, when it listens on all" 200
get /api/version -H "Host: evil.example"
expect "but no other name" 403
get /models -H "Origin: https://good.example"
expect "--allow-origin" 200 "^access-control-allow-origin: https://good.example" "^vary: origin"
get /models -X OPTIONS -H "Origin: https://good.example" -H "Access-Control-Request-Method: POST" \
    -H "Access-Control-Request-Headers: content-type,range"
expect "and the question before" 204 "^access-control-allow-origin: https://good.example" \
    "^access-control-allow-methods: .*POST" "^access-control-allow-headers: content-type,range"
get /models -H "Origin: https://good.example.evil"
expect "but no other page" 403
grep -qE '^POST "/v1/chat/completions" 200 .*nano: .*tokens' log
result "--verbose: a line for each request" $?
! grep -q classified log
result "without what was said" $?
stop
start --app app --allow-origin '*'
get /models -H "Origin: null"
expect "--allow-origin '*'" 200 "^access-control-allow-origin: null"
stop
code=0
timeout 20 "$carat" serve --port 0 --model /nowhere/x.gguf >body 2>&1 || code=$?
expect "--model that is not there" 1 "/nowhere/x.gguf"
code=0
timeout 20 "$carat" serve --port 0 --device cpu --model "$dir/given.gguf" >body 2>&1 || code=$?
expect "--model that is damaged" 1 "given.gguf"
! grep -q '^carat serves' body
result "and nothing is served" $?
start "$nano"
get /models
expect "the bundled model, given as a file" 200 '"name": *"nano"'
stop

finish
