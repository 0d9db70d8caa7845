# byol: `make demo` installs what is missing, builds and runs the main job on the offline example; `make test` runs every suite.
# Every target is listed by `make help`. Options: BUILD=dir, CC=…, CXX=…, WERROR=1, URING=0, DNNL=0, MPI=0 and CUDA=0 (build
# without that part), CUDA_HOME=dir, SM=90 (one kind of GPU only: quick).

BUILD  ?= build
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
CC     ?= cc
CXX    ?= c++
SANITIZE ?=
WERROR ?= $(if $(CI),1)

# --- optional parts: found by asking the compiler, each can be switched off -------------------------------------------------

hash := \#
, := ,
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
# Only the program that reads HDF5 files is linked with libhdf5.
HDF5_FLAGS := $(shell pkg-config --cflags hdf5-serial 2>/dev/null || pkg-config --cflags hdf5 2>/dev/null)
HDF5_LIBS := $(or $(shell pkg-config --libs hdf5-serial 2>/dev/null || pkg-config --libs hdf5 2>/dev/null),-lhdf5)
HDF5 ?= $(call have,hdf5.h,$(HDF5_FLAGS) $(HDF5_LIBS))
# What of NVIDIA's is here: nvcc makes the plugin libbyol_cuda.so, which needs cuDNN and cuBLASLt too (and no sanitizer); cuDNN
# alone is enough to test the plans of convolutions.
NVCC ?= $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA_HOME ?= $(if $(NVCC),$(patsubst %/bin/,%,$(dir $(NVCC))),/usr/local/cuda)
CUDA_LINK := -L$(CUDA_HOME)/lib64 -L$(CUDA_HOME)/lib
CUDNN ?= $(call have,cudnn_graph.h,-isystem $(CUDA_HOME)/include $(CUDA_LINK) -lcudnn)
CUDA ?= $(if $(and $(NVCC),$(filter 1,$(CUDNN)),$(if $(SANITIZE),,1)),$(call have,cublasLt.h,-isystem $(CUDA_HOME)/include $(CUDA_LINK) -lcublasLt),0)
# The same plugin with its kernels run on the processor, for the tests.
EMULATED ?= $(if $(filter x86_64% aarch64%,$(shell $(CC) -dumpmachine)),$(shell printf '$(hash)include <tuple>\nint main(){}\n' | \
	$(CXX) -std=gnu++17 -x c++ - -o /dev/null 2>/dev/null && echo 1 || echo 0),0)
endif
URING ?= 0
DNNL  ?= 0
MPI   ?= 0
HDF5  ?= 0
CUDA  ?= 0
CUDNN ?= 0
EMULATED ?= 0
$(foreach part,URING DNNL MPI HDF5 CUDNN CUDA EMULATED,$(eval $(part) := $($(part)))) # ask once

# --- flags ------------------------------------------------------------------------------------------------------------------

WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes $(if $(WERROR),-Werror)
HARDENING := -fstack-protector-strong -fPIE $(if $(SANITIZE),,-D_FORTIFY_SOURCE=2)
# -ffp-contract=off: a fused multiply-add would change the pixels, and golden data and resume rely on the same bits everywhere.
CFLAGS   ?= -O2 -g
ALL_CFLAGS = -std=gnu17 $(CFLAGS) -ffp-contract=off -pthread -fopenmp $(WARNINGS) $(HARDENING) $(SANITIZE)
ALL_CPPFLAGS = -I. -D_GNU_SOURCE $(CPPFLAGS) -DHAVE_URING=$(URING) -DHAVE_DNNL=$(DNNL) -DHAVE_MPI=$(MPI)
ALL_LDFLAGS = -pie -Wl,-z,relro,-z,now -pthread -fopenmp $(SANITIZE) $(LDFLAGS)
LIBS = -ljpeg -lpng -lz -lzstd -llmdb -larchive -lyaml -ljansson -lm \
       $(if $(filter 1,$(URING)),-luring) $(if $(filter 1,$(DNNL)),-ldnnl)

# --- sources ----------------------------------------------------------------------------------------------------------------

LAYERS := formats augment pipeline trainer
LIB_SOURCES := $(filter-out trainer/cuda/%,$(wildcard formats/*.c formats/*/*.c augment/*.c pipeline/*.c pipeline/*/*.c trainer/*/*.c))
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
PLAN_SOURCES := trainer/cuda/cudnn_descriptor.c trainer/cuda/cudnn_graph.c trainer/cuda/conv_candidates.c trainer/cuda/plan_cache.c
ifeq ($(CUDNN),1)
SUITES += $(wildcard tests/cuda_plans/*.c)
endif
FUZZ_TARGETS := $(wildcard tests/fuzz/*.c)
GOLDEN_SUITES := $(wildcard tests/golden/*.c)
EMULATION_SUITES := $(if $(filter 1,$(EMULATED)),$(wildcard tests/cuda/*.c))
ALL_SUITES = $(SUITES) $(GOLDEN_SUITES) $(EMULATION_SUITES)
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

.PHONY: all help deps demo test test-golden check-simd asan tsan bench-loader bench-loader-cifar bench-step bench-python peer-gate \
	bench-peers bench-scale layers check-stores check-precision check-export cuda-check gpu-bundle \
	headers lint format install clean parts tests benches fuzz fuzz-clang
.DELETE_ON_ERROR:
.SECONDARY:

STREAMS = $(BUILD)/parquet_stream.py $(if $(filter 1,$(HDF5)),$(BUILD)/byol-hdf5-stream)

all: parts $(BUILD)/byol $(BUILD)/libbyol.a $(BUILD)/$(SONAME) $(STREAMS) $(if $(filter 1,$(CUDA)),$(BUILD)/libbyol_cuda.so)  ## release build of build/byol, build/libbyol.a and build/libbyol.so.0

parts:
	@echo "io_uring (liburing)  $(if $(filter 1,$(URING)),yes,no: reads fall back to pread)"
	@echo "oneDNN (libdnnl)     $(if $(filter 1,$(DNNL)),yes,no: no device 'cpu'; training needs it)"
	@echo "MPI (libopenmpi)     $(if $(filter 1,$(MPI)),yes,no: one process only)"
	@echo "HDF5 (libhdf5)       $(if $(filter 1,$(HDF5)),yes,no: convert reads no HDF5 files)"
	@echo "CUDA (nvcc, cuBLAS)  $(if $(filter 1,$(CUDA)),yes,no: no plugin for device 'cuda')"
	@echo "cuDNN (libcudnn)     $(if $(filter 1,$(CUDNN)),yes,no: plans for GPUs are not tested)"
	@echo "NCCL (libnccl.so.2)  $(if $(wildcard $(CUDA_HOME)/include/nccl.h),yes,not here: looked for when several GPUs train together)"
	@echo "emulated GPU (c++)   $(if $(filter 1,$(EMULATED)),yes,no: kernels are not tested without a GPU)"

$(BUILD)/libbyol.a: $(call objects,$(LIB_SOURCES))
	@rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/byol: $(call objects,$(TOOL_SOURCES)) $(BUILD)/libbyol.a
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

# Programs that convert runs for what the library does not read itself (formats/source_stream.h).
$(BUILD)/byol-hdf5-stream: tools/streams/hdf5_stream.c $(BUILD)/flags
	$(CC) -D_GNU_SOURCE -std=gnu17 $(CFLAGS) $(WARNINGS) $(HARDENING) $(SANITIZE) $(patsubst -I%,-isystem %,$(HDF5_FLAGS)) \
		-pie $(LDFLAGS) -o $@ $< $(HDF5_LIBS)

$(BUILD)/parquet_stream.py: tools/streams/parquet_stream.py
	@mkdir -p $(@D)
	install -m 644 $< $@

# The public interface (pipeline/api/byol.h) as a shared library, with what it needs of the others, which nobody else sees.
API_SOURCES := $(wildcard pipeline/api/*.c)
api_number = $(shell sed -n 's/^\#define $(1)  *"\{0,1\}\([0-9.]*\).*/\1/p' pipeline/api/byol.h)
SONAME := libbyol.so.$(call api_number,BYOL_ABI)
$(BUILD)/libbyol_core.a: $(call objects,$(filter formats/% augment/% pipeline/%,$(LIB_SOURCES)))
	@rm -f $@ && $(AR) rcsT $@ $^

$(BUILD)/$(SONAME): $(call objects,$(API_SOURCES)) $(BUILD)/libbyol_core.a pipeline/api/byol.map
	$(CC) -shared -Wl,-soname,$(SONAME),--version-script=pipeline/api/byol.map,--as-needed,--no-undefined,-z,relro,-z,now -pthread \
		$(SANITIZE) $(LDFLAGS) -o $@ $(filter %.o %.a,$^) $(filter-out -ldnnl,$(LIBS))
	@ln -sf $(SONAME) $(BUILD)/libbyol.so

# Of the layers that it may need. The program, whose objects they are too, is no slower for it.
SHARED_CFLAGS := -fPIC -fvisibility=hidden
$(foreach layer,formats augment pipeline,$(eval $(BUILD)/obj/$(layer)/%.o: private ALL_CFLAGS += $(SHARED_CFLAGS)))

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
remember = @mkdir -p $(@D); echo '$(1)' | cmp -s - $@ || echo '$(1)' > $@
$(BUILD)/flags: FORCE
	$(call remember,$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(SHARED_CFLAGS))
FORCE:

# --- the device `cuda`: a plugin, and the same one with its kernels on the processor ------------------------------------------

CUDA_KERNELS := $(wildcard trainer/cuda/*.cu)
# What stands on NVIDIA's libraries; the emulation has tests/cuda/library.cpp instead.
CUDA_LIBRARY_SOURCES := $(wildcard $(addprefix trainer/cuda/,library.c products.c cudnn_*.c conv_*.c plan_cache.c))
CUDA_SOURCES := $(filter-out $(CUDA_LIBRARY_SOURCES),$(wildcard trainer/cuda/*.c))
# What the plugins call of the library; each has copies of its own.
CUDA_CORE := formats/status.c formats/file.c formats/crc32c.c trainer/device/op.c
EMULATOR_SOURCES := $(wildcard tests/cuda/*.cpp)

PLUGIN_CFLAGS = $(ALL_CFLAGS) -fPIC -fvisibility=hidden
PLUGIN_LDFLAGS = -shared -Wl,-z,relro,-z,now,-z,start-stop-visibility=hidden,--no-undefined,--exclude-libs,ALL -pthread $(SANITIZE) $(LDFLAGS)

SM ?= 80 90 100
NVCC_FLAGS = -O3 -std=c++17 -I. -D_GNU_SOURCE $(foreach s,$(SM),-gencode arch=compute_$(s),code=sm_$(s)) \
	$(if $(word 2,$(SM)),-gencode arch=compute_$(lastword $(SM))$(,)code=compute_$(lastword $(SM))) \
	-Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wno-unknown-pragmas,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics \
	$(if $(WERROR),-Werror all-warnings) -Xptxas -v

$(BUILD)/cuda/flags: FORCE
	$(call remember,$(NVCC) $(NVCC_FLAGS) $(CC) $(ALL_CPPFLAGS) $(PLUGIN_CFLAGS) $(CUDA_HOME))

# What ptxas says of registers and stacks is kept for cuda-check.
$(BUILD)/cuda/%.cu.o: %.cu $(BUILD)/cuda/flags
	@mkdir -p $(@D)
	$(NVCC) $(NVCC_FLAGS) -MMD -MP -MF $(@:.o=.d) -c -o $@ $< 2>$(@:.o=.ptxas) || { grep -v '^ptxas info\|bytes stack frame' $(@:.o=.ptxas) >&2; exit 1; }
	@grep -i -A 3 warning $(@:.o=.ptxas) >&2 || true

$(BUILD)/cuda/%.o: %.c $(BUILD)/cuda/flags
	@mkdir -p $(@D)
	$(CC) $(ALL_CPPFLAGS) -isystem $(CUDA_HOME)/include $(PLUGIN_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/libbyol_cuda.so: $(CUDA_KERNELS:%=$(BUILD)/cuda/%.o) $(patsubst %.c,$(BUILD)/cuda/%.o,$(CUDA_SOURCES) $(CUDA_LIBRARY_SOURCES) $(CUDA_CORE))
	$(CC) $(PLUGIN_LDFLAGS) -Wl,-rpath,$(CUDA_HOME)/lib64 -o $@ $^ $(CUDA_LINK) -lcudnn -lcublasLt -lcudart_static -lm -ldl -lrt

cuda-check: $(CUDA_KERNELS:%=$(BUILD)/cuda/%.o)  ## no kernel spills registers or needs a stack (ptxas), on any kind of GPU
	@sh tests/cuda/ptxas.sh $(CUDA_KERNELS:%=$(BUILD)/cuda/%.ptxas)

# Shared arrays have a section of their own, which AddressSanitizer is told to watch too.
EMULATED_CXXFLAGS = -std=gnu++17 $(CFLAGS) -ffp-contract=off -pthread -fPIC -fvisibility=hidden -Wall -Wextra $(if $(WERROR),-Werror) \
	$(SANITIZE) $(if $(findstring address,$(SANITIZE)),-fsanitize-sections=emulated_shared)
EMULATED_CPPFLAGS = -Itests/cuda/include $(ALL_CPPFLAGS)

$(BUILD)/emulated/flags: FORCE
	$(call remember,$(CXX) $(EMULATED_CPPFLAGS) $(EMULATED_CXXFLAGS) $(CC) $(PLUGIN_CFLAGS))

$(BUILD)/emulated/%.cu.o: %.cu $(BUILD)/emulated/flags
	@mkdir -p $(@D)
	$(CXX) $(EMULATED_CPPFLAGS) $(EMULATED_CXXFLAGS) -MMD -MP -x c++ -c -o $@ $<

$(BUILD)/emulated/%.o: %.cpp $(BUILD)/emulated/flags
	@mkdir -p $(@D)
	$(CXX) $(EMULATED_CPPFLAGS) $(EMULATED_CXXFLAGS) -O3 -MMD -MP -c -o $@ $<

$(BUILD)/emulated/%.o: %.c $(BUILD)/emulated/flags
	@mkdir -p $(@D)
	$(CC) $(EMULATED_CPPFLAGS) $(PLUGIN_CFLAGS) -MMD -MP -c -o $@ $<

EMULATOR := $(patsubst %.cpp,$(BUILD)/emulated/%.o,$(EMULATOR_SOURCES))
$(BUILD)/libbyol_cuda_emulated.so: $(CUDA_KERNELS:%=$(BUILD)/emulated/%.o) $(patsubst %.c,$(BUILD)/emulated/%.o,$(CUDA_SOURCES) $(CUDA_CORE)) $(EMULATOR)
	$(CXX) $(PLUGIN_LDFLAGS) -o $@ $^ -lm -ldl

$(BUILD)/tests/cuda/%: $(BUILD)/emulated/tests/cuda/%.o $(BUILD)/emulated/tests/cuda/probes.cu.o $(EMULATOR)
	@mkdir -p $(@D)
	$(CXX) -pthread $(SANITIZE) $(LDFLAGS) -o $@ $(filter-out %/library.o,$(filter %.o,$^)) -lcmocka

$(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(call objects,$(SUPPORT_SOURCES)) $(BUILD)/libbyol.a
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(BUILD)/libbyol.a -lcmocka $(LIBS)

# Its HDF5 files are written by libhdf5.
$(BUILD)/obj/tests/formats/test_source_stream.o: private ALL_CPPFLAGS += -DHAVE_HDF5=$(HDF5) $(patsubst -I%,-isystem %,$(HDF5_FLAGS))
$(BUILD)/tests/formats/test_source_stream: private LIBS += $(if $(filter 1,$(HDF5)),$(HDF5_LIBS))
$(BUILD)/tests/formats/test_source_stream: $(STREAMS)

# Through the shared library, of which it sees what any program sees; what it compares with is of the other.
$(BUILD)/tests/pipeline/test_api: $(BUILD)/obj/tests/pipeline/test_api.o $(call objects,$(SUPPORT_SOURCES)) $(BUILD)/$(SONAME) $(BUILD)/libbyol.a
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(BUILD)/$(SONAME) $(BUILD)/libbyol.a -Wl,-rpath,'$$ORIGIN/../..' -lcmocka $(LIBS)

$(BUILD)/obj/trainer/cuda/%.o $(BUILD)/obj/tests/cuda_plans/%.o: private ALL_CPPFLAGS += -isystem $(CUDA_HOME)/include
# Named here, or make takes the rule of all suites while one of the objects is still to be made.
$(patsubst %.c,$(BUILD)/%,$(wildcard tests/cuda_plans/*.c)): $(call objects,$(PLAN_SOURCES))
$(BUILD)/tests/cuda_plans/%: $(BUILD)/obj/tests/cuda_plans/%.o $(call objects,$(PLAN_SOURCES)) $(BUILD)/libbyol.a
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(BUILD)/libbyol.a -lcmocka $(LIBS) \
		$(CUDA_LINK) -lcudnn -Wl,-rpath,$(CUDA_HOME)/lib64

# One program of all families of kernels.
$(CHECK_SIMD): $(call objects,$(SIMD_SOURCES) $(SUPPORT_SOURCES)) $(BUILD)/libbyol.a
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(BUILD)/libbyol.a -lcmocka $(LIBS)

-include $(shell find $(BUILD)/obj $(BUILD)/cuda $(BUILD)/emulated -name '*.d' 2>/dev/null)

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 28

# --- what a person runs -----------------------------------------------------------------------------------------------------

deps:  ## install the system packages (sudo when not root; elsewhere print the list)
	@sh tools/deps.sh

demo:  ## install, build, and run the main job on the offline example
	@start=$$(date +%s) && sh tools/deps.sh --missing --needed && \
		$(MAKE) --no-print-directory -j2 BUILD=$(BUILD) all && sh tools/demo.sh $(BUILD) $$start

INSTALLED_HEADERS := $(filter-out trainer/cuda/%,$(wildcard formats/*.h formats/*/*.h augment/*.h pipeline/*.h trainer/*/*.h))
TO := $(DESTDIR)$(PREFIX)
TO_LIB := $(DESTDIR)$(LIBDIR)
install: all  ## into PREFIX (/usr/local), libraries into LIBDIR (PREFIX/lib), below DESTDIR
	install -d $(addprefix $(TO)/,bin libexec/byol share/byol/recipes share/byol/ablations share/doc/byol \
		share/man/man1 share/bash-completion/completions share/zsh/site-functions) $(TO_LIB)
	install -m 755 $(BUILD)/byol $(TO)/bin/byol
	install -m 644 $(BUILD)/libbyol.a $(TO_LIB)/libbyol.a
	install -m 644 $(BUILD)/parquet_stream.py $(TO)/libexec/byol/parquet_stream.py
	$(if $(filter 1,$(HDF5)),install -m 755 $(BUILD)/byol-hdf5-stream $(TO)/libexec/byol/byol-hdf5-stream)
	$(if $(filter 1,$(CUDA)),install -D -m 755 $(BUILD)/libbyol_cuda.so $(TO)/lib/byol/libbyol_cuda.so)
	install -m 644 $(wildcard tools/recipes/*.yaml) $(TO)/share/byol/recipes
	install -m 644 $(wildcard tools/ablations/*.yaml) $(TO)/share/byol/ablations
	install -m 644 tools/byol_resnet.py $(TO)/share/byol/byol_resnet.py
	install -m 644 LICENSE README.md $(TO)/share/doc/byol
	$(BUILD)/byol manual -o $(TO)/share/man/man1
	chmod 644 $(TO)/share/man/man1/byol*.1
	$(BUILD)/byol completion bash | install -m 644 /dev/stdin $(TO)/share/bash-completion/completions/byol
	$(BUILD)/byol completion zsh | install -m 644 /dev/stdin $(TO)/share/zsh/site-functions/_byol
	for h in $(INSTALLED_HEADERS); do install -D -m 644 $$h $(TO)/include/byol/$$h; done
	$(INSTALL_API)

# The loader finds a new library in its cache only; where packages are made (DESTDIR) the package manager sees to that.
define INSTALL_API
install -d $(TO_LIB)/pkgconfig $(TO)/include
install -m 755 $(BUILD)/$(SONAME) $(TO_LIB)/$(SONAME)
ln -sf $(SONAME) $(TO_LIB)/libbyol.so
install -m 644 pipeline/api/byol.h $(TO)/include/byol.h
sed 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@VERSION@|$(call api_number,BYOL_VERSION)|' pipeline/api/byol.pc.in | \
	install -m 644 /dev/stdin $(TO_LIB)/pkgconfig/byol.pc
$(if $(DESTDIR),,-ldconfig 2>/dev/null || true)
endef

.PHONY: install-api uninstall
install-api: $(BUILD)/$(SONAME)  ## libbyol.so, byol.h and byol.pc alone into PREFIX
	$(INSTALL_API)

uninstall:  ## what install put into PREFIX and LIBDIR
	rm -f $(addprefix $(TO)/,bin/byol lib/byol/libbyol_cuda.so include/byol.h share/man/man1/byol.1 share/man/man1/byol-*.1 \
		share/bash-completion/completions/byol share/zsh/site-functions/_byol)
	rm -f $(addprefix $(TO_LIB)/,libbyol.a $(SONAME) libbyol.so pkgconfig/byol.pc)
	rm -rf $(addprefix $(TO)/,share/byol share/doc/byol include/byol libexec/byol)
	rmdir $(TO)/lib/byol 2>/dev/null || true

# --- tests ------------------------------------------------------------------------------------------------------------------

tests: $(call programs,$(ALL_SUITES)) $(CHECK_SIMD) $(BUILD)/byol $(STREAMS) $(if $(filter 1,$(EMULATED)),$(BUILD)/libbyol_cuda_emulated.so)

test:  ## install what is missing, build, check layers and headers, run every suite
	@sh tools/deps.sh --missing
	@$(MAKE) --no-print-directory BUILD=$(BUILD) run-tests

.PHONY: run-tests
run-tests: layers headers all tests
	@sh tests/run.sh $(BUILD) $(call programs,$(ALL_SUITES)) $(CHECK_SIMD)

check-simd: $(CHECK_SIMD)  ## vector kernels against plain C, with thousands of random cases, and their times
	@$(CHECK_SIMD) --rounds 5000 --time

test-golden: all $(call programs,$(GOLDEN_SUITES)) $(if $(filter 1,$(EMULATED)),$(BUILD)/libbyol_cuda_emulated.so)  ## the golden suites alone; BYOL_GOLDEN=DIR chooses the data
	@sh tests/run.sh $(BUILD) $(call programs,$(GOLDEN_SUITES))

asan:  ## the suite under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) --no-print-directory BUILD=$(BUILD)-asan CFLAGS='-O2 -g' \
		SANITIZE='-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer' all tests
	@sh tests/run.sh $(BUILD)-asan $(patsubst %.c,$(BUILD)-asan/%,$(SUITES) $(GOLDEN_SUITES) $(wildcard tests/cuda/*.c)) $(BUILD)-asan/tests/simd/check_simd

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
	@OMP_THREAD_LIMIT=1 sh tests/run.sh $(BUILD)-tsan $(patsubst %.c,$(BUILD)-tsan/%,$(SUITES) $(wildcard tests/cuda/*.c))

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

# RECORDS, DIR (room for 4 GB).
bench-scale: all $(BUILD)/tests/bench/scale  ## a dataset of ImageNet's number of records: converting, opening, the epoch's order
	@python3 tests/bench/scale.py --byol $(BUILD)/byol --probe $(BUILD)/tests/bench/scale --work '$(or $(DIR),/tmp)' \
		--records $(or $(RECORDS),1281167)

# ONLY: rows whose names hold this. JSON=file. The environment is VENVS/weights: torch, torchvision, timm, safetensors, onnx, onnxruntime.
check-export: all  ## exported weights in torchvision and onnxruntime, their ResNets in ours (tests/README.md)
	@if [ -x '$(VENVS)/weights/bin/python' ]; then '$(VENVS)/weights/bin/python' tests/peer/weights.py --byol $(BUILD)/byol \
		--work $(BUILD)/check-export $(if $(ONLY),--only '$(ONLY)') $(if $(JSON),--json '$(JSON)'); \
	else echo "skipped: no $(VENVS)/weights (tests/README.md says what it holds)"; fi

bench-peers:  ## install the peers into VENVS: 10 GB, Debian packages as root, the rest from PyPI
	@sh tests/bench/setup.sh '$(VENVS)'

# STEPS, DATA. The datasets, runs and their logs stay in $(BUILD)/precision.
check-precision: all  ## bf16 against f32: loss curves of 200 steps on CIFAR-10, about ten minutes
	@command -v python3 >/dev/null || { echo "check-precision: python3 is not installed" >&2; exit 1; }
	@python3 tests/bench/precision.py --byol $(BUILD)/byol --work $(BUILD)/precision \
		$(if $(DATA),--data '$(DATA)') $(if $(STEPS),--steps $(STEPS))

# DATA: folder with the archives of images. GPU_DATA: which come along: imagenet, cifar or both ("imagenet cifar"). GPU_LIMIT: MiB that it may take.
GPU_DATA ?= imagenet
GPU_LIMIT ?= 64
GPU_ARCHIVES := $(if $(findstring imagenet,$(GPU_DATA)),imagenet-sample.tar) $(if $(findstring cifar,$(GPU_DATA)),cifar10-train.tar.zst cifar10-test.tar.zst)
GPU_PROGRAMS := byol $(addprefix tests/trainer/,test_cuda_device test_cuda_step test_device_views test_queue test_device_ops test_device_half \
	test_device_math test_optimisers test_gradients test_network test_method test_recompute) \
	$(addprefix tests/golden/,test_loss test_optimizer test_network test_updates)
# The shared libarchive would bring libxml2 and 33 MB of ICU, for formats that nobody reads.
PART_OF_ARCHIVE := -l:libarchive.a -l:liblzma.so.5 -l:libbz2.so.1.0 -l:libz.so.1
GPU_LIBS = $(eval GPU_LIBS := $(if $(filter 1,$(call have,archive.h,$(PART_OF_ARCHIVE))),$(patsubst -larchive,-l:libarchive.a,$(LIBS)) $(PART_OF_ARCHIVE),$(LIBS)))$(GPU_LIBS)

$(BUILD)/gpu-programs/byol: $(call objects,$(TOOL_SOURCES)) $(BUILD)/libbyol.a
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $^ $(GPU_LIBS)

$(BUILD)/gpu-programs/tests/%: $(BUILD)/obj/tests/%.o $(call objects,$(SUPPORT_SOURCES)) $(BUILD)/libbyol.a
	@mkdir -p $(@D)
	$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) $(BUILD)/libbyol.a -lcmocka $(GPU_LIBS)

gpu-bundle: all $(addprefix $(BUILD)/gpu-programs/,$(GPU_PROGRAMS)) $(call programs,$(wildcard tests/cuda_plans/*.c))  ## build/gpu-bundle: runs and is measured on a bare machine with a GPU (tests/README.md)
	@sh tests/gpu/bundle.sh $(BUILD) $(BUILD)/gpu-programs $(BUILD)/gpu-bundle $(GPU_LIMIT) \
		$(addprefix $(or $(DATA),../shared/data)/,$(GPU_ARCHIVES))

# DATA: a tar of JPEGs, or a folder. ROUNDS, WINDOW (seconds), CORES ("1 2").
bench-python: all  ## our loader in Python beside torchvision's DataLoader (tools/python/README.md); VENVS as for bench-step
	@work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && data='$(or $(DATA),../shared/data/imagenet-sample.tar)' && \
		$(BUILD)/byol convert "$$data" -o "$$work/dataset" --quiet && \
		if [ -d "$$data" ]; then ln -s "$$(realpath "$$data")" "$$work/images"; else mkdir "$$work/images" && tar -xf "$$data" -C "$$work/images"; fi && \
		PYTHONPATH=tools/python BYOL_LIBRARY=$(BUILD)/$(SONAME) '$(VENVS)/main/bin/python' tools/python/bench.py "$$work/images" "$$work/dataset" \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(WINDOW),--seconds $(WINDOW)) $(if $(CORES),--cores '$(CORES)')

# VENVS: folder of Python environments, made by pip where they are missing. ONLY: regular expression of libraries.
check-stores: all  ## conversions against what other libraries really write and read: check-stores VENVS=DIR
	@test -n '$(VENVS)' || { echo "check-stores: VENVS=DIR, a folder for Python environments" >&2; exit 1; }
	@python3 tests/stores/run.py '$(VENVS)' --byol $(BUILD)/byol --install $(if $(ONLY),--only '$(ONLY)')

benches: $(call programs,$(BENCHES))  ## the programs that time parts of the library: build/tests/bench/*

# --- the shape of the code --------------------------------------------------------------------------------------------------

layers:  ## prove that includes only point left: formats < augment < pipeline < trainer < tools
	@sh tests/layers.sh

HEADERS := $(filter-out trainer/cuda/%,$(wildcard formats/*.h formats/*/*.h augment/*.h pipeline/*.h pipeline/*/*.h trainer/*/*.h tools/*.h tests/support/*.h tests/simd/*.h))
# Those of kernels are C++; those on cuDNN need it.
CUDA_CXX_HEADERS := $(shell grep -lE '<cuda_runtime.h>|cuda/launch.h"' trainer/cuda/*.h tests/cuda/*.h tests/cuda/include/*.h)
CUDNN_HEADERS := $(wildcard $(addprefix trainer/cuda/,cudnn_descriptor.h cudnn_graph.h conv_candidates.h library_internal.h plan_cache.h))
CUDA_HEADERS := $(filter-out $(CUDA_CXX_HEADERS) $(CUDNN_HEADERS),$(wildcard trainer/cuda/*.h tests/cuda/probes.h))
headers:  ## compile each header alone
	@for h in $(HEADERS) $(CUDA_HEADERS); do \
		$(CC) -Itests/cuda/include -I. -D_GNU_SOURCE -std=gnu17 $(WARNINGS) -fsyntax-only -x c -include $$h /dev/null || exit 1; done
	@! command -v $(CXX) >/dev/null || for h in $(CUDA_CXX_HEADERS); do \
		$(CXX) -Itests/cuda/include -I. -std=gnu++17 -Wall -Wextra -Werror -fsyntax-only -x c++ -include $$h /dev/null || exit 1; done
	@echo "headers: $(words $(HEADERS) $(CUDA_HEADERS) $(CUDA_CXX_HEADERS)) compile alone"

C_FILES = $(wildcard formats/*.[ch] formats/*/*.[ch] augment/*.[ch] pipeline/*.[ch] pipeline/*/*.[ch] trainer/*/*.[ch] tools/*.[ch] tests/*/*.[ch])
CUDA_FILES = $(wildcard trainer/cuda/*.cu tests/cuda/*.cu tests/cuda/*.cpp tests/cuda/include/*.h)
# C++, and what needs NVIDIA's headers.
UNREADABLE = $(CUDA_CXX_HEADERS) $(CUDNN_HEADERS) $(CUDA_LIBRARY_SOURCES) tests/cuda_plans/% tests/cuda/%.h
lint:  ## cppcheck, clang-tidy and the length of functions
	@sh tests/lint.sh $(filter-out $(UNREADABLE),$(C_FILES)) -- $(filter $(UNREADABLE),$(C_FILES)) $(CUDA_FILES)

format:  ## clang-format everything
	@clang-format -i $(C_FILES) $(CUDA_FILES)

clean:  ## remove the build directories
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan $(BUILD)-clang
