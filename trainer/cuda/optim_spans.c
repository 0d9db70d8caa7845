// Cutting spans into pieces, and the table of both in device memory.
#include "trainer/cuda/optim_spans.h"

#include <stdlib.h>

static uint64_t pieces_of(const struct param_span *span)
{
    uint64_t end = span->offset + span->count;
    return span->count == 0 ? 0 : (end - 1) / CUDA_PIECE - span->offset / CUDA_PIECE + 1;
}

static uint32_t cut_span(struct piece *pieces, const struct param_span *span, uint32_t index)
{
    uint32_t count = 0;
    uint64_t end = span->offset + span->count;
    for (uint64_t at = span->offset; at < end; count++) {
        uint64_t next = (at / CUDA_PIECE + 1) * CUDA_PIECE;
        next = next < end ? next : end;
        struct piece piece = {at, (uint32_t)(next - at), index};
        pieces[count] = piece;
        at = next;
    }
    return count;
}

// Fills in the host's copies of the table and of the pieces.
static void cut_spans(struct cuda_spans *spans, struct span_entry *table, struct piece *pieces,
                      const struct param_span *list)
{
    for (int decay = 1; decay >= 0; decay--) {
        for (uint32_t i = 0; i < spans->count; i++) {
            if (list[i].decay != (decay == 1)) {
                continue;
            }
            table[i].span = list[i];
            table[i].first_piece = spans->pieces;
            table[i].pieces = cut_span(pieces + spans->pieces, &list[i], i);
            spans->pieces += table[i].pieces;
        }
        spans->decay_pieces = decay == 1 ? spans->pieces : spans->decay_pieces;
    }
}

// Room on the device, filled with `host` unless that is NULL.
static cudaError_t device_copy(void **out, const void *host, size_t bytes)
{
    cudaError_t error = bytes == 0 ? cudaSuccess : cudaMalloc(out, bytes);
    if (error == cudaSuccess && host != NULL && bytes > 0) {
        error = cudaMemcpy(*out, host, bytes, cudaMemcpyHostToDevice);
    }
    return error;
}

static cudaError_t send_spans(struct cuda_spans *spans, const struct span_entry *table,
                              const struct piece *pieces)
{
    void *memory[4] = {NULL, NULL, NULL, NULL};
    cudaError_t error = device_copy(&memory[0], table, spans->count * sizeof *table);
    if (error == cudaSuccess) {
        error = device_copy(&memory[1], pieces, spans->pieces * sizeof *pieces);
    }
    if (error == cudaSuccess) {
        error = device_copy(&memory[2], NULL, spans->decay_pieces * sizeof *spans->sums);
    }
    if (error == cudaSuccess) {
        error = device_copy(&memory[3], NULL, spans->count * sizeof *spans->factors);
    }
    if (error == cudaSuccess) { // copies may return before they arrive; other streams do not wait
        error = cudaStreamSynchronize(NULL);
    }
    spans->table = memory[0];
    spans->cuts = memory[1];
    spans->sums = memory[2];
    spans->factors = memory[3];
    return error;
}

cudaError_t cuda_spans_open(struct cuda_spans **out, const struct param_span *list, size_t count)
{
    uint64_t pieces = 0;
    for (size_t i = 0; i < count; i++) {
        pieces += pieces_of(&list[i]);
    }
    if (count > INT32_MAX || pieces > INT32_MAX) {
        return cudaErrorInvalidValue;
    }
    struct cuda_spans *spans = calloc(1, sizeof *spans);
    struct span_entry *table = calloc(count + 1, sizeof *table);
    struct piece *cuts = calloc((size_t)pieces + 1, sizeof *cuts);
    cudaError_t error = cudaErrorMemoryAllocation;
    if (spans != NULL && table != NULL && cuts != NULL) {
        spans->count = (uint32_t)count;
        cut_spans(spans, table, cuts, list);
        error = send_spans(spans, table, cuts);
    }
    free(table);
    free(cuts);
    if (error != cudaSuccess) {
        cuda_spans_close(spans);
        return error;
    }
    *out = spans;
    return cudaSuccess;
}

void cuda_spans_close(struct cuda_spans *spans)
{
    if (spans != NULL) {
        cudaFree(spans->table);
        cudaFree(spans->cuts);
        cudaFree(spans->sums);
        cudaFree(spans->factors);
        free(spans);
    }
}
