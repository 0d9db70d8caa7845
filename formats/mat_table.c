// Every length is checked against what is around it; what cannot be read is no table.
#include "formats/mat_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#define ZLIB_CONST
#include <zlib.h>

#define HEADER_BYTES   128
#define FIELDS_MAX     64
#define UNPACKED_BYTES (64u << 20) // of a variable

enum {
    INT8 = 1,
    UINT8 = 2,
    INT16 = 3,
    UINT16 = 4,
    INT32 = 5,
    UINT32 = 6,
    SINGLE = 7,
    DOUBLE = 9,
    MATRIX = 14,
    COMPRESSED = 15,
    UTF8 = 16,
    UTF16 = 17
};
enum { CLASS_STRUCT = 2, CLASS_CHAR = 4 };

struct bytes {
    const uint8_t *at;
    size_t len;
};

struct element {
    uint32_t type;
    struct bytes value;
};

struct matrix {
    uint8_t class;
    uint64_t count; // of elements
    struct bytes name, rest;
};

struct table {
    const char *name;
    const char *const *fields;
    size_t field_count;
    enum status (*row)(void *context, const struct mat_cell *cells, struct error *error);
    void *context;
    const char *path;
    bool found;
};

static uint32_t load(const uint8_t *bytes, size_t count)
{
    uint32_t value = 0;
    for (size_t i = 0; i < count; i++) {
        value |= (uint32_t)bytes[i] << (8 * i);
    }
    return value;
}

static void skip(struct bytes *bytes, size_t len)
{
    len = len < bytes->len ? len : bytes->len;
    bytes->at += len;
    bytes->len -= len;
}

static bool next_element(struct bytes *from, struct element *element)
{
    if (from->len < 8) {
        return false;
    }
    uint32_t type = load(from->at, 4);
    if (type >> 16 != 0) { // a small one
        size_t len = type >> 16;
        *element = (struct element){type & 0xffff, {from->at + 4, len}};
        skip(from, 8);
        return len <= 4;
    }
    size_t len = load(from->at + 4, 4);
    skip(from, 8);
    if (len > from->len) {
        return false;
    }
    *element = (struct element){type, {from->at, len}};
    skip(from, type == COMPRESSED ? len : (len + 7) / 8 * 8);
    return true;
}

static bool open_matrix(struct bytes from, struct matrix *matrix)
{
    struct element flags, dimensions, name;
    if (!next_element(&from, &flags) || flags.value.len != 8 || !next_element(&from, &dimensions) ||
        dimensions.value.len % 4 != 0 || !next_element(&from, &name)) {
        return false;
    }
    *matrix = (struct matrix){.class = flags.value.at[0], .count = 1, .name = name.value};
    for (size_t i = 0; i < dimensions.value.len; i += 4) {
        matrix->count *= load(dimensions.value.at + i, 4);
        if (matrix->count > UINT32_MAX) {
            return false;
        }
    }
    matrix->rest = from;
    return true;
}

// --- cells ---------------------------------------------------------------------------------------

// The first number of an element, whose type may be narrower than the variable's.
static bool read_number(const struct element *element, double *number)
{
    static const uint8_t widths[] = {[INT8] = 1,  [UINT8] = 1,  [INT16] = 2,  [UINT16] = 2,
                                     [INT32] = 4, [UINT32] = 4, [SINGLE] = 4, [DOUBLE] = 8};
    const uint8_t *at = element->value.at;
    size_t width = element->type < sizeof widths ? widths[element->type] : 0;
    float single;
    if (width == 0 || element->value.len < width) {
        return false;
    }
    uint32_t value = load(at, width < 4 ? width : 4);
    switch (element->type) {
    case INT8:
        *number = (int8_t)value;
        return true;
    case INT16:
        *number = (int16_t)value;
        return true;
    case INT32:
        *number = (int32_t)value;
        return true;
    case SINGLE:
        memcpy(&single, at, sizeof single);
        *number = single;
        return true;
    case DOUBLE:
        memcpy(number, at, sizeof *number);
        return true;
    default:
        *number = value;
        return true;
    }
}

// Of characters of two bytes the low one: what is asked for is ASCII.
static void read_text(const struct element *element, struct mat_cell *cell)
{
    size_t width = element->type == UINT16 || element->type == UTF16 ? 2 : 1;
    size_t len = element->value.len / width;
    len = len < sizeof cell->text - 1 ? len : sizeof cell->text - 1;
    for (size_t i = 0; i < len; i++) {
        cell->text[i] = (char)element->value.at[i * width];
    }
    cell->text[len] = '\0';
}

static bool read_cell(const struct element *element, struct mat_cell *cell)
{
    struct matrix matrix;
    struct element value;
    *cell = (struct mat_cell){0};
    if (element->type != MATRIX) {
        return false;
    }
    if (element->value.len == 0 || !open_matrix(element->value, &matrix)) {
        return element->value.len == 0;
    }
    if (matrix.class == CLASS_CHAR && next_element(&matrix.rest, &value)) {
        read_text(&value, cell);
    } else if (matrix.count == 1 && next_element(&matrix.rest, &value)) {
        cell->is_number = read_number(&value, &cell->number);
    }
    return true;
}

// --- the table -----------------------------------------------------------------------------------

static enum status damaged(const struct table *table, struct error *error)
{
    return error_set(error, STATUS_CORRUPT, table->path, NOWHERE, NOWHERE,
                     "damaged: the table '%s' cannot be read", table->name);
}

// Which of the wanted fields each field is, or -1.
static enum status match_fields(const struct table *table, struct bytes names, size_t width,
                                int wanted[FIELDS_MAX], struct error *error)
{
    uint32_t missing = (uint32_t)((UINT64_C(1) << table->field_count) - 1);
    for (size_t i = 0; i < names.len / width; i++) {
        const char *name = (const char *)names.at + i * width;
        wanted[i] = -1;
        for (size_t k = 0; k < table->field_count; k++) {
            if (strlen(table->fields[k]) == strnlen(name, width) &&
                strncmp(table->fields[k], name, width) == 0) {
                wanted[i] = (int)k;
                missing &= ~(UINT32_C(1) << k);
            }
        }
    }
    return missing == 0
               ? STATUS_OK
               : error_set(error, STATUS_UNSUPPORTED, table->path, NOWHERE, NOWHERE,
                           "the table '%s' lacks a field that is wanted of it", table->name);
}

static enum status read_rows(const struct table *table, struct matrix *matrix, struct error *error)
{
    struct element width, names, field;
    struct mat_cell cells[FIELDS_MAX];
    int wanted[FIELDS_MAX];
    if (!next_element(&matrix->rest, &width) || width.value.len != 4 ||
        !next_element(&matrix->rest, &names)) {
        return damaged(table, error);
    }
    size_t bytes = load(width.value.at, 4);
    if (bytes == 0 || bytes > 64 || names.value.len % bytes != 0 ||
        names.value.len / bytes > FIELDS_MAX) {
        return damaged(table, error);
    }
    size_t count = names.value.len / bytes;
    enum status status = match_fields(table, names.value, bytes, wanted, error);
    for (uint64_t i = 0; i < matrix->count && status == STATUS_OK; i++) {
        for (size_t k = 0; k < count; k++) {
            struct mat_cell cell;
            if (!next_element(&matrix->rest, &field) || !read_cell(&field, &cell)) {
                return damaged(table, error);
            }
            if (wanted[k] >= 0) {
                cells[wanted[k]] = cell;
            }
        }
        status = table->row(table->context, cells, error);
    }
    return status;
}

static enum status read_variable(struct table *table, struct bytes bytes, struct error *error)
{
    struct matrix matrix;
    if (!open_matrix(bytes, &matrix)) {
        return damaged(table, error);
    }
    bool named = matrix.name.len == strlen(table->name) &&
                 memcmp(matrix.name.at, table->name, matrix.name.len) == 0;
    if (!named || matrix.class != CLASS_STRUCT) {
        return STATUS_OK;
    }
    table->found = true;
    return read_rows(table, &matrix, error);
}

// Unpacks a variable into malloc'ed memory that grows.
static enum status unpack(const struct table *table, struct bytes packed, uint8_t **out,
                          size_t *len, struct error *error)
{
    z_stream stream = {.next_in = packed.at, .avail_in = (unsigned)packed.len};
    size_t capacity = 1u << 20;
    int code = inflateInit(&stream);
    *out = NULL;
    while (code == Z_OK && capacity <= UNPACKED_BYTES) {
        uint8_t *grown = realloc(*out, capacity);
        if (grown == NULL) {
            code = Z_MEM_ERROR;
            break;
        }
        *out = grown;
        stream.next_out = grown + stream.total_out;
        stream.avail_out = (unsigned)(capacity - stream.total_out);
        code = inflate(&stream, Z_NO_FLUSH);
        capacity *= 2;
    }
    *len = stream.total_out;
    inflateEnd(&stream);
    if (code == Z_MEM_ERROR) {
        return error_errno(error, ENOMEM, table->path, NOWHERE, "allocate memory to unpack");
    }
    return code == Z_STREAM_END ? STATUS_OK : damaged(table, error);
}

static enum status read_packed(struct table *table, struct bytes packed, struct error *error)
{
    uint8_t *bytes;
    size_t len;
    struct element element;
    enum status status = unpack(table, packed, &bytes, &len, error);
    struct bytes from = {bytes, len};
    if (status == STATUS_OK && next_element(&from, &element) && element.type == MATRIX) {
        status = read_variable(table, element.value, error);
    }
    free(bytes);
    return status;
}

enum status mat_table_read(const void *bytes, size_t len, const char *path, const char *name,
                           const char *const *fields, size_t field_count,
                           enum status (*row)(void *context, const struct mat_cell *cells,
                                              struct error *error),
                           void *context, struct error *error)
{
    struct table table = {name, fields, field_count, row, context, path, false};
    struct bytes from = {bytes, len};
    struct element element;
    enum status status = STATUS_OK;
    if (len < HEADER_BYTES || memcmp(from.at + HEADER_BYTES - 2, "IM", 2) != 0) {
        return error_set(error, STATUS_UNSUPPORTED, path, NOWHERE, NOWHERE,
                         "no MATLAB file of level 5");
    }
    skip(&from, HEADER_BYTES);
    while (status == STATUS_OK && !table.found && from.len > 0) {
        if (!next_element(&from, &element)) {
            return damaged(&table, error);
        }
        if (element.type == COMPRESSED) {
            status = read_packed(&table, element.value, error);
        } else if (element.type == MATRIX) {
            status = read_variable(&table, element.value, error);
        }
    }
    return status == STATUS_OK && !table.found ? error_set(error, STATUS_UNSUPPORTED, path, NOWHERE,
                                                           NOWHERE, "no table '%s' in it", name)
                                               : status;
}
