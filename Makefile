# byol: `make demo` installs what is missing, builds and runs the main job on the offline example; `make test` runs every suite.
# Every target is listed by `make help`. Options: BUILD=dir, CC=…, WERROR=1, URING=0, DNNL=0 and MPI=0 (build without that part).

BUILD  ?= build
PREFIX ?= /usr/local
CC     ?= cc
SANITIZE ?=
WERROR ?= $(if $(CI),1)

# --- optional parts: found by asking the compiler, each can be switched off -------------------------------------------------

hash := \#
have = $(shell printf '$(hash)include <$(1)>\nint main(void){return 0;}\n' | $(CC) $(CPPFLAGS) -x c - $(2) -o /dev/null 2>/dev/null && echo 1 || echo 0)
# Not for goals that compile nothing themselves.
ifneq ($(filter-out help deps clean format layers headers lint demo test asan tsan fuzz fuzz-clang bench-peers,$(or $(MAKECMDGOALS),all)),)
URING ?= $(call have,liburing.h,-luring)
DNNL  ?= $(call have,oneapi/dnnl/dnnl.h,-ldnnl)
ifneq ($(MPI),0)
# MPI is not linked in but opened at run time (trainer/comm), by the name that its header's library has for the linker.
MPI_FLAGS := $(shell pkg-config --cflags ompi-c 2>/dev/null || pkg-config --cflags mpich 2>/dev/null || mpicc -showme:compile 2>/dev/null)
MPI_LINK := $(shell pkg-config --libs ompi-c 2>/dev/null || pkg-config --libs mpich 2>/dev/null || mpicc -showme:link 2>/dev/null)
MPI_LIBRARY := $(if $(MPI_LINK),$(shell mkdir -p $(BUILD) && printf '$(hash)include <mpi.h>\nint main(void){return MPI_Init(0, 0);}\n' | \
	$(CC) $(CPPFLAGS) $(MPI_FLAGS) -x c - -x none $(MPI_LINK) -o $(BUILD)/mpi-probe 2>/dev/null && \
	readelf -d $(BUILD)/mpi-probe | sed -n 's/.*NEEDED.*\[\(libmpi[^]]*\)\].*/\1/p' | head -n 1; rm -f $(BUILD)/mpi-probe))
MPI ?= $(if $(MPI_LIBRARY),1,0)
endif
CUDA_HOME ?= /usr/local/cuda
CUDNN ?= $(call have,cudnn_graph.h,-I$(CUDA_HOME)/include -L$(CUDA_HOME)/lib64 -lcudnn)
endif
URING ?= 0
DNNL  ?= 0
MPI   ?= 0
CUDNN ?= 0

# --- flags ------------------------------------------------------------------------------------------------------------------

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes $(if $(WERROR),-Werror)
HARDENING := -fstack-protector-strong -fPIE $(if $(SANITIZE),,-D_FORTIFY_SOURCE=2)
# -ffp-contract=off: a fused multiply-add would change the pixels, and golden data and resume rely on the same bits everywhere.
CFLAGS   ?= -O2 -g
ALL_CFLAGS = -std=gnu17 $(CFLAGS) -ffp-contract=off -pthread -fopenmp $(WARNINGS) $(HARDENING) $(SANITIZE)
ALL_CPPFLAGS = -I. -D_GNU_SOURCE $(CPPFLAGS) -DHAVE_URING=$(URING) -DHAVE_DNNL=$(DNNL) -DHAVE_MPI=$(MPI)
ALL_LDFLAGS = -pie -Wl,-z,relro,-z,now -pthread -fopenmp $(SANITIZE) $(LDFLAGS)
LIBS = -ljpeg -lpng -lzstd -llmdb -larchive -lyaml -ljansson -lm \
       $(if $(filter 1,$(URING)),-luring) $(if $(filter 1,$(DNNL)),-ldnnl)

# --- sources ----------------------------------------------------------------------------------------------------------------

LAYERS := formats augment pipeline trainer
LIB_SOURCES := $(filter-out trainer/cuda/%,$(wildcard formats/*.c formats/*/*.c augment/*.c pipeline/*.c trainer/*/*.c))
ifeq ($(URING),0)
LIB_SOURCES := $(filter-out pipeline/reader_uring.c,$(LIB_SOURCES))
endif
ifeq ($(DNNL),0)
LIB_SOURCES := $(filter-out trainer/device/cpu%.c,$(LIB_SOURCES))
endif
ifeq ($(MPI),0)
LIB_SOURCES := $(filter-out trainer/comm/comm_mpi.c,$(LIB_SOURCES))
endif
TOOL_SOURCES := $(wildcard tools/*.c)
SUPPORT_SOURCES := $(wildcard tests/support/*.c)
SUITES := $(wildcard tests/formats/*.c tests/augment/*.c tests/pipeline/*.c tests/trainer/*.c tests/tools/*.c tests/fuzz/*.c)
# What plans convolutions needs cuDNN alone, no GPU and no driver.
PLAN_SOURCES := trainer/cuda/cudnn_graph.c trainer/cuda/conv_candidates.c trainer/cuda/plan_cache.c
ifeq ($(CUDNN),1)
SUITES += $(wildcard tests/cuda_plans/*.c)
endif
FUZZ_TARGETS := $(wildcard tests/fuzz/*.c)
GOLDEN_SUITES := $(wildcard tests/golden/*.c)
SIMD_SOURCES := $(wildcard tests/simd/*.c)
CHECK_SIMD = $(BUILD)/tests/simd/check_simd
BENCHES := $(wildcard tests/bench/*.c)

# Kernels in *_simd.c are compiled once for each level of vector instructions of this architecture (formats/isa.h).
ISAS := base $(if $(findstring x86_64,$(shell $(CC) -dumpmachine)),v3 v4)
ISA_FLAGS_base := $(if $(findstring x86_64,$(shell $(CC) -dumpmachine)),-march=x86-64-v2)
ISA_FLAGS_v3 := -march=x86-64-v3
ISA_FLAGS_v4 := -march=x86-64-v4

objects = $(foreach s,$(1),$(if $(filter-out tests/%,$(filter %_simd.c,$(s))),$(foreach i,$(ISAS),$(BUILD)/obj/$(s:.c=.$(i).o)),$(BUILD)/obj/$(s:.c=.o)))
programs = $(patsubst %.c,$(BUILD)/%,$(1))

.PHONY: all help deps demo test test-golden check-simd asan tsan bench-loader bench-loader-cifar bench-step peer-gate \
	bench-peers layers check-precision
	headers lint format install clean parts tests benches fuzz fuzz-clang
.DELETE_ON_ERROR:
.SECONDARY:

all: parts $(BUILD)/byol $(BUILD)/libbyol.a  ## release build of build/byol and build/libbyol.a

parts:
	@echo "io_uring (liburing)  $(if $(filter 1,$(URING)),yes,no: reads fall back to pread)"
	@echo "oneDNN (libdnnl)     $(if $(filter 1,$(DNNL)),yes,no: no device 'cpu'; training needs it)"
	@echo "MPI (libopenmpi)     $(if $(filter 1,$(MPI)),yes,no: one process only)"
	@echo "cuDNN (plans only)   $(if $(filter 1,$(CUDNN)),yes,skipped: plans for GPUs are not tested)"

$(BUILD)/libbyol.a: $(call objects,$(LIB_SOURCES))
	@rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/byol: $(call objects,$(TOOL_SOURCES)) $(BUILD)/libbyol.a
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/obj/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# Square roots that need not set errno can be vectors; their values are the same.
$(BUILD)/obj/trainer/device/cpu_optim.o: private ALL_CFLAGS += -fno-math-errno
$(BUILD)/obj/trainer/comm/comm_mpi.o: private ALL_CPPFLAGS += $(patsubst -I%,-isystem %,$(MPI_FLAGS)) -DMPI_LIBRARY='"$(MPI_LIBRARY)"'

# The trailing -ffp-contract=off of ALL_CFLAGS holds here too: a level with fused multiply-add must not use it.
define isa_rule
$(BUILD)/obj/%.$(1).o: %.c $(BUILD)/flags
	@mkdir -p $$(@D)
	$$(CC) $$(ALL_CPPFLAGS) $$(ALL_CFLAGS) -O3 $$(ISA_FLAGS_$(1)) -DISA_SUFFIX=_$(1) -MMD -MP -c -o $$@ $$<
endef
$(foreach isa,$(ISAS),$(eval $(call isa_rule,$(isa))))

# Recompile when flags or optional parts change.
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS)' | cmp -s - $@ || echo '$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS)' > $@
FORCE:

$(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(call objects,$(SUPPORT_SOURCES)) $(BUILD)/libbyol.a
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(BUILD)/libbyol.a -lcmocka $(LIBS)

$(BUILD)/obj/trainer/cuda/%.o $(BUILD)/obj/tests/cuda_plans/%.o: private ALL_CPPFLAGS += -isystem $(CUDA_HOME)/include
$(BUILD)/tests/cuda_plans/%: $(BUILD)/obj/tests/cuda_plans/%.o $(call objects,$(PLAN_SOURCES)) $(BUILD)/libbyol.a
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(BUILD)/libbyol.a -lcmocka $(LIBS) \
		-L$(CUDA_HOME)/lib64 -lcudnn -Wl,-rpath,$(CUDA_HOME)/lib64

# One program of all families of kernels.
$(CHECK_SIMD): $(call objects,$(SIMD_SOURCES) $(SUPPORT_SOURCES)) $(BUILD)/libbyol.a
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(BUILD)/libbyol.a -lcmocka $(LIBS)

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 22

# --- what a person runs -----------------------------------------------------------------------------------------------------

deps:  ## install the system packages (sudo when not root; elsewhere print the list)
	@sh tools/deps.sh

demo:  ## install, build, and run the main job on the offline example
	@start=$$(date +%s) && sh tools/deps.sh --missing --needed && \
		$(MAKE) --no-print-directory -j2 BUILD=$(BUILD) all && sh tools/demo.sh $(BUILD) $$start

install: all  ## into PREFIX (/usr/local)
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib $(DESTDIR)$(PREFIX)/share/byol/recipes
	install -m 755 $(BUILD)/byol $(DESTDIR)$(PREFIX)/bin/byol
	install -m 644 $(BUILD)/libbyol.a $(DESTDIR)$(PREFIX)/lib/libbyol.a
	install -m 644 $(wildcard tools/recipes/*.yaml) $(DESTDIR)$(PREFIX)/share/byol/recipes
	for h in $(wildcard formats/*.h formats/*/*.h augment/*.h pipeline/*.h trainer/*/*.h); do \
		install -D -m 644 $$h $(DESTDIR)$(PREFIX)/include/byol/$$h; done

# --- tests ------------------------------------------------------------------------------------------------------------------

tests: $(call programs,$(SUITES) $(GOLDEN_SUITES)) $(CHECK_SIMD) $(BUILD)/byol

test:  ## install what is missing, build, check layers and headers, run every suite
	@sh tools/deps.sh --missing
	@$(MAKE) --no-print-directory BUILD=$(BUILD) run-tests

.PHONY: run-tests
run-tests: layers headers all tests
	@sh tests/run.sh $(BUILD) $(call programs,$(SUITES) $(GOLDEN_SUITES)) $(CHECK_SIMD)

check-simd: $(CHECK_SIMD)  ## vector kernels against plain C, with thousands of random cases, and their times
	@$(CHECK_SIMD) --rounds 5000 --time

test-golden: all $(call programs,$(GOLDEN_SUITES))  ## the golden suites alone; BYOL_GOLDEN=DIR chooses the data
	@sh tests/run.sh $(BUILD) $(call programs,$(GOLDEN_SUITES))

asan:  ## the suite under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) --no-print-directory BUILD=$(BUILD)-asan CFLAGS='-O2 -g' \
		SANITIZE='-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer' all tests
	@sh tests/run.sh $(BUILD)-asan $(patsubst %.c,$(BUILD)-asan/%,$(SUITES) $(GOLDEN_SUITES)) $(BUILD)-asan/tests/simd/check_simd

FUZZ_ROUNDS ?= 200000
FUZZ_SEED ?= 1
FUZZ_PROGRAMS = $(call programs,$(FUZZ_TARGETS))
fuzz:  ## mutants of every format under ASan and UBSan: FUZZ_ROUNDS (200000) of each past the header
	@$(MAKE) --no-print-directory BUILD=$(BUILD)-asan CFLAGS='-O2 -g' \
		SANITIZE='-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer' fuzz-programs
	@code=0; for target in $(FUZZ_PROGRAMS:$(BUILD)/%=$(BUILD)-asan/%); do \
		ASAN_OPTIONS=max_allocation_size_mb=1024:allocator_may_return_null=1:quarantine_size_mb=16 \
		FUZZ_ROUNDS=$(FUZZ_ROUNDS) FUZZ_SEED=$(FUZZ_SEED) FUZZ_FINDINGS=$(BUILD)-asan nice -n 19 $$target || code=1; \
	done; exit $$code

.PHONY: fuzz-programs
fuzz-programs: $(FUZZ_PROGRAMS)

# Without oneDNN: clang 14 cannot link two static functions of one name that have target_clones.
fuzz-clang:  ## the same targets as libFuzzer programs, in build-clang/tests/fuzz (clang)
	@$(MAKE) --no-print-directory BUILD=$(BUILD)-clang CC=clang DNNL=0 CFLAGS='-O2 -g' CPPFLAGS=-DFUZZ_LIBFUZZER \
		SANITIZE='-fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=undefined -fopenmp=libgomp' \
		LDFLAGS=-fsanitize=fuzzer fuzz-programs

# OpenMP's runtime is not instrumented, so its barriers would be reported as races: one OpenMP thread there. Our own threads stay.
# The golden suites start none and would take very long.
tsan:  ## the suite under ThreadSanitizer
	@$(MAKE) --no-print-directory BUILD=$(BUILD)-tsan CFLAGS='-O2 -g' SANITIZE='-fsanitize=thread' GOLDEN_SUITES= all tests
	@OMP_THREAD_LIMIT=1 sh tests/run.sh $(BUILD)-tsan $(patsubst %.c,$(BUILD)-tsan/%,$(SUITES))

# --- measured beside others -------------------------------------------------------------------------------------------------

# DATA: a tar or folder of JPEGs. VENVS: the peers' environments. ONLY: regular expression of rows. ROUNDS, WINDOW (seconds),
# CORES ("1 2"), MARKDOWN=1, SVG=file. BYOL_REFERENCE: a copy of the original implementation's folder. Results stay in $(BUILD)/bench.
VENVS ?= $(BUILD)-venvs
BENCH_FLAGS = $(if $(ONLY),--only '$(ONLY)') $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(WINDOW),--window $(WINDOW)) \
	$(if $(CORES),--cores '$(CORES)') $(if $(MARKDOWN),--markdown) $(if $(SVG),--svg '$(SVG)') \
	$(if $(BYOL_REFERENCE),--reference '$(BYOL_REFERENCE)')
bench = @command -v python3 >/dev/null || { echo "bench: python3 is not installed" >&2; exit 1; }; \
	python3 tests/bench/run.py --byol $(BUILD)/byol --work $(BUILD)/bench --venvs '$(VENVS)' --recipe $(1) --data '$(2)' $(BENCH_FLAGS)

bench-loader: all  ## our loader and the installed peers on the same images, as a table (tests/README.md)
	$(call bench,byol,$(or $(DATA),../shared/data/imagenet-sample.tar))

bench-loader-cifar: all  ## the same with records of 32 px
	$(call bench,small,$(or $(DATA),../shared/data/cifar10-test.tar.zst))

# VENVS, ONLY (regular expression of 'configuration: row'), ROUNDS, SECONDS (of a run), MARKDOWN=1, COMPILE=1 (torch.compile too), JSON=file.
STEP_FLAGS = $(if $(ONLY),--only '$(ONLY)') $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS)) \
	$(if $(COMPILE),--compile) $(if $(MARKDOWN),--markdown) --json '$(or $(JSON),$(BUILD)/bench/step.json)'
bench-step: all  ## our training step and PyTorch's, in turn, as a table (tests/README.md)
	@mkdir -p $(BUILD)/bench
	@python3 tests/bench/step.py --byol $(BUILD)/byol --python '$(VENVS)/main/bin/python' $(STEP_FLAGS)

# DATA: folder with cifar10-train.tar.zst and cifar10-test.tar.zst. GATE: options of tests/peer/gate.py, such as '--epochs 20 --seeds "0 1"'.
peer-gate: all  ## ours and PyTorch learn from the same images: curves of kNN and loss (tests/README.md)
	@python3 tests/peer/gate.py --byol $(BUILD)/byol --python '$(VENVS)/main/bin/python' --work $(BUILD)/peer-gate \
		--train '$(or $(DATA),../shared/data)/cifar10-train.tar.zst' --test '$(or $(DATA),../shared/data)/cifar10-test.tar.zst' $(GATE)

bench-peers:  ## install the peers into VENVS: 10 GB, Debian packages as root, the rest from PyPI
	@sh tests/bench/setup.sh '$(VENVS)'

# STEPS, DATA. The datasets, runs and their logs stay in $(BUILD)/precision.
check-precision: all  ## bf16 against f32: loss curves of 200 steps on CIFAR-10, about ten minutes
	@command -v python3 >/dev/null || { echo "check-precision: python3 is not installed" >&2; exit 1; }
	@python3 tests/bench/precision.py --byol $(BUILD)/byol --work $(BUILD)/precision \
		$(if $(DATA),--data '$(DATA)') $(if $(STEPS),--steps $(STEPS))

benches: $(call programs,$(BENCHES))  ## the programs that time parts of the library: build/tests/bench/*

# --- the shape of the code --------------------------------------------------------------------------------------------------

layers:  ## prove that includes only point left: formats < augment < pipeline < trainer < tools
	@sh tests/layers.sh

HEADERS := $(wildcard formats/*.h formats/*/*.h augment/*.h pipeline/*.h trainer/*/*.h tools/*.h tests/support/*.h tests/simd/*.h)
headers:  ## compile each header alone
	@for h in $(HEADERS); do \
		$(CC) -I. -D_GNU_SOURCE -std=gnu17 $(WARNINGS) -fsyntax-only -x c -include $$h /dev/null || exit 1; done
	@echo "headers: $(words $(HEADERS)) compile alone"

C_FILES = $(wildcard formats/*.[ch] formats/*/*.[ch] augment/*.[ch] pipeline/*.[ch] trainer/*/*.[ch] tools/*.[ch] tests/*/*.[ch])
lint:  ## cppcheck, clang-tidy and the length of functions
	@sh tests/lint.sh $(C_FILES)

format:  ## clang-format everything
	@clang-format -i $(C_FILES)

clean:  ## remove the build directories
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan $(BUILD)-clang
