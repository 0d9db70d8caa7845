// The Python package: test_python.py with a Python that has NumPy, and the package as pip installs
// it.
#include "tests/support/sample_dataset.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

static struct sample_dataset sample;

static int setup(void **state)
{
    (void)state;
    sample_dataset_make(&sample, 41, 11);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    sample_dataset_remove(&sample);
    return 0;
}

// BYOL_TEST_PYTHON, python3, or the one in the build's folder that test_safetensors makes.
#define SHELL                                                                                      \
    "program=${BYOL_PROGRAM:-build/byol}; build=$(cd \"$(dirname \"$program\")\" && pwd); "        \
    "for python in \"${BYOL_TEST_PYTHON:-python3}\" python3 \"$build/python/bin/python\"; do "     \
    "\"$python\" -c 'import numpy; numpy.from_dlpack' 2>/dev/null && break; python=; done; "       \
    "export BYOL_PROGRAM=$program BYOL_LIBRARY=$build/libbyol.so.0; "

static void need_numpy(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    printf("skipped: python3 lacks the sanitizer that the library wants\n");
    skip();
#endif
    if (system(SHELL "test -n \"$python\"") != 0) {
        printf("skipped: no python3 with the package 'numpy'\n");
        skip();
    }
}

static void run(const char *script)
{
    char command[4096];
    snprintf(command, sizeof command, SHELL "set -e; DIR='%s' GOOD='%s' ; %s", sample.scratch.path,
             sample.path[DATASET_SHARDS], script);
    assert_int_equal(system(command), 0);
}

// The damaged dataset is the sample itself; a sound one is made of the same pictures.
static void test_the_package_keeps_its_promises(void **state)
{
    (void)state;
    need_numpy();
    struct sample_dataset sound;
    sample_dataset_make(&sound, 41, NOWHERE);
    char script[1400];
    snprintf(script, sizeof script,
             "PYTHONPATH=tools/python PYTHONDONTWRITEBYTECODE=1 timeout 300 \"$python\" -W error "
             "tests/tools/test_python.py '%s' \"$GOOD\"",
             sound.path[DATASET_SHARDS]);
    run(script);
    sample_dataset_remove(&sound);
}

static void test_pip_installs_it(void **state)
{
    (void)state;
    need_numpy();
    if (system(SHELL "\"$python\" -m pip --version >/dev/null 2>&1") != 0) {
        printf("skipped: python3 has no pip\n");
        skip();
    }
    run("\"$python\" -m pip -q --no-input install --no-index --no-deps --no-build-isolation "
        "--disable-pip-version-check --root-user-action=ignore --no-cache-dir "
        "--target \"$DIR/site\" ./tools/python; "
        "cd /; unset BYOL_LIBRARY; PYTHONPATH=$DIR/site \"$python\" -c '"
        "import byol, sys; from pathlib import Path; "
        "assert Path(byol.__file__).parent == Path(sys.argv[1], \"byol\"); "
        "assert (Path(sys.argv[1]) / \"byol\" / \"libbyol.so.0\").exists(); "
        "assert (Path(sys.argv[1]) / \"byol\" / \"py.typed\").exists(); "
        "assert len(list(Path(sys.argv[1]).glob(\"byol-*.dist-info/LICENSE\"))) == 1; "
        "assert byol.__version__.count(\".\") == 2; print(byol.__version__, byol.recipes())' "
        "\"$DIR/site\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_package_keeps_its_promises),
        cmocka_unit_test(test_pip_installs_it),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
