#!/bin/sh
# The program in docs/api.md compiles without warnings and answers; what the README and the docs
# link to exists.   tests/test_docs.sh CARAT
set -u
library=$(dirname "$1")/libcarat.a
passed=0
failed=0
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

ok() { passed=$((passed + 1)) && echo "ok $1"; }
bad() { failed=$((failed + 1)) && echo "not ok $1: $2"; }

awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' docs/api.md >"$work/hello.c"
# shellcheck disable=SC2086 # a command and its flags
if ${CARAT_CC:-cc -fopenmp} -Werror -Iinclude "$work/hello.c" "$library" -fopenmp -lm -ldl \
    -lpthread -o "$work/hello" 2>"$work/log"; then
    ok "the program in docs/api.md compiles"
    answer=$("$work/hello" models/nano.gguf cpu 2>&1)
    case $answer in *68*) ok "it answers" ;; *) bad "it answers" "$answer" ;; esac
else
    bad "the program in docs/api.md compiles" "$(head -n 3 "$work/log")"
fi

for page in README.md CONTRIBUTING.md docs/*.md; do
    missing=$(sed -n 's/.*](\([^)#]*\)).*/\1/p' "$page" | grep -v '://' | while read -r link; do
        [ -e "$(dirname "$page")/$link" ] || echo "$link"
    done)
    if [ -z "$missing" ]; then ok "links of $page"; else bad "links of $page" "$missing"; fi
done

echo "$passed passed, $failed failed"
[ $failed -eq 0 ]
