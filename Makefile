# carat: make [all|test|check|bench|fuzz|clean]  config=debug|release|sanitize|coverage  CC=gcc|clang
config ?= release
CC     ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif

O     := build/$(notdir $(CC))-$(config)
GEN   := build/gen
WARN  := -Wall -Wextra -Wshadow -Wconversion -Wsign-conversion -Wstrict-prototypes \
         -Wmissing-prototypes -Wvla
FLAGS := -std=c17 -D_GNU_SOURCE -g -Iinclude -Isrc -I$(GEN) -isystem .deps/webgpu $(WARN) -fopenmp
LIBS  := -lm -ldl -lpthread

flags_release  := -O2
flags_debug    := -O0
flags_sanitize := -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined
flags_coverage := -O0 --coverage
FLAGS += $(flags_$(config))

LIB_SRC  := $(filter-out src/gpu/gpu_web.c,$(wildcard src/*/*.c))
LIB_OBJ  := $(LIB_SRC:%.c=$(O)/%.o) $(O)/gen/kernels.o
CLI_OBJ  := $(patsubst %.c,$(O)/%.o,$(wildcard cli/*.c))
TESTS    := $(patsubst tests/%.c,$(O)/%,$(wildcard tests/test_*.c))
KERNELS  := $(wildcard kernels/*.wgsl kernels/lib/*.wgsl)

all: $(O)/carat
	@ln -sfn $(notdir $(O))/carat build/carat

$(O)/carat: $(CLI_OBJ) $(O)/libcarat.a
	$(CC) $(FLAGS) -o $@ $^ $(LIBS) -ledit

$(O)/libcarat.a: $(LIB_OBJ)
	@rm -f $@
	ar rcs $@ $^

$(O)/%.o: %.c | $(GEN)/kernels.h
	@mkdir -p $(@D)
	$(CC) $(FLAGS) -MMD -MP -c -o $@ $<

$(O)/gen/%.o: $(GEN)/%.c
	@mkdir -p $(@D)
	$(CC) $(FLAGS) -c -o $@ $<

$(GEN)/kernels.h $(GEN)/kernels.c &: tools/embed.c $(KERNELS)
	@mkdir -p $(GEN)
	$(CC) -std=c17 -D_GNU_SOURCE -O1 $(WARN) -o $(GEN)/embed tools/embed.c
	$(GEN)/embed kernels $(GEN)/kernels.h $(GEN)/kernels.c

# Tests: one program a file, each with cmocka.
$(O)/test_%: $(O)/tests/test_%.o $(O)/libcarat.a
	$(CC) $(FLAGS) -o $@ $^ $(LIBS) -lcmocka

test: $(TESTS) all
	tests/run.sh $(TESTS)

clean:
	rm -rf build

-include $(shell find build -name '*.d' 2>/dev/null)
.PHONY: all test clean
.SECONDARY:
