// Matrix products by cuBLASLt. What a product needs is made when its shape is first met, and kept:
// later calls, and those that are recorded, only enqueue.
//
// cuBLASLt thinks in columns. A row-major matrix is its transpose in columns, and c' = b' a': so
// the factors change places, and nothing is moved.
//
// The same bits every time: one queue with its own workspace, and among the ways of sharing out a
// long sum only the one that adds up the parts in a separate, ordered step.
#include "trainer/cuda/library_internal.h"

#include <cublasLt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

// What NVIDIA advises for Hopper.
#define WORKSPACE ((size_t)32 << 20)

struct shape {
    bool transpose_a, transpose_b;
    uint32_t m, n, k;
    uint32_t alignment_a, alignment_b, alignment_c; // bytes
};

struct product {
    struct product *next;
    struct shape shape;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
};

struct products {
    cublasLtHandle_t handle;
    cublasComputeType_t compute;
    void *workspace;
    struct product *first;
};

static enum status check(cublasStatus_t result, const char *what, struct error *error)
{
    if (result == CUBLAS_STATUS_SUCCESS) {
        return STATUS_OK;
    }
    return error_set(error, STATUS_DEVICE, NULL, NOWHERE, NOWHERE, "cuBLASLt, %s: %s", what,
                     cublasLtGetStatusString(result));
}

enum status products_open(struct products **out, bool strict, struct error *error)
{
    *out = calloc(1, sizeof **out);
    if (*out == NULL) {
        return error_set(error, STATUS_NO_MEMORY, NULL, NOWHERE, NOWHERE,
                         "no memory for matrix products");
    }
    (*out)->compute = strict ? CUBLAS_COMPUTE_32F_PEDANTIC : CUBLAS_COMPUTE_32F_FAST_TF32;
    enum status status = check(cublasLtCreate(&(*out)->handle), "opening", error);
    if (status == STATUS_OK) {
        status = library_check(cudaMalloc(&(*out)->workspace, WORKSPACE),
                               "workspace of matrix products", error);
    }
    if (status != STATUS_OK) {
        products_close(out);
    }
    return status;
}

// --- one shape -----------------------------------------------------------------------------------

static void product_close(struct product *product)
{
    if (product->c != NULL) {
        cublasLtMatrixLayoutDestroy(product->c);
    }
    if (product->b != NULL) {
        cublasLtMatrixLayoutDestroy(product->b);
    }
    if (product->a != NULL) {
        cublasLtMatrixLayoutDestroy(product->a);
    }
    if (product->operation != NULL) {
        cublasLtMatmulDescDestroy(product->operation);
    }
    free(product);
}

void products_close(struct products **products)
{
    if (*products == NULL) {
        return;
    }
    for (struct product *at = (*products)->first, *next; at != NULL; at = next) {
        next = at->next;
        product_close(at);
    }
    cudaFree((*products)->workspace);
    if ((*products)->handle != NULL) {
        cublasLtDestroy((*products)->handle);
    }
    free(*products);
    *products = NULL;
}

// `rows` x `columns` in rows.
static cublasStatus_t make_layout(cublasLtMatrixLayout_t *out, uint32_t rows, uint32_t columns)
{
    return cublasLtMatrixLayoutCreate(out, CUDA_R_32F, columns, rows, columns);
}

static cublasStatus_t make_operation(struct product *product, cublasComputeType_t compute)
{
    // The first factor of cuBLASLt is b.
    const cublasOperation_t first = product->shape.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                            second = product->shape.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasStatus_t result = cublasLtMatmulDescCreate(&product->operation, compute, CUDA_R_32F);
    if (result == CUBLAS_STATUS_SUCCESS) {
        result = cublasLtMatmulDescSetAttribute(product->operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                                &first, sizeof first);
    }
    if (result == CUBLAS_STATUS_SUCCESS) {
        result = cublasLtMatmulDescSetAttribute(product->operation, CUBLASLT_MATMUL_DESC_TRANSB,
                                                &second, sizeof second);
    }
    return result;
}

static cublasStatus_t make_layouts(struct product *product)
{
    const struct shape *s = &product->shape;
    cublasStatus_t result = s->transpose_a ? make_layout(&product->a, s->k, s->m)
                                           : make_layout(&product->a, s->m, s->k);
    if (result == CUBLAS_STATUS_SUCCESS) {
        result = s->transpose_b ? make_layout(&product->b, s->n, s->k)
                                : make_layout(&product->b, s->k, s->n);
    }
    return result == CUBLAS_STATUS_SUCCESS ? make_layout(&product->c, s->m, s->n) : result;
}

static cublasStatus_t set_preferences(cublasLtMatmulPreference_t preference, const struct shape *s)
{
    const uint64_t workspace = WORKSPACE;
    const uint32_t sums = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t bytes;
    } preferences[] = {
        {CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
        {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &sums, sizeof sums},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &s->alignment_b, sizeof s->alignment_b},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &s->alignment_a, sizeof s->alignment_a},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &s->alignment_c, sizeof s->alignment_c},
        {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &s->alignment_c, sizeof s->alignment_c},
    };
    cublasStatus_t result = CUBLAS_STATUS_SUCCESS;
    for (size_t i = 0; i < sizeof preferences / sizeof preferences[0]; i++) {
        if (result == CUBLAS_STATUS_SUCCESS) {
            result = cublasLtMatmulPreferenceSetAttribute(
                preference, preferences[i].name, preferences[i].value, preferences[i].bytes);
        }
    }
    return result;
}

static cublasStatus_t choose_algorithm(const struct products *products, struct product *product)
{
    cublasLtMatmulPreference_t preference = NULL;
    cublasStatus_t result = cublasLtMatmulPreferenceCreate(&preference);
    if (result != CUBLAS_STATUS_SUCCESS) {
        return result;
    }
    result = set_preferences(preference, &product->shape);
    cublasLtMatmulHeuristicResult_t found = {0};
    int count = 0;
    if (result == CUBLAS_STATUS_SUCCESS) {
        result = cublasLtMatmulAlgoGetHeuristic(products->handle, product->operation, product->b,
                                                product->a, product->c, product->c, preference, 1,
                                                &found, &count);
    }
    if (result == CUBLAS_STATUS_SUCCESS) {
        result = count > 0 ? found.state : CUBLAS_STATUS_NOT_SUPPORTED;
    }
    product->algorithm = found.algo;
    cublasLtMatmulPreferenceDestroy(preference);
    return result;
}

static enum status check_product(cublasStatus_t result, const struct shape *s, const char *what,
                                 struct error *error)
{
    if (result == CUBLAS_STATUS_SUCCESS) {
        return STATUS_OK;
    }
    char name[96];
    snprintf(name, sizeof name, "%s of a product %" PRIu32 "x%" PRIu32 "x%" PRIu32 "%s%s", what,
             s->m, s->n, s->k, s->transpose_a ? ", first transposed" : "",
             s->transpose_b ? ", second transposed" : "");
    return check(result, name, error);
}

// NULL when cuBLASLt cannot, or for want of memory.
static const struct product *product_open(struct products *products, const struct shape *shape,
                                          struct error *error)
{
    struct product *product = calloc(1, sizeof *product);
    if (product == NULL) {
        check_product(CUBLAS_STATUS_ALLOC_FAILED, shape, "preparation", error);
        return NULL;
    }
    product->shape = *shape;
    cublasStatus_t result = make_operation(product, products->compute);
    if (result == CUBLAS_STATUS_SUCCESS) {
        result = make_layouts(product);
    }
    if (result == CUBLAS_STATUS_SUCCESS) {
        result = choose_algorithm(products, product);
    }
    if (check_product(result, shape, "preparation", error) != STATUS_OK) {
        product_close(product);
        return NULL;
    }
    product->next = products->first;
    products->first = product;
    return product;
}

// --- running -------------------------------------------------------------------------------------

static bool same_shape(const struct shape *a, const struct shape *b)
{
    return a->transpose_a == b->transpose_a && a->transpose_b == b->transpose_b && a->m == b->m &&
           a->n == b->n && a->k == b->k && a->alignment_a == b->alignment_a &&
           a->alignment_b == b->alignment_b && a->alignment_c == b->alignment_c;
}

static const struct product *product_of(struct products *products, const struct shape *shape,
                                        struct error *error)
{
    for (const struct product *at = products->first; at != NULL; at = at->next) {
        if (same_shape(&at->shape, shape)) {
            return at;
        }
    }
    return product_open(products, shape, error);
}

// Matrices inside a flat block of parameters may begin at any float.
static uint32_t alignment(const float *matrix)
{
    return (uintptr_t)matrix % 16 == 0 ? 16 : sizeof *matrix;
}

enum status cuda_product(struct cuda_library *library, bool transpose_a, bool transpose_b,
                         uint32_t m, uint32_t n, uint32_t k, const float *a, const float *b,
                         float *c, bool accumulate)
{
    struct products *products = library->products;
    const struct shape shape = {transpose_a,  transpose_b,  m,           n, k,
                                alignment(a), alignment(b), alignment(c)};
    const struct product *product = product_of(products, &shape, &library->failure);
    if (product == NULL) {
        return STATUS_DEVICE;
    }
    const float alpha = 1, beta = accumulate ? 1 : 0;
    cublasStatus_t result =
        cublasLtMatmul(products->handle, product->operation, &alpha, b, product->b, a, product->a,
                       &beta, c, product->c, c, product->c, &product->algorithm,
                       products->workspace, WORKSPACE, library->stream);
    return check_product(result, &shape, "run", &library->failure);
}
