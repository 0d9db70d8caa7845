// Ranks reaching each other. Under a launcher this program is a rank: it checks what all must see
// and fails by its exit code. The suite starts itself with mpirun, with one to four ranks.
#include "trainer/comm/comm.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "tests/support/ranks.h"
#include "trainer/device/op.h"

// --- a rank --------------------------------------------------------------------------------------

#define RANK_ARGUMENT  "--rank"
#define ABORT_ARGUMENT "--abort" // a rank waits, another one gives up
#define ABORT_CODE     7
#define ALONE_ARGUMENT "--alone" // behind the launcher of another MPI
#define MOST_RANKS     4

static unsigned rank, ranks;

// Not cmocka's: outside of its tests they cannot fail.
#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "rank %u of %u, line %d: %s\n", rank, ranks, __LINE__, #what);         \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

// Sums depend on the order of their terms.
static float value_of(unsigned of_rank, size_t i)
{
    return (float)(i % 1013) * 0.37f + 1e4f * (float)of_rank + 1.0f / (float)(i + 3);
}

static void check_block(const struct device_peers *peers, size_t count)
{
    float *values = malloc((count + 1) * sizeof *values);
    CHECK(values != NULL);
    for (size_t i = 0; i < count; i++) {
        values[i] = value_of(rank, i);
    }
    values[count] = 0.5f;
    CHECK(peers->sum_block(peers->context, values, count) == STATUS_OK);
    for (size_t i = 0; i < count; i++) {
        float sum = value_of(0, i);
        for (unsigned other = 1; other < ranks; other++) {
            sum += value_of(other, i);
        }
        CHECK(values[i] == sum);
    }
    CHECK(values[count] == 0.5f);
    free(values);
}

static void check_sums(const struct device_peers *peers, size_t count)
{
    double *values = malloc(count * sizeof *values);
    CHECK(values != NULL);
    for (size_t i = 0; i < count; i++) {
        values[i] = 1 / (double)(i + 1 + rank);
    }
    CHECK(peers->sum(peers->context, values, count) == STATUS_OK);
    for (size_t i = 0; i < count; i++) {
        double sum = 1 / (double)(i + 1);
        for (unsigned other = 1; other < ranks; other++) {
            sum += 1 / (double)(i + 1 + other);
        }
        CHECK(values[i] == sum);
    }
    free(values);
}

static void check_telling(struct comm *comm)
{
    unsigned all[MOST_RANKS], number = 7 * rank + 1;
    CHECK(comm_gather(comm, &number, sizeof number, all, NULL) == STATUS_OK);
    for (unsigned i = 0; i < ranks; i++) {
        CHECK(all[i] == 7 * i + 1);
    }
    CHECK(comm_share(comm, &number, sizeof number, NULL) == STATUS_OK && number == 1);

    struct error error = {0};
    unsigned flags = 1u << rank;
    CHECK(comm_agree(comm, STATUS_OK, &flags, &error) == STATUS_OK);
    CHECK(flags == (1u << ranks) - 1);
    CHECK(comm_same(comm, 5, "apples", &error) == STATUS_OK);
    CHECK(comm_together(comm));
}

// Longer than a piece, exactly one, empty, and none.
static void check_texts(struct comm *comm)
{
    static const size_t lengths[] = {3 * COMM_GATHER_BYTES + 5, COMM_GATHER_BYTES - 1, 0};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        char *text = NULL;
        if (rank == 0) {
            text = calloc(lengths[i] + 1, 1);
            CHECK(text != NULL);
            memset(text, 'a' + (int)i, lengths[i]);
        }
        CHECK(comm_share_text(comm, &text, NULL) == STATUS_OK && text != NULL);
        CHECK(strlen(text) == lengths[i]);
        CHECK(strspn(text, (char[]){(char)('a' + i), '\0'}) == lengths[i]);
        free(text);
    }
    char *none = NULL;
    CHECK(comm_share_text(comm, &none, NULL) == STATUS_OK && none == NULL);
}

// The last rank fails; then all but the first.
static void check_failing(struct comm *comm)
{
    struct error error = {0};
    enum status status = STATUS_OK;
    if (rank == ranks - 1) {
        status = error_set(&error, STATUS_CORRUPT, "FILE", 12, 34, "it broke");
    }
    CHECK(comm_agree(comm, status, NULL, &error) == STATUS_CORRUPT);
    CHECK(error.status == STATUS_CORRUPT && strcmp(error.path, "FILE") == 0);
    CHECK(error.offset == 12 && error.record == 34);
    char reason[64];
    snprintf(reason, sizeof reason, "rank %u: it broke", ranks - 1);
    CHECK(strcmp(error.reason, ranks == 1 ? "it broke" : reason) == 0);
    if (ranks > 1) {
        CHECK(comm_same(comm, rank > 0, "apples", &error) == STATUS_DEVICE);
        CHECK(strcmp(error.reason, "rank 1: apples differ from those of rank 0") == 0);
    }
    CHECK(comm_together(comm));
}

// --- normalisation over all ranks ----------------------------------------------------------------

#define ROWS     12 // of a view, over all ranks
#define VIEWS    2
#define CHANNELS 40

struct norm_run {
    float y[VIEWS * ROWS * CHANNELS], dx[VIEWS * ROWS * CHANNELS];
    float grads[2 * CHANNELS], state[BATCH_NORM_STATE(CHANNELS)];
};

static float input_of(uint32_t view, uint32_t row, uint32_t c, unsigned what)
{
    return sinf((float)(row * 41 + c * 7 + view * 3 + what)) + (float)c * 0.1f * (float)(1 - what);
}

// `from` NULL: zero.
static void *on_device(struct device *device, const void *from, size_t bytes)
{
    void *memory;
    CHECK(device->ops->allocate(device, &memory, bytes, NULL) == STATUS_OK);
    CHECK(from == NULL || device->ops->copy_in(device, memory, from, bytes) == STATUS_OK);
    return memory;
}

// `rows` of each view from `first` on.
static void run_norm(struct device *device, uint32_t first, uint32_t rows, struct norm_run *run)
{
    static float x[VIEWS * ROWS * CHANNELS], dy[VIEWS * ROWS * CHANNELS], params[2 * CHANNELS];
    for (uint32_t i = 0; i < VIEWS * rows * CHANNELS; i++) {
        uint32_t view = i / (rows * CHANNELS), row = i / CHANNELS % rows;
        x[i] = input_of(view, first + row, i % CHANNELS, 0);
        dy[i] = input_of(view, first + row, i % CHANNELS, 1);
    }
    for (uint32_t c = 0; c < CHANNELS; c++) {
        params[c] = 1 + 0.01f * (float)c;
        params[CHANNELS + c] = 0.1f;
    }
    const struct tensor_shape shape = {TENSOR_MATRIX, VIEWS * rows, 1, 1, CHANNELS};
    const struct op_desc desc = {.kind = OP_BATCH_NORM,
                                 .in = shape,
                                 .out = shape,
                                 .groups = VIEWS,
                                 .relu = true,
                                 .need_backward = true,
                                 .need_input_gradient = true};
    struct op *op;
    struct error error;
    CHECK(device->ops->op_create(device, &desc, &op, &error) == STATUS_OK);
    memset(run->state, 0, sizeof run->state);
    size_t bytes = VIEWS * rows * CHANNELS * sizeof *x;
    void *memory[] = {
        on_device(device, x, bytes),
        on_device(device, dy, bytes),
        on_device(device, params, sizeof params),
        on_device(device, run->state, sizeof run->state),
        on_device(device, NULL, bytes),
        on_device(device, NULL, bytes),
        on_device(device, NULL, sizeof run->grads),
        on_device(device, NULL, device->ops->op_saved_bytes(op) + 64),
        on_device(device, NULL, device->ops->op_scratch_bytes(op) + 64),
    };
    const struct op_buffers buffers = {.x = memory[0],
                                       .y = memory[4],
                                       .params = memory[2],
                                       .param_grads = memory[6],
                                       .state = memory[3],
                                       .saved = memory[7],
                                       .scratch = memory[8],
                                       .dy = memory[1],
                                       .dx = memory[5]};
    CHECK(device->ops->op_forward(device, op, &buffers, OP_TRAIN) == STATUS_OK);
    CHECK(device->ops->op_backward(device, op, &buffers) == STATUS_OK);
    CHECK(device->ops->copy_out(device, run->y, buffers.y, bytes) == STATUS_OK);
    CHECK(device->ops->copy_out(device, run->dx, buffers.dx, bytes) == STATUS_OK);
    CHECK(device->ops->copy_out(device, run->grads, memory[6], sizeof run->grads) == STATUS_OK);
    CHECK(device->ops->copy_out(device, run->state, memory[3], sizeof run->state) == STATUS_OK);
    for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) {
        device->ops->release(device, memory[i]);
    }
    device->ops->op_release(device, op);
}

static bool near(const float *a, const float *b, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!(fabsf(a[i] - b[i]) <= 2e-6f * (1 + fabsf(b[i])))) {
            fprintf(stderr, "value %zu: %.9g, expected %.9g\n", i, (double)a[i], (double)b[i]);
            return false;
        }
    }
    return true;
}

// Each rank with its rows against all rows on a device alone.
static void check_norm(const struct device_peers *peers, const char *name)
{
    struct device *device;
    struct error error;
    if (ROWS % ranks != 0 || device_open(&device, name, 1, DEVICE_F32, &error) != STATUS_OK) {
        return;
    }
    static struct norm_run whole, part;
    uint32_t rows = ROWS / ranks;
    run_norm(device, 0, ROWS, &whole);
    device->peers = peers;
    run_norm(device, rank * rows, rows, &part);
    device_close(&device);
    for (uint32_t view = 0; view < VIEWS; view++) {
        size_t own = (size_t)view * rows * CHANNELS, count = (size_t)rows * CHANNELS;
        size_t all = ((size_t)view * ROWS + rank * rows) * CHANNELS;
        CHECK(near(part.y + own, whole.y + all, count));
        CHECK(near(part.dx + own, whole.dx + all, count));
    }
    CHECK(near(part.state, whole.state, BATCH_NORM_STATE(CHANNELS)));
    double sums[2 * CHANNELS];
    for (size_t i = 0; i < 2 * CHANNELS; i++) {
        sums[i] = (double)part.grads[i];
    }
    CHECK(peers->sum(peers->context, sums, 2 * CHANNELS) == STATUS_OK);
    for (size_t i = 0; i < 2 * CHANNELS; i++) {
        part.grads[i] = (float)sums[i];
    }
    CHECK(near(part.grads, whole.grads, 2 * CHANNELS));
}

static int be_a_rank(unsigned expected)
{
    struct comm *comm;
    struct error error;
    if (comm_open(&comm, &error) != STATUS_OK) {
        fprintf(stderr, "%s\n", error.reason);
        return 1;
    }
    rank = comm_rank(comm);
    ranks = comm_ranks(comm);
    CHECK(ranks == expected && rank < ranks);
    CHECK(comm_sharing(comm) >= 1 && comm_sharing(comm) <= ranks);
    const struct device_peers *peers = comm_peers(comm);
    CHECK((peers == NULL) == (ranks == 1));
    if (peers != NULL) {
        CHECK(peers->count == ranks);
        static const size_t counts[] = {1, 2, 3, 5, 4096, 16384, 16385, 65536, 200001};
        for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
            check_block(peers, counts[i]);
            check_sums(peers, counts[i]);
        }
        for (const struct device_ops *const *ops = device_table; *ops; ops++) {
            check_norm(peers, (*ops)->name);
        }
    }
    check_telling(comm);
    check_texts(comm);
    check_failing(comm);
    comm_close(&comm);
    CHECK(comm == NULL);
    return 0;
}

static int give_up(void)
{
    struct comm *comm;
    struct error error;
    uint8_t mine = 0, all[MOST_RANKS];
    if (comm_open(&comm, &error) != STATUS_OK) {
        return 1;
    }
    if (comm_rank(comm) == 0) {
        comm_gather(comm, &mine, sizeof mine, all, &error); // for ever
        return 2;
    }
    comm_part(comm);
    if (!comm_together(comm)) {
        comm_abort(comm, ABORT_CODE);
    }
    return 3;
}

// The size that was promised is not there.
static int be_alone(void)
{
    struct comm *comm;
    struct error error;
    CHECK(comm_open(&comm, &error) == STATUS_UNSUPPORTED);
    CHECK(comm == NULL && strstr(error.reason, "MPI knows of 1") != NULL);
    return 0;
}

// --- the suite -----------------------------------------------------------------------------------

static char self[512];

static void alone_costs_nothing(void **state)
{
    (void)state;
    struct comm *comm;
    struct error error = {0};
    unsigned value = 3, copy = 0, flags = 5;
    assert_int_equal(comm_open(&comm, &error), STATUS_OK);
    assert_null(comm);
    assert_int_equal(comm_rank(comm), 0);
    assert_int_equal(comm_ranks(comm), 1);
    assert_int_equal(comm_sharing(comm), 1);
    assert_null(comm_peers(comm));
    assert_int_equal(comm_gather(comm, &value, sizeof value, &copy, NULL), STATUS_OK);
    assert_int_equal(copy, 3);
    assert_int_equal(comm_share(comm, &value, sizeof value, NULL), STATUS_OK);
    assert_int_equal(comm_agree(comm, STATUS_OK, &flags, NULL), STATUS_OK);
    assert_int_equal(flags, 5);
    error_set(&error, STATUS_IO, NULL, NOWHERE, NOWHERE, "it broke");
    assert_int_equal(comm_agree(comm, STATUS_IO, NULL, &error), STATUS_IO);
    assert_string_equal(error.reason, "it broke");
    assert_int_equal(comm_same(comm, 5, "apples", NULL), STATUS_OK);
    comm_part(comm);
    assert_true(comm_together(comm));
    comm_abort(comm, 1);
    comm_close(&comm);
}

static void ranks_see_the_same(void **state)
{
    (void)state;
    for (unsigned count = 1; count <= MOST_RANKS; count++) {
        char command[700];
        snprintf(command, sizeof command, "mpirun -n %u '%s' " RANK_ARGUMENT " %u >&2", count, self,
                 count);
        assert_int_equal(system(command), 0);
    }
}

static void one_that_gives_up_ends_all(void **state)
{
    (void)state;
    char command[700];
    snprintf(command, sizeof command, "mpirun -n 2 '%s' " ABORT_ARGUMENT " >&2", self);
    int status = system(command);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), ABORT_CODE);
}

static void another_launcher_is_noticed(void **state)
{
    (void)state;
    char command[700];
    snprintf(command, sizeof command, "PMI_SIZE=3 '%s' " ALONE_ARGUMENT " >&2", self);
    assert_int_equal(system(command), 0);
}

// A launcher's word without MPI, or MPI without its launcher, is not silently one process.
static void a_launcher_needs_mpi(void **state)
{
    (void)state;
#if !HAVE_MPI
    struct comm *comm;
    struct error error;
    setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
    assert_int_equal(comm_open(&comm, &error), STATUS_UNSUPPORTED);
    assert_null(comm);
    assert_non_null(strstr(error.reason, "built without MPI"));
    setenv("OMPI_COMM_WORLD_SIZE", "1", 1);
    assert_int_equal(comm_open(&comm, &error), STATUS_OK);
    assert_null(comm);
    unsetenv("OMPI_COMM_WORLD_SIZE");
#endif
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], RANK_ARGUMENT) == 0) {
        return be_a_rank((unsigned)strtoul(argv[2], NULL, 10));
    }
    if (argc == 2 && strcmp(argv[1], ABORT_ARGUMENT) == 0) {
        return give_up();
    }
    if (argc == 2 && strcmp(argv[1], ALONE_ARGUMENT) == 0) {
        return be_alone();
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alone_costs_nothing),         cmocka_unit_test(a_launcher_needs_mpi),
        cmocka_unit_test(ranks_see_the_same),          cmocka_unit_test(one_that_gives_up_ends_all),
        cmocka_unit_test(another_launcher_is_noticed),
    };
    const char *reason = ranks_reason_to_skip();
    if (reason != NULL) {
        printf("skipped: several ranks: %s\n", reason);
    }
    snprintf(self, sizeof self, "%s", argv[0]);
    ranks_prepare();
    size_t count = reason != NULL ? 2 : sizeof tests / sizeof tests[0]; // the first need no MPI
    return _cmocka_run_group_tests("comm", tests, count, NULL, NULL);
}
