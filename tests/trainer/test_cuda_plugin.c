// Opening the plugin of the device `cuda`: each way in which it can be missing or wrong has its
// status and its words. Wrong plugins are made here, by the compiler where there is one.
#include "trainer/device/cuda_plugin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[256], path[300];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/byol-plugin-XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

// In a process of its own, since a plugin that was opened once stays. `plugin` NULL: the
// environment does not say.
static void assert_refused(const char *plugin, enum status status, const char *words)
{
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct device *device;
        struct error error = {0};
        plugin != NULL ? setenv("BYOL_CUDA_PLUGIN", plugin, 1) : unsetenv("BYOL_CUDA_PLUGIN");
        enum status got = device_open(&device, "cuda", 1, DEVICE_F32, &error);
        bool right = got == status && device == NULL && strstr(error.reason, words) != NULL;
        if (!right) {
            printf("%s: %s\n", status_name(got), error.reason);
            fflush(stdout);
        }
        _exit(!right);
    }
    int state;
    waitpid(child, &state, 0);
    assert_true(WIFEXITED(state) && WEXITSTATUS(state) == 0);
}

static const char *write_file(const char *name, const char *text)
{
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
    return path;
}

// Compiled from `text` to libNAME.so; NULL where there is no compiler.
static const char *build_plugin(const char *name, const char *text, const char *flags)
{
    char command[1200], source[64];
    snprintf(source, sizeof source, "%s.c", name);
    write_file(source, text);
    snprintf(command, sizeof command, "cc -shared -fPIC -o %s/lib%s.so %s/%s %s 2>/dev/null",
             folder, name, folder, source, flags);
    snprintf(path, sizeof path, "%s/lib%s.so", folder, name);
    if (system(command) != 0) {
        printf("skipped: no compiler to make plugins with\n");
        return NULL;
    }
    return path;
}

static void test_no_plugin(void **state)
{
    (void)state;
    assert_refused(NULL, STATUS_NO_DEVICE, "libbyol_cuda.so is neither beside the program nor in");
    assert_refused("", STATUS_NO_DEVICE, "BYOL_CUDA_PLUGIN is empty");
    assert_refused("/nowhere/plugin.so", STATUS_NO_DEVICE,
                   "BYOL_CUDA_PLUGIN names no file: /nowhere/plugin.so");
}

static void test_broken_files(void **state)
{
    (void)state;
    assert_refused(write_file("text.so", "no library"), STATUS_NO_DEVICE, "cannot be loaded");
    assert_refused(write_file("text.so", "no library"), STATUS_NO_DEVICE, "text.so");
    assert_refused(folder, STATUS_NO_DEVICE, "cannot be loaded");
}

static void test_another_library(void **state)
{
    (void)state;
    const char *other = build_plugin("other", "int other(void) { return 1; }", "");
    if (other == NULL) {
        skip();
    }
    assert_refused(other, STATUS_NO_DEVICE, "this is not its plugin");
}

static void test_a_library_that_it_needs_is_missing(void **state)
{
    (void)state;
    const char *needed = build_plugin("cudnn_of_a_test", "int it(void) { return 1; }",
                                      "-Wl,-soname,libcudnn_of_a_test.so");
    if (needed == NULL) {
        skip();
    }
    char flags[600];
    snprintf(flags, sizeof flags, "-Wl,--no-as-needed -L%s -lcudnn_of_a_test", folder);
    const char *plugin = build_plugin("needy", "int other(void) { return 1; }", flags);
    assert_refused(plugin, STATUS_NO_DEVICE, "libcudnn_of_a_test.so: cannot open");
    assert_refused(plugin, STATUS_NO_DEVICE, "LD_LIBRARY_PATH");
}

static void test_another_version(void **state)
{
    (void)state;
    const char *old = build_plugin("old",
                                   "#include <stdlib.h>\n"
                                   "void *byol_cuda_device(void) { abort(); }\n"
                                   "void *byol_cuda_layout(void) {\n"
                                   "    static unsigned sizes[16];\n"
                                   "    return sizes;\n"
                                   "}\n",
                                   "");
    if (old == NULL) {
        skip();
    }
    assert_refused(old, STATUS_VERSION, "of another version than the program");
}

// The plugin that the suites run with, where there is one.
static void test_the_plugin_opens(void **state)
{
    (void)state;
    struct device *device;
    struct error error = {0};
    enum status status = device_open(&device, "cuda", 1, DEVICE_F32, &error);
    if (status == STATUS_NO_DEVICE) {
        printf("skipped: %s\n", error.reason);
        skip();
    }
    assert_int_equal(status, STATUS_OK);
    assert_string_equal(device->ops->name, "cuda");
    assert_ptr_not_equal(device->ops, &cuda_device_ops);
    device_close(&device);
}

static void test_found_beside_the_program(void **state)
{
    (void)state;
    const char *plugin = getenv("BYOL_CUDA_PLUGIN");
    if (plugin == NULL || access(plugin, R_OK) != 0) {
        printf("skipped: no plugin to put beside a program\n");
        skip();
    }
    static const char *const places[] = {"bin", "lib/byol"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        char command[2000];
        snprintf(command, sizeof command,
                 "cd %s && rm -rf bin lib && mkdir -p bin %s && cp -L /proc/%d/exe bin/test && "
                 "ln -s %s %s/" CUDA_PLUGIN_FILE " && "
                 "env -u BYOL_CUDA_PLUGIN CMOCKA_MESSAGE_OUTPUT=STDOUT bin/test opens | "
                 "grep -q 'OK.*test_the_plugin_opens'",
                 folder, places[i], (int)getpid(), plugin, places[i]);
        assert_int_equal(system(command), 0);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_plugin),
        cmocka_unit_test(test_broken_files),
        cmocka_unit_test(test_another_library),
        cmocka_unit_test(test_a_library_that_it_needs_is_missing),
        cmocka_unit_test(test_another_version),
        cmocka_unit_test(test_found_beside_the_program),
        cmocka_unit_test(test_the_plugin_opens),
    };
    const struct CMUnitTest opens[] = {cmocka_unit_test(test_the_plugin_opens)};
    if (argc == 2 && strcmp(argv[1], "opens") == 0) {
        return cmocka_run_group_tests(opens, NULL, NULL);
    }
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
